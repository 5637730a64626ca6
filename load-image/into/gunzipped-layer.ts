import type { ReadRange } from '../../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../../shared/base/errors.ts';
import { copiedBytes, type LentChunks, streamableChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { LocatedLayer } from '../../shared/handed-over/ranged-image.ts';
import { decompress } from '../../shared/tar/compression.ts';

// A classic store spends a good part of its time on unpacking gzip, in one thread. Where this step has a core to spare, it
// offers such a layer unpacked: its digest is then its diff ID, and the image's config, and so its ID, stays what it is.

/** What a gzip file ends with: the length of what it holds, in bytes modulo 2^32 (RFC 1952 section 2.3.1). */
const gzipTrailerBytes = 4;

/** A layer as it is when it isn't compressed. Its digest is the layer's diff ID. */
export interface PlainLayer {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** Whether a layer's bytes are gzip's: `….tar+gzip` of OCI, `….tar.gzip` of Docker. @internal */
export function isGzipLayer(mediaType: string): boolean {
  return /\.tar[+.]gzip$/.test(mediaType);
}

/**
 * The length that a gzip file's last bytes tell.
 * @param compressedSize bytes of the file
 * @returns undefined when that can't be the length of the whole, as in a file of several members
 * @internal
 */
export function plainSize(trailer: Buffer, compressedSize: number): number | undefined {
  const size = trailer.readUInt32LE(trailer.length - gzipTrailerBytes);
  return size < compressedSize ? undefined : size;
}

/**
 * A gzip layer's plain bytes.
 * @returns `size` bytes in all
 * @throws HandoverError `load-failed` while iterating, when the bytes aren't those of a gzip file of that length; what `chunks` throw
 */
export async function* plainLayerChunks(chunks: LentChunks, size: number): AsyncGenerator<Buffer> {
  let length = 0;
  const source = { failed: false };
  const watched = watchedChunks(streamableChunks(chunks), () => (source.failed = true));
  try {
    for await (const chunk of decompress(watched, 'gzip')) {
      length += chunk.length;
      if (length > size) break;
      yield chunk;
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
 * A gzip layer as it is when it isn't compressed.
 * @param diffId its digest then, as the image's config has it
 * @returns undefined for a layer that isn't worth it, or whose length its end doesn't tell
 */
export async function gunzippedLayer(
  { mediaType, size, offset }: LocatedLayer,
  diffId: Digest,
  read: ReadRange,
): Promise<PlainLayer | undefined> {
  if (size < minBytes || !isGzipLayer(mediaType)) return undefined;
  const end = offset + size;
  const length = plainSize(await copiedBytes(read(end - gzipTrailerBytes, end, () => undefined)), size);
  return length === undefined ? undefined : { digest: diffId, size: length };
}
