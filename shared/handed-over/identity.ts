import type { ArtifactContent, ReadRange } from '../artifacts/store.ts';
import { messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { copiedBytes } from '../bytes/chunks.ts';
import { type Digest, digestOf } from '../image/digest.ts';
import {
  configFault,
  type Descriptor,
  type ImageConfig,
  type ImageContents,
  mediaTypes,
  parseConfig,
  parseManifest,
} from '../image/manifest.ts';
import { formatPlatform, samePlatform } from '../image/platform.ts';
import {
  type BytePlace,
  corrupt,
  type HandoverRecord,
  imagesOf,
  type RecordedImage,
  type RecordLayer,
} from '../image/record.ts';
import type { TaggedReference } from '../image/reference.ts';

// Who an image is, is computed here from the bytes of its config and its manifest, and never believed: an artifact's record
// may say anything. It only tells where the bytes lie, and what it says besides has to agree with them. All that is
// expected of an image, and what the engine has in the end (verify.ts), is compared with what is computed here.

/** Who an image is. */
export interface Identity extends ImageConfig {
  /** Undefined where an image was pulled, and nobody tells. */
  readonly configDigest: Digest | undefined;
  /** What a containerd store calls the image; undefined for one that has no manifest yet. */
  readonly manifestDigest: Digest | undefined;
}

/** An image of an artifact, known before any of its layers has been read. */
export interface KnownImage {
  readonly identity: Identity;
  /** Undefined for an image without a manifest. */
  readonly contents: ImageContents | undefined;
  /** What the record calls it. */
  readonly references: readonly TaggedReference[];
  /** Where its layers lie, in the order they are applied; unknown where the record doesn't tell. */
  readonly layers: readonly RecordLayer[] | undefined;
}

/**
 * The images of an artifact, from the bytes of their configs and manifests: some kilobytes.
 * @returns in the record's order; undefined when the record doesn't tell where those lie, or when the artifact can't be read in
 *   parts: then it takes all of it to know them
 * @throws HandoverError `artifact-corrupt` when the bytes are not what the record says; `transfer-failed`, `artifact-expired`
 */
export async function identifyByRange(
  content: ArtifactContent,
  record: HandoverRecord,
): Promise<readonly KnownImage[] | undefined> {
  const images = imagesOf(record);
  if (record.tarballCompression !== 'none') return undefined;
  const places = images
    .flatMap(({ configAt, manifestAt }) => [configAt, manifestAt])
    .filter((one) => one !== undefined);
  const inAll = places.reduce((sum, { size }) => sum + size, 0);
  if (!images.every(hasPlaces) || places.some(({ size }) => size > limits.jsonBytes)) return undefined;
  // A hundred images may all point to the same bytes.
  if (inAll > limits.jsonBytesInAll) return undefined;
  const read = await content.ranges(record.tarballName);
  if (read === undefined) return undefined;
  const bytesAt = await reader(read, places);
  return Promise.all(images.map((image) => knownImage(image, bytesAt)));
}

// A record that names a manifest has to tell where it lies, too: nothing less than that manifest's digest identifies the image.
function hasPlaces({ configAt, manifestAt, manifestDigests }: RecordedImage): boolean {
  return configAt !== undefined && (manifestAt !== undefined || manifestDigests.length === 0);
}

type BytesAt = (place: BytePlace) => Promise<Buffer>;

/** Reads places: in one go where they lie side by side, as in a tarball of ours, whose small entries stand at its end. */
async function reader(read: ReadRange, places: readonly BytePlace[]): Promise<BytesAt> {
  const part = (start: number, end: number): Promise<Buffer> => copiedBytes(read(start, end, () => undefined));
  const start = Math.min(...places.map(({ offset }) => offset));
  const end = Math.max(...places.map(({ offset, size }) => offset + size));
  if (end - start > limits.jsonBytes) return ({ offset, size }) => part(offset, offset + size);
  const all = await part(start, end);
  return ({ offset, size }) => Promise.resolve(all.subarray(offset - start, offset - start + size));
}

async function knownImage(image: RecordedImage, bytesAt: BytesAt): Promise<KnownImage> {
  const { references, configAt, manifestAt } = image;
  const configBytes = configAt === undefined ? Buffer.alloc(0) : await bytesAt(configAt);
  const configDigest = digestOf(configBytes);
  requireAgreement('config digest', image.configDigest, configDigest);
  const config = parsed(() => parseConfig(configBytes, 'the config'));
  if (manifestAt === undefined) {
    const identity = { ...config, configDigest, manifestDigest: undefined };
    requireRecorded(image, identity, undefined);
    return { identity, contents: undefined, references, layers: undefined };
  }
  const manifestBytes = await bytesAt(manifestAt);
  const manifest = parsed(() => parseManifest(manifestBytes, 'the manifest'));
  const identity = { ...config, configDigest, manifestDigest: digestOf(manifestBytes) };
  requireAgreement('config digest', image.configDigest, manifest.config.digest);
  requireRecorded(image, identity, manifest.layers);
  const fault = configFault(manifest, configBytes, config);
  if (fault !== undefined) throw corrupt(`the manifest ${identity.manifestDigest} ${fault}`);
  const contents = {
    configDigest,
    configBytes,
    config,
    manifestDigest: identity.manifestDigest,
    manifestBytes,
    // A manifest may name its type (OCI image-spec, manifest.md).
    manifestMediaType: manifest.mediaType || mediaTypes.manifest,
    layers: manifest.layers,
  };
  return { identity, contents, references, layers: locatedLayers(image, manifest.layers) };
}

/** What cannot be read is not what the record says. */
function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw corrupt(messageOf(error), error);
  }
}

