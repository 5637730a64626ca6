import { HandoverError } from '../errors.ts';
import { transientFileChunks } from '../file-chunks.ts';
import { type Digest, hexOf } from './digest.ts';
import type { ImageContents } from './image-contents.ts';
import { mediaTypes } from './manifest.ts';
import { blobPath } from './oci-layout.ts';
import { canonicalReference, formatReference, type Reference } from './reference.ts';
import { endOfArchive, tarBlock, tarHeader, tarPadding } from './tar-header.ts';

interface Entry {
  readonly name: string;
  readonly size: number;
  /** Where the entry's content starts in the tar, in bytes. */
  readonly offset: number;
  /** Small content is held here; a layer is read from its file. */
  readonly source: Buffer | { readonly path: string };
}

/** A tarball that is decided but not written: every size and offset is known beforehand. */
export interface TarballPlan {
  readonly entries: readonly Entry[];
  /** Size of the whole tarball in bytes. */
  readonly size: number;
  /** Where each layer's content starts, by digest. */
  readonly layerOffsets: ReadonlyMap<Digest, number>;
}

/** An image and the references it is stored under. */
export interface NamedImage {
  readonly image: ImageContents;
  readonly references: readonly Reference[];
}

/**
 * Plans the tarball that both image stores load: an OCI layout and the Docker archive's `manifest.json` in one tar
 * (what `docker save` has written since Docker 25), small entries first, then each layer once, in order, however many of the images have it.
 */
export function planTarball(layout: string, images: readonly NamedImage[]): TarballPlan {
  const blob = (digest: Digest): string => `blobs/sha256/${hexOf(digest)}`;
  const descriptors = images.flatMap(({ image, references }) => describe(image, references));
  const small = new Map<string, Buffer>([
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    ['index.json', json({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: descriptors })],
    ['manifest.json', json(images.map(({ image, references }) => archiveManifestOf(image, references, blob)))],
    ['blobs/', Buffer.alloc(0)],
    ['blobs/sha256/', Buffer.alloc(0)],
    ...images.flatMap(({ image }): readonly (readonly [string, Buffer])[] => [
      [blob(image.configDigest), image.configBytes],
      [blob(image.manifestDigest), image.manifestBytes],
    ]),
  ]);
  const layers = new Map(images.flatMap(({ image }) => image.layers.map((layer) => [layer.digest, layer.size])));
  const entries: Entry[] = [];
  let position = 0;
  const add = (name: string, size: number, source: Entry['source']): number => {
    const offset = position + tarBlock;
    entries.push({ name, size, offset, source });
    position = offset + size + tarPadding(size);
    return offset;
  };
  for (const [name, bytes] of small) add(name, bytes.length, bytes);
  const layerOffsets = new Map<Digest, number>();
  for (const [digest, size] of layers) {
    layerOffsets.set(digest, add(blob(digest), size, { path: blobPath(layout, digest) }));
  }
  return { entries, size: position + endOfArchive.length, layerOffsets };
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

function archiveManifestOf(
  image: ImageContents,
  references: readonly Reference[],
  blob: (digest: Digest) => string,
): unknown {
  return {
    Config: blob(image.configDigest),
    RepoTags: references.map(formatReference),
    Layers: image.layers.map((layer) => blob(layer.digest)),
  };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/**
 * The planned tarball's bytes in order, in chunks of at most 1 MiB, each valid until the next is asked for.
 * @throws HandoverError `tarball-invalid` when a layer's file is not as long as planned
 */
export async function* tarballChunks(plan: TarballPlan): AsyncGenerator<Buffer> {
  for (const entry of plan.entries) {
    yield tarHeader(entry.name, entry.size);
    if (Buffer.isBuffer(entry.source)) yield entry.source;
    else yield* layerChunks(entry.source.path, entry);
    if (tarPadding(entry.size) > 0) yield Buffer.alloc(tarPadding(entry.size));
  }
  yield endOfArchive;
}

async function* layerChunks(path: string, entry: Entry): AsyncGenerator<Buffer> {
  let read = 0;
  for await (const chunk of transientFileChunks(path)) {
    read += chunk.length;
    if (read > entry.size) break;
    yield chunk;
  }
  if (read === entry.size) return;
  throw new HandoverError(
    'tarball-invalid',
    `${entry.name} changed while it was read: ${String(read)} bytes instead of ${String(entry.size)}.`,
    'Run the export again.',
  );
}
