import { createHash, type Hash } from 'node:crypto';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { tarBlock, tarPadding } from '../../shared/tar/header.ts';

/** A part of the tarball, in bytes; the content of a layer is checked against its digest. */
interface Part {
  readonly start: number;
  readonly end: number;
  readonly digest?: Digest;
}

/** A tarball without the layers that the engine has. */
export interface PartialTarball {
  /** What is sent, in the tarball's order. */
  readonly parts: readonly Part[];
  readonly sentLayers: number;
  /** Layers of the image that needn't be sent, and the bytes of their entries. */
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
  const contents = new Map<Digest, Required<Part>>();
  for (const { digest, size, offset } of layers) {
    if (offset === undefined || offset < tarBlock) return undefined;
    contents.set(digest, { digest, start: offset, end: offset + size });
  }
  const all = [...contents.values()].sort((one, other) => one.start - other.start);
  const skipped = all.filter(({ digest }) => !needed.has(digest));
  if (skipped.length === 0) return undefined;
  return {
    parts: partsOf(all, needed, record.tarballSize),
    sentLayers: all.length - skipped.length,
    skippedLayers: skipped.length,
    skippedBytes: skipped.reduce((sum, { start, end }) => sum + tarBlock + end - start + tarPadding(end - start), 0),
  };
}

/** The layers that are needed, and all that is no layer: what lies between their entries. */
function partsOf(all: readonly Required<Part>[], needed: ReadonlySet<Digest>, tarballSize: number): readonly Part[] {
  const parts: Part[] = [];
  let position = 0;
  for (const content of all) {
    const { digest, start, end } = content;
    const isNeeded = needed.has(digest);
    parts.push({ start: position, end: isNeeded ? start : start - tarBlock });
    if (isNeeded) parts.push(content);
    // A layer that is sent takes its padding along with what follows.
    position = isNeeded ? end : end + tarPadding(end - start);
  }
  return [...parts, { start: position, end: tarballSize }].filter(({ start, end }) => start < end);
}

function commonLength(one: readonly Digest[], other: readonly Digest[]): number {
  const end = one.findIndex((digest, position) => digest !== other[position]);
  return end < 0 ? one.length : end;
}

/**
 * The partial tarball's bytes. Each layer is checked against its digest before its last bytes are given out: the digest of
 * the whole artifact can't be. What stands beside the layers is proven afterwards, by the image that comes out.
 * @param read reads the tarball's bytes from start up to but not including end
 * @returns chunks that are valid as long as those that were read
 * @throws HandoverError `artifact-corrupt` while iterating
 */
export async function* partialTarballChunks(
  { parts }: PartialTarball,
  read: (start: number, end: number) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  for (const { start, end, digest } of parts) {
    const chunks = read(start, end);
    yield* digest === undefined ? chunks : checkedLayer(digest, end - start, chunks);
  }
}

async function* checkedLayer(expected: Digest, size: number, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let read = 0;
  for await (const chunk of chunks) {
    hash.update(chunk);
    read += chunk.length;
    if (read >= size) requireDigest(expected, hash);
    yield chunk;
  }
  if (read < size || size === 0) requireDigest(expected, hash);
}

function requireDigest(expected: Digest, hash: Hash): void {
  const digest = `sha256:${hash.copy().digest('hex')}`;
  if (digest !== expected) {
    throw new HandoverError(
      'artifact-corrupt',
      `The layer ${expected} arrived with digest ${digest}.`,
      'Run the job that exports the image again.',
    );
  }
}
