import type { JsonObject } from '../base/json.ts';
import type { LentChunk, LentChunks } from '../bytes/chunks.ts';
import { blobName, type Digest, digestOf } from '../image/digest.ts';
import { type ImageContents, invalidLayout, mediaTypes } from '../image/manifest.ts';
import { isKnown } from '../image/platform.ts';
import { canonicalReference, formatReference, type Reference } from '../image/reference.ts';
import { endOfArchive, tarBlock, tarHeader, tarPadding } from './header.ts';

/** A layer in an OCI layout that is being written. */
export interface ArrivingLayer {
  readonly digest: Digest;
  /** Its complete size, in bytes. */
  readonly size: number;
  /** In chunks of at most 1 MiB. */
  readonly chunks: () => LentChunks;
}

/** An image and the references it is stored under. */
export interface NamedImage<Name extends Reference = Reference> {
  readonly image: ImageContents;
  readonly references: readonly Name[];
  /** The paths of its layers in the tar. By default, they are derived from the digests. */
  readonly layerNames?: readonly string[];
}

export interface WrittenTarball {
  /** Bytes. */
  readonly size: number;
  /** The offset of each layer, config and manifest, in bytes. */
  readonly offsets: ReadonlyMap<Digest, number>;
}

/**
 * Returns the bytes of a tarball that both image stores load, in chunks of at most 1 MiB. It is an OCI layout with the Docker
 * archive's `manifest.json`, as `docker save` has written it since Docker 25. Layers come first, each once, as they arrive. The
 * small entries come last, when the images are known.
 * @param layers each once, in any order
 * @param images called when all layers have arrived
 * @param told called at the end with the whole tarball's facts
 * @throws HandoverError `tarball-invalid` when a layer of an image is missing; errors of `layers` and `images`
 */
export async function* tarballChunks(
  layers: AsyncIterable<ArrivingLayer> | Iterable<ArrivingLayer>,
  images: () => Promise<readonly NamedImage[]>,
  told: (written: WrittenTarball) => void,
): AsyncGenerator<LentChunk> {
  const offsets = new Map<Digest, number>();
  let position = 0;
  const count = (chunk: LentChunk): LentChunk => {
    position += chunk.length;
    return chunk;
  };
  for (const folder of ['blobs/', 'blobs/sha256/']) yield count(tarHeader(folder, 0));
  for await (const { digest, size, chunks } of layers) {
    offsets.set(digest, position + tarBlock);
    for await (const chunk of tarEntry(blobName(digest), size, chunks())) yield count(chunk);
  }
  const named = await images();
  requireLayers(named, offsets);
  for (const [name, bytes] of smallEntries(named)) {
    offsets.set(digestOf(bytes), position + tarBlock);
    yield count(smallEntry(name, bytes));
  }
  yield count(endOfArchive);
  told({ size: position, offsets });
}

/** Returns the bytes of a tar entry with `size` bytes of content. */
export async function* tarEntry(name: string, size: number, content: LentChunks): AsyncGenerator<LentChunk> {
  yield tarHeader(name, size);
  yield* content;
  yield Buffer.alloc(tarPadding(size));
}

/** Returns the bytes of a tar of some blobs and the index that lists them. */
export async function* indexedBlobs(index: Buffer, blobs: readonly ArrivingLayer[]): AsyncGenerator<LentChunk> {
  for (const { digest, size, chunks } of blobs) yield* tarEntry(blobName(digest), size, chunks());
  yield smallEntry('index.json', index);
  yield endOfArchive;
}

function smallEntry(name: string, bytes: Buffer): Buffer {
  return Buffer.concat([tarHeader(name, bytes.length), bytes, Buffer.alloc(tarPadding(bytes.length))]);
}

/** Returns what follows the layers in a tarball: the small entries and the end of the archive. */
export function tarballEnd(images: readonly NamedImage[]): readonly Buffer[] {
  return [...[...smallEntries(images)].map(([name, bytes]) => smallEntry(name, bytes)), endOfArchive];
}

/**
 * Returns the entries other than layers: configs, manifests, `index.json` and `manifest.json`. A containerd store finds a layer by its
 * digest, whatever its name in the tar (containerd core/images/archive/importer.go); the classic store by that name.
 */
function smallEntries(images: readonly NamedImage[]): ReadonlyMap<string, Buffer> {
  const archive = images.map(({ image, references, layerNames }) => ({
    Config: blobName(image.configDigest),
    RepoTags: references.map(formatReference),
    Layers: layerNames ?? image.layers.map(({ digest }) => blobName(digest)),
  }));
  return new Map([...layoutEntries(images), ['manifest.json', json(archive)]]);
}

/** Returns the files of an OCI layout other than layers. The annotations are those of its index. */
export function layoutEntries(images: readonly NamedImage[], annotations?: JsonObject): ReadonlyMap<string, Buffer> {
  return new Map<string, Buffer>([
    ...images.flatMap(({ image }): readonly (readonly [string, Buffer])[] => [
      [blobName(image.configDigest), image.configBytes],
      [blobName(image.manifestDigest), image.manifestBytes],
    ]),
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    [
      'index.json',
      json({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: images.flatMap(describe), annotations }),
    ],
  ]);
}

function requireLayers(images: readonly NamedImage[], written: ReadonlyMap<Digest, number>): void {
  const missing = images.flatMap(({ image }) => image.layers).find(({ digest }) => !written.has(digest));
  if (missing !== undefined) throw invalidLayout(`The layer ${missing.digest} is not in the OCI layout.`);
}

function describe({ image, references }: NamedImage): readonly unknown[] {
  const { platform } = image.config;
  const { os, architecture, variant } = platform;
  const descriptor = {
    mediaType: image.manifestMediaType,
    digest: image.manifestDigest,
    size: image.manifestBytes.length,
    platform: isKnown(platform) ? { architecture, os, variant } : undefined,
  };
  // containerd takes the image's name from the first annotation, OCI tools from the second.
  return references.map((reference) => ({
    ...descriptor,
    annotations: {
      'io.containerd.image.name': canonicalReference(reference),
      'org.opencontainers.image.ref.name': reference.tag ?? 'latest',
    },
  }));
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
