import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { messageOf } from '../shared/base/errors.ts';
import { isObject, parseJson, stringOr } from '../shared/base/json.ts';
import { quoteForeign } from '../shared/base/text.ts';
import { copiedBytes } from '../shared/bytes/chunks.ts';
import { type Digest, digestOf } from '../shared/image/digest.ts';
import {
  type Descriptor,
  type ImageConfig,
  type ImageContents,
  mediaTypes,
  parseConfig,
  parseManifest,
} from '../shared/image/manifest.ts';
import { formatPlatform, samePlatform } from '../shared/image/platform.ts';
import { corrupt, type HandoverRecord, type RecordedImage, type RecordLayer } from '../shared/image/record.ts';
import type { TaggedReference } from '../shared/image/reference.ts';
import { readSmallTar } from '../shared/tar/entries.ts';
import { tarBlock, tarPadding } from '../shared/tar/header.ts';

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
  readonly contents: ImageContents;
  /** What the record calls it. */
  readonly references: readonly TaggedReference[];
  /** Where its layers lie, in the order they are applied. */
  readonly layers: readonly RecordLayer[];
}

// Configs and manifests: some kilobytes each.
const maxTailBytes = 8 * 1024 * 1024;

/**
 * The images of an artifact, from the end of its tarball: behind the layers stand the configs and the manifests.
 * @returns in the record's order; undefined when the tarball isn't built like that, or can't be read in parts: then it takes
 *   all of it to know them
 * @throws HandoverError `artifact-corrupt` when the bytes are not what the record says; `transfer-failed`, `artifact-expired`
 */
export async function identifyByRange(
  content: ArtifactContent,
  record: HandoverRecord,
): Promise<readonly KnownImage[] | undefined> {
  const images = [record, ...(record.further ?? [])];
  const layers = images.map(locatedLayers);
  if (record.tarballCompression !== 'none' || layers.includes(undefined)) return undefined;
  const start = Math.max(0, ...layers.flatMap((each) => (each ?? []).map(endOf)));
  if (start > record.tarballSize) throw corrupt('its layers reach beyond the tarball');
  if (record.tarballSize - start > maxTailBytes) return undefined;
  const read = await content.ranges(record.tarballName);
  if (read === undefined) return undefined;
  const blobs = await smallBlobs(await copiedBytes(read(start, record.tarballSize, () => undefined)));
  return images.map((image, position) => knownImage(image, layers[position] ?? [], blobs));
}

/** The layers of an image, where the record tells where each of them lies. */
function locatedLayers(
  image: RecordedImage & { readonly layers?: readonly RecordLayer[] },
): readonly RecordLayer[] | undefined {
  const { layers, diffIds } = image;
  if (layers?.length !== diffIds.length) return undefined;
  return layers.every(({ offset }) => offset !== undefined && offset >= tarBlock) ? layers : undefined;
}

function endOf({ offset = 0, size }: RecordLayer): number {
  return offset + size + tarPadding(size);
}

/** The files of a small tar, by the digests that they have. */
async function smallBlobs(tail: Buffer): Promise<ReadonlyMap<Digest, Buffer>> {
  try {
    return new Map([...(await readSmallTar(tail)).values()].map((bytes) => [digestOf(bytes), bytes]));
  } catch (error) {
    throw corrupt(`what stands behind the last layer is no tar (${messageOf(error)})`, error);
  }
}

function knownImage(
  image: RecordedImage,
  layers: readonly RecordLayer[],
  blobs: ReadonlyMap<Digest, Buffer>,
): KnownImage {
  const { configDigest } = image;
  const configBytes = blobs.get(configDigest);
  if (configBytes === undefined) throw corrupt(`it names the config ${configDigest}, which is not in the tarball`);
  const manifests = [...blobs].flatMap(([digest, bytes]) => {
    const value = parseJson(bytes.toString());
    if (!isObject(value) || value['layers'] === undefined || value['config'] === undefined) return [];
    const { config, layers: described } = parseManifest(bytes.toString(), `manifest ${digest}`);
    // A manifest may name its type (OCI image-spec, manifest.md).
    const mediaType = stringOr(value['mediaType'], mediaTypes.manifest);
    return config.digest === configDigest ? [{ digest, bytes, mediaType, layers: described }] : [];
  });
  const found = manifests.find(({ digest }) => image.manifestDigests.includes(digest)) ?? manifests[0];
  if (found === undefined) throw corrupt(`the tarball has no manifest of the config ${configDigest}`);
  const config = parseConfig(configBytes.toString(), `config ${configDigest}`);
  const identity = { ...config, configDigest, manifestDigest: found.digest };
  requireRecorded(image, identity, found.layers);
  requireSameLayers(layers, found.layers);
  const contents = {
    configDigest,
    configBytes,
    config,
    manifestDigest: found.digest,
    manifestBytes: found.bytes,
    manifestMediaType: found.mediaType,
    layers: found.layers,
  };
  return { identity, contents, references: image.references, layers };
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
  if (manifestDigest !== undefined && record.manifestDigests.length > 0)
    requireAgreement(
      'manifest digest',
      record.manifestDigests.find((one) => one === manifestDigest) ?? record.manifestDigests.join(', '),
      manifestDigest,
    );
  requireAgreement('diff IDs', record.diffIds.join(', '), diffIds.join(', '));
  if (!samePlatform(record.platform, platform))
    requireAgreement('platform', formatPlatform(record.platform), formatPlatform(platform));
  requireAgreement('labels', listed(record.labels), listed(labels));
  if (layers !== undefined && layers.length !== diffIds.length)
    requireAgreement('number of layers', String(diffIds.length), String(layers.length));
}

function requireSameLayers(recorded: readonly RecordLayer[], layers: readonly Descriptor[]): void {
  layers.forEach(({ digest, size }, position) => {
    const said = recorded[position];
    requireAgreement(`layer ${String(position + 1)}`, said?.digest ?? 'none', digest);
    requireAgreement(`size of layer ${digest}`, String(said?.size ?? 0), String(size));
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
