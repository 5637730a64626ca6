import type { ArtifactContent, ReadRange } from '../artifacts/store.ts';
import { corruptArtifact, HandoverError } from '../base/errors.ts';
import { type Digest, digestOf } from '../image/digest.ts';
import { type Descriptor, type ImageContents, isAttestationOf, parseIndex, parseManifest } from '../image/manifest.ts';
import { samePlatform } from '../image/platform.ts';
import { attestationsName } from '../image/record.ts';
import { type SeenEntry, type SeenTarball, seeTarball } from '../tar/tarball-reader.ts';

/** The attestations of an image in an artifact. */
export interface ImageAttestations {
  /** The index of the image and its attestations. */
  readonly index: Buffer;
  readonly manifests: readonly { readonly descriptor: Descriptor; readonly bytes: Buffer }[];
  /** The blobs that the manifests refer to, with their positions in the file. */
  readonly blobs: readonly Pick<SeenEntry, 'digest' | 'size' | 'offset'>[];
  readonly read: ReadRange;
}

/**
 * Reads the attestations of an identified image. The index may list only that image and its attestations.
 * @param indexDigest the digest in the record
 * @throws HandoverError `artifact-corrupt`, `transfer-failed`
 */
export async function readAttestations(
  content: ArtifactContent,
  image: ImageContents,
  indexDigest: Digest,
): Promise<ImageAttestations> {
  const size = content.files.find(({ name }) => name === attestationsName)?.size;
  const read = size === undefined ? undefined : await content.ranges(attestationsName);
  if (size === undefined || read === undefined) throw corrupt('the file is missing or compressed');
  try {
    const seen = await seeTarball(read(0, size, () => undefined));
    return { ...attestationsIn(seen, image, indexDigest), read };
  } catch (error) {
    throw error instanceof HandoverError && error.code === 'tarball-invalid' ? corrupt(error.message, error) : error;
  }
}

function attestationsIn(seen: SeenTarball, image: ImageContents, indexDigest: Digest): Omit<ImageAttestations, 'read'> {
  const index = seen.find('index.json')?.bytes ?? Buffer.alloc(0);
  if (digestOf(index) !== indexDigest) throw corrupt(`its index is not ${indexDigest}`);
  const listed = parseIndex(index, 'index.json');
  const [main, ...others] = listed.filter((item) => !isAttestationOf(item, image.manifestDigest));
  if (main === undefined || others.length > 0 || !describes(main, image))
    throw corrupt(`its index lists something other than the image ${image.manifestDigest} and its attestations`);
  const manifests = listed
    .filter((item) => item !== main)
    .map((descriptor) => ({ descriptor, bytes: required(seen, descriptor).bytes ?? Buffer.alloc(0) }));
  const blobs = manifests.flatMap(({ descriptor, bytes }) => {
    const { config, layers } = parseManifest(bytes, `attestation ${descriptor.digest}`);
    return [config, ...layers].map((blob) => required(seen, blob));
  });
  return { index, manifests, blobs };
}

function describes({ digest, size, mediaType, platform }: Descriptor, image: ImageContents): boolean {
  return (
    digest === image.manifestDigest &&
    size === image.manifestBytes.length &&
    mediaType === image.manifestMediaType &&
    (platform === undefined || samePlatform(platform, image.config.platform))
  );
}

function required(seen: SeenTarball, { digest, size }: Descriptor): SeenEntry {
  const entry = seen.blob(digest);
  if (entry?.size === size) return entry;
  throw corrupt(`${digest} is missing or has another size`);
}

/** @param why the reason, to follow a colon */
function corrupt(why: string, cause?: unknown): HandoverError {
  return corruptArtifact(`The attestations in the artifact (${attestationsName}) can't be used: ${why}.`, cause);
}
