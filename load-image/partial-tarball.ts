import { createHash } from 'node:crypto';
import { HandoverError } from '../shared/errors.ts';
import { type Digest, hexOf } from '../shared/image/digest.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { endOfArchive, tarBlock, tarHeader, tarPadding } from '../shared/image/tar-header.ts';

/** Where a layer's content lies within the tarball, in bytes. */
interface LayerEntry {
  readonly digest: Digest;
  readonly start: number;
  readonly end: number;
}

/** A tarball without the layers that the engine has. */
export interface PartialTarball {
  /** Bytes before the first layer: the small entries. */
  readonly headBytes: number;
  /** The layers to send, in the tarball's order. */
  readonly entries: readonly LayerEntry[];
  /** Layers of the image that needn't be sent, and their bytes. */
  readonly skippedLayers: number;
  readonly skippedBytes: number;
}

/**
 * Which layers of the tarball an engine needs that has images with these chains of diff IDs. A layer can be left out when
 * the engine has it on top of the same layers (moby image/tarexport/load.go takes such a layer by its chain ID).
 * @returns undefined when all are needed, or when the record doesn't tell where the layers lie
 */
export function planPartialTarball(
  record: HandoverRecord,
  chains: readonly (readonly Digest[])[],
): PartialTarball | undefined {
  const { layers, diffIds } = record;
  if (record.tarballCompression !== 'none' || layers.length !== diffIds.length) return undefined;
  // Their layers lie in the tarball too, and the record doesn't tell where.
  if (record.further !== undefined) return undefined;
  const held = Math.max(0, ...chains.map((chain) => commonLength(chain, diffIds)));
  const needed = new Set(layers.slice(held).map((layer) => layer.digest));
  const entries = new Map<Digest, LayerEntry>();
  for (const { digest, size, offset } of layers) {
    if (offset === undefined || offset < tarBlock) return undefined;
    entries.set(digest, { digest, start: offset, end: offset + size });
  }
  const all = [...entries.values()].sort((one, other) => one.start - other.start);
  const skipped = all.filter((entry) => !needed.has(entry.digest));
  const [first] = all;
  if (first === undefined || skipped.length === 0) return undefined;
  return {
    headBytes: first.start - tarBlock,
    entries: all.filter((entry) => needed.has(entry.digest)),
    skippedLayers: skipped.length,
    skippedBytes: skipped.reduce((sum, entry) => sum + entry.end - entry.start, 0),
  };
}

function commonLength(one: readonly Digest[], other: readonly Digest[]): number {
  const end = one.findIndex((digest, position) => digest !== other[position]);
  return end < 0 ? one.length : end;
}

/**
 * The partial tarball's bytes. Each layer is checked against its digest before its last bytes are given out: the digest of
 * the whole artifact can't be. What stands before the layers is proven afterwards, by the image that comes out.
 * @param read reads the tarball's bytes from start up to but not including end
 * @throws HandoverError `artifact-corrupt` while iterating
 */
export async function* partialTarballChunks(
  partial: PartialTarball,
  read: (start: number, end: number) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  yield* read(0, partial.headBytes);
  for (const { digest, start, end } of partial.entries) {
    yield tarHeader(`blobs/sha256/${hexOf(digest)}`, end - start);
    yield* checkedLayer(digest, read(start, end));
    if (tarPadding(end - start) > 0) yield Buffer.alloc(tarPadding(end - start));
  }
  yield endOfArchive;
}

async function* checkedLayer(expected: Digest, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let held: Buffer | undefined;
  for await (const chunk of chunks) {
    hash.update(chunk);
    if (held !== undefined) yield held;
    held = chunk;
  }
  const digest = `sha256:${hash.digest('hex')}`;
  if (digest !== expected) {
    throw new HandoverError(
      'artifact-corrupt',
      `The layer ${expected} arrived with digest ${digest}.`,
      'Run the job that exports the image again.',
    );
  }
  if (held !== undefined) yield held;
}
