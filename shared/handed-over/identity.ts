import type { ArtifactContent, ReadRange } from '../artifacts/store.ts';
import { corruptArtifact, type HandoverError, messageOf, translated } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { copiedBytes, type LentChunk, withHead } from '../bytes/chunks.ts';
import { type Digest, digestOf } from '../image/digest.ts';
import {
  configFault,
  contentsOf,
  type Descriptor,
  type ImageConfig,
  type ImageContents,
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
import type { Reference } from '../image/reference.ts';
import { layerPackingOf, wrongForm } from '../tar/compression.ts';
import { tarBlock } from '../tar/header.ts';

// An image's identity is computed from the bytes of its config and manifest, never taken from the record. The record only gives
// the positions of these bytes, and everything else in it must match them. The inputs' expectations and the engine's image are
// compared with this identity.

/** The identity of an image, computed from its bytes. */
export interface Identity extends ImageConfig {
  /** Undefined for an image from a registry whose config digest is unknown. */
  readonly configDigest: Digest | undefined;
  /** The image ID in a containerd store; undefined for an image without a manifest. */
  readonly manifestDigest: Digest | undefined;
}

/** A layer and its position in the tarball. */
export type LocatedLayer = RecordLayer & { readonly offset: number };

/** An image in an artifact whose layers can be read one by one. */
export interface RangedImage {
  readonly contents: ImageContents;
  /** In the order they are applied. */
  readonly layers: readonly LocatedLayer[];
  readonly read: ReadRange;
}

/**
 * Reads a layer's bytes. The consumer must verify the digest.
 * @param onBytes called with the number of bytes of each chunk that arrives
 * @throws HandoverError `artifact-corrupt` during the iteration, when the first bytes don't match the media type
 */
export async function* layerBytes(
  { digest, size, mediaType, offset }: LocatedLayer,
  read: ReadRange,
  onBytes: (bytes: number) => void,
): AsyncGenerator<LentChunk> {
  const { head, all } = await withHead(read(offset, offset + size, onBytes), tarBlock);
  const wrong = wrongForm(mediaType, layerPackingOf(head));
  if (wrong !== undefined) throw corruptArtifact(`The layer ${digest} in the artifact ${wrong}.`);
  yield* all;
}

/** An image of an artifact, identified before any of its layers is read. */
export interface IdentifiedImage {
  readonly identity: Identity;
  /** The references in the record. */
  readonly references: readonly Reference[];
  /** Undefined for an image without a manifest, or if the record lacks a layer's position. */
  readonly ranged: RangedImage | undefined;
}

/**
 * Identifies the images of an artifact from the bytes of their configs and manifests, which are some kilobytes.
 * @returns the images in the record's order; undefined when the record lacks a position, or the artifact can't be read in parts.
 *   Then the whole tarball must be read to identify them
 * @throws HandoverError `artifact-corrupt` when the bytes don't match the record; `transfer-failed`, `artifact-expired`
 */
export async function identifyByRange(
  content: ArtifactContent,
  record: HandoverRecord,
): Promise<readonly IdentifiedImage[] | undefined> {
  const images = imagesOf(record);
  if (record.tarballCompression !== 'none') return undefined;
  const places = images
    .flatMap(({ configAt, manifestAt }) => [configAt, manifestAt])
    .filter((one) => one !== undefined);
  const total = places.reduce((sum, { size }) => sum + size, 0);
  if (!images.every(hasPlaces) || places.some(({ size }) => size > limits.jsonBytes)) return undefined;
  // A hundred images may point to the same bytes.
  if (total > limits.jsonBytesInAll) return undefined;
  const read = await content.ranges(record.tarballName);
  if (read === undefined) return undefined;
  const bytesAt = await reader(read, places);
  return Promise.all(images.map((image) => identifiedImage(image, bytesAt, read)));
}

// A record with a manifest digest must also have the manifest's position: only that digest identifies the image.
function hasPlaces({ configAt, manifestAt, manifestDigests }: RecordedImage): boolean {
  return configAt !== undefined && (manifestAt !== undefined || manifestDigests.length === 0);
}

type BytesAt = (place: BytePlace) => Promise<Buffer>;

/** Reads byte ranges, in one request if they are close together, as at the end of a tarball that export-image wrote. */
async function reader(read: ReadRange, places: readonly BytePlace[]): Promise<BytesAt> {
  const part = (start: number, end: number): Promise<Buffer> => copiedBytes(read(start, end, () => undefined));
  const start = Math.min(...places.map(({ offset }) => offset));
  const end = Math.max(...places.map(({ offset, size }) => offset + size));
  if (end - start > limits.jsonBytes) return ({ offset, size }) => part(offset, offset + size);
  const all = await part(start, end);
  return ({ offset, size }) => Promise.resolve(all.subarray(offset - start, offset - start + size));
}

async function identifiedImage(image: RecordedImage, bytesAt: BytesAt, read: ReadRange): Promise<IdentifiedImage> {
  const { references, configAt, manifestAt } = image;
  const configBytes = configAt === undefined ? Buffer.alloc(0) : await bytesAt(configAt);
  const configDigest = digestOf(configBytes);
  requireAgreement('config digest', image.configDigest, configDigest);
  // An unreadable document is a mismatch with the record.
  const mismatch = (error: unknown): HandoverError => corrupt(messageOf(error), error);
  const config = translated(() => parseConfig(configBytes, 'the config'), mismatch);
  if (manifestAt === undefined) {
    const identity = { ...config, configDigest, manifestDigest: undefined };
    requireRecorded(image, identity);
    return { identity, references, ranged: undefined };
  }
  const manifestBytes = await bytesAt(manifestAt);
  const manifest = translated(() => parseManifest(manifestBytes, 'the manifest'), mismatch);
  const identity = { ...config, configDigest, manifestDigest: manifest.digest };
  requireAgreement('config digest', image.configDigest, manifest.config.digest);
  requireRecorded(image, identity, manifest.layers);
  const fault = configFault(manifest, configBytes, config);
  if (fault !== undefined) throw corrupt(`the manifest ${identity.manifestDigest} ${fault}`);
  const contents = contentsOf(configBytes, config, manifest);
  const layers = locatedLayers(image, manifest.layers);
  return { identity, references, ranged: layers === undefined ? undefined : { contents, layers, read } };
}

/** Returns the manifest's layers with their positions; undefined if the record lacks a position. */
function locatedLayers(record: RecordedImage, layers: readonly Descriptor[]): readonly LocatedLayer[] | undefined {
  const located = layers.flatMap(({ digest, size, mediaType }, position) => {
    const offset = record.layers[position]?.offset;
    return offset === undefined ? [] : [{ digest, size, mediaType, offset }];
  });
  return located.length === layers.length ? located : undefined;
}

/**
 * Compares the record with the image's identity.
 * @param layers the layers in the image's manifest; undefined for an image without a manifest
 * @throws HandoverError `artifact-corrupt` when they differ
 */
export function requireRecorded(record: RecordedImage, identity: Identity, layers?: readonly Descriptor[]): void {
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
    const recorded = record.layers[position];
    requireAgreement(`layer ${String(position + 1)}`, recorded?.digest ?? 'none', digest);
    requireAgreement(`size of layer ${String(position + 1)}`, String(recorded?.size ?? 0), String(size));
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