/** The layers as the manifest has them, where the record tells where each of them lies. */
function locatedLayers(record: RecordedImage, layers: readonly Descriptor[]): readonly RecordLayer[] | undefined {
  const located = layers.flatMap(({ digest, size, mediaType }, position) => {
    const offset = record.layers[position]?.offset;
    return offset === undefined ? [] : [{ digest, size, mediaType, offset }];
  });
  return located.length === layers.length ? located : undefined;
}

/**
 * @param layers what the image's manifest says of them; undefined where there is none
 * @throws HandoverError `artifact-corrupt` when the record says anything else than the bytes
 */
export function requireRecorded(
  record: RecordedImage,
  identity: Identity,
  layers: readonly Descriptor[] | undefined,
): void {
  const { configDigest, manifestDigest, diffIds, platform, labels } = identity;
  requireAgreement('config digest', record.configDigest, configDigest ?? 'none');
  if (record.manifestDigests.length > 0)
    requireAgreement(
      'manifest digest',
      record.manifestDigests.find((one) => one === manifestDigest) ?? record.manifestDigests.join(', '),
      manifestDigest ?? 'none',
    );
  requireAgreement('diff IDs', record.diffIds.join(', '), diffIds.join(', '));
  if (!samePlatform(record.platform, platform))
    requireAgreement('platform', formatPlatform(record.platform), formatPlatform(platform));
  requireAgreement('labels', listed(record.labels), listed(labels));
  if (layers === undefined) return;
  requireAgreement('number of layers', String(record.layers.length), String(layers.length));
  layers.forEach(({ digest, size }, position) => {
    const said = record.layers[position];
    requireAgreement(`layer ${String(position + 1)}`, said?.digest ?? 'none', digest);
    requireAgreement(`size of layer ${String(position + 1)}`, String(said?.size ?? 0), String(size));
  });
}

function listed(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .sort()
    .join(', ');
}

function requireAgreement(what: string, recorded: string, found: string): void {
  if (recorded === found) return;
  throw corrupt(
    `its ${what} (${quoteForeign(recorded)}) is not that of the image in the tarball (${quoteForeign(found)})`,
  );
}
