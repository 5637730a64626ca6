import type { ReadRange } from '../../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../../shared/base/errors.ts';
import { copiedBytes, giveBack, lastingChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { decompress } from '../../shared/tar/compression.ts';

/** What a gzip file ends with: the length of what it holds, in bytes modulo 2^32 (RFC 1952 section 2.3.1). */
export const gzipTrailerBytes = 4;

/** A layer as it is when it isn't compressed. Its digest is the layer's diff ID. */
export interface PlainLayer {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** Whether a layer's bytes are gzip's: `….tar+gzip` of OCI, `….tar.gzip` of Docker. */
export function isGzipLayer(mediaType: string): boolean {
  return /\.tar[+.]gzip$/.test(mediaType);
}

/**
 * The length that a gzip file's last bytes tell.
 * @param compressedSize bytes of the file
 * @returns undefined when that can't be the length of the whole, as in a file of several members
 */
export function plainSize(trailer: Buffer, compressedSize: number): number | undefined {
  const size = trailer.readUInt32LE(trailer.length - gzipTrailerBytes);
  return size < compressedSize ? undefined : size;
}

/**
 * A gzip layer's plain bytes.
 * @returns chunks that are valid until the next is asked for, `size` bytes in all
 * @throws HandoverError `load-failed` while iterating, when the bytes aren't those of a gzip file of that length; what `chunks` throw
 */
export async function* plainLayerChunks(chunks: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  let length = 0;
  const source = { failed: false };
  const watched = watchedChunks(lastingChunks(chunks), () => (source.failed = true));
  try {
    for await (const chunk of decompress(watched, 'gzip')) {
      length += chunk.length;
      if (length > size) break;
      yield chunk;
      giveBack(chunk);
    }
  } catch (error) {
    throw source.failed ? error : unfit(messageOf(error), error);
  }
  if (length !== size) throw unfit(`it has not the ${String(size)} bytes that its end tells`);
}

function unfit(why: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'load-failed',
    `A layer can't be unpacked on its way: ${why}.`,
    'Set `overlap: false`.',
    cause,
  );
}

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
