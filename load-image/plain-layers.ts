import type { ReadRange } from '../shared/artifacts/store.ts';
import { copiedBytes } from '../shared/copied-bytes.ts';
import type { Digest } from '../shared/image/digest.ts';
import { gzipTrailerBytes, isGzipLayer, type PlainLayer, plainSize } from '../shared/image/plain-layer.ts';
import type { HandoverRecord } from '../shared/image/record.ts';

// To ask for the end of a smaller layer would take longer than to unpack it.
const minBytes = 4 * 1024 * 1024;

/**
 * The image's gzip layers as they are when they aren't compressed: to unpack gzip is a good part of an engine's work
 * (docs/decisions.md).
 * @returns by the digest of the gzip layer
 */
export async function plainLayers(
  { layers, diffIds }: HandoverRecord,
  read: ReadRange,
): Promise<ReadonlyMap<Digest, PlainLayer>> {
  const found = await Promise.all(
    layers.map(async ({ digest, mediaType, size, offset = 0 }, position) => {
      const diffId = diffIds[position];
      if (diffId === undefined || size < minBytes || !isGzipLayer(mediaType)) return [];
      const end = offset + size;
      const trailer = await copiedBytes(read(end - gzipTrailerBytes, end, () => undefined));
      const plain = plainSize(trailer, size);
      return plain === undefined ? [] : [{ digest, plain: { digest: diffId, size: plain } }];
    }),
  );
  return new Map(found.flat().map(({ digest, plain }) => [digest, plain]));
}
