import { open } from 'node:fs/promises';
import { HandoverError } from '../errors.ts';
import { transientFileChunks } from '../file-chunks.ts';
import { type Digest, hexOf } from './digest.ts';
import type { ImageContents } from './image-contents.ts';
import { mediaTypes } from './manifest.ts';
import { blobPath } from './oci-layout.ts';
import { canonicalReference, formatReference, type Reference } from './reference.ts';
import { endOfArchive, looksLikeTar, tarBlock, tarHeader, tarPadding } from './tar-header.ts';

/** An image and the references it is stored under. */
export interface NamedImage {
  readonly image: ImageContents;
  readonly references: readonly Reference[];
}

/** What is known of a tarball when all of it has passed. */
export interface WrittenTarball {
  /** Bytes. */
  readonly size: number;
  /** Where each layer's content starts, in bytes. */
  readonly layerOffsets: ReadonlyMap<Digest, number>;
}

/**
 * The bytes of a tarball that both image stores load: an OCI layout and the Docker archive's `manifest.json` in one tar (what
 * `docker save` has written since Docker 25). Layers come first, each once, as they arrive; the small entries come last, when
 * the images are known. In chunks of at most 1 MiB, each valid until the next is asked for.
 * @param blobs those of the layout, in any order
 * @param images asked for when all blobs have come
 * @param told of the whole at the end
 * @throws HandoverError `tarball-invalid` when a layer's file changes or is not there; what `blobs` and `images` throw
 */
export async function* tarballChunks(
  layout: string,
  blobs: AsyncIterable<Digest>,
  images: () => Promise<readonly NamedImage[]>,
  told: (written: WrittenTarball) => void,
): AsyncGenerator<Buffer> {
  const layerOffsets = new Map<Digest, number>();
  let position = 0;
  const count = (chunk: Buffer): Buffer => {
    position += chunk.length;
    return chunk;
  };
  for (const folder of ['blobs/', 'blobs/sha256/']) yield count(tarHeader(folder, 0));
  for await (const digest of blobs) {
    const path = blobPath(layout, digest);
    const size = await layerSize(path);
    if (size === undefined) continue;
    yield count(tarHeader(nameOf(digest), size));
    layerOffsets.set(digest, position);
    for await (const chunk of layerChunks(path, size)) yield count(chunk);
    yield count(Buffer.alloc(tarPadding(size)));
  }
  const named = await images();
  requireLayers(named, layerOffsets);
  for (const [name, bytes] of smallEntries(named)) {
    yield count(Buffer.concat([tarHeader(name, bytes.length), bytes, Buffer.alloc(tarPadding(bytes.length))]));
  }
  yield count(endOfArchive);
  told({ size: position, layerOffsets });
}

function nameOf(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

/** The entries beside the layers: configs, manifests, and what says which images there are. */
export function smallEntries(images: readonly NamedImage[]): ReadonlyMap<string, Buffer> {
  const descriptors = images.flatMap(({ image, references }) => describe(image, references));
  return new Map<string, Buffer>([
    ...images.flatMap(({ image }): readonly (readonly [string, Buffer])[] => [
      [nameOf(image.configDigest), image.configBytes],
      [nameOf(image.manifestDigest), image.manifestBytes],
    ]),
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    ['index.json', json({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: descriptors })],
    ['manifest.json', json(images.map(({ image, references }) => archiveManifestOf(image, references)))],
  ]);
}

function requireLayers(images: readonly NamedImage[], written: ReadonlyMap<Digest, number>): void {
  const missing = images.flatMap(({ image }) => image.layers).find(({ digest }) => !written.has(digest));
  if (missing !== undefined) throw invalid(`The layer ${missing.digest} is not in the OCI layout.`);
}

function describe(image: ImageContents, references: readonly Reference[]): readonly unknown[] {
  const { os, architecture, variant } = image.config.platform;
  const descriptor = {
    mediaType: image.manifestMediaType,
    digest: image.manifestDigest,
    size: image.manifestBytes.length,
    platform: { architecture, os, ...(variant === undefined ? {} : { variant }) },
  };
  // containerd names an image after the first annotation, the OCI tools after the second.
  return references.map((reference) => ({
    ...descriptor,
    annotations: {
      'io.containerd.image.name': canonicalReference(reference),
      'org.opencontainers.image.ref.name': reference.tag ?? 'latest',
    },
  }));
}

function archiveManifestOf(image: ImageContents, references: readonly Reference[]): unknown {
  return {
    Config: nameOf(image.configDigest),
    RepoTags: references.map(formatReference),
    Layers: image.layers.map((layer) => nameOf(layer.digest)),
  };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** The size of a layer's file in bytes; undefined for a config or a manifest, which are JSON objects. */
async function layerSize(path: string): Promise<number | undefined> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(tarBlock), 0, tarBlock, 0);
    const isJson = buffer[0] === 0x7b && !looksLikeTar(buffer);
    return isJson ? undefined : (await file.stat()).size;
  } finally {
    await file.close();
  }
}

async function* layerChunks(path: string, size: number): AsyncGenerator<Buffer> {
  let read = 0;
  for await (const chunk of transientFileChunks(path)) {
    read += chunk.length;
    if (read > size) break;
    yield chunk;
  }
  if (read !== size)
    throw invalid(`${path} changed while it was read: ${String(read)} bytes instead of ${String(size)}.`);
}

function invalid(message: string): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Run the export again; if it repeats, report the builder and its version.',
  );
}
