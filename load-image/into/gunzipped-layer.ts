import type { ReadRange } from '../../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../../shared/base/errors.ts';
import { copiedBytes, type LentChunks, streamableChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { LocatedLayer } from '../../shared/handed-over/identity.ts';
import { decompress } from '../../shared/tar/compression.ts';

// A classic store spends much of its time unpacking gzip in one thread. So this step unpacks large gzip layers on another core. The digest
// of such a layer is then its diff ID. The image's config doesn't change, so the image's ID doesn't either.

/** Bytes at the end of a gzip file that hold the unpacked length modulo 2^32 (RFC 1952 section 2.3.1). */
const gzipTrailerBytes = 4;

/** An uncompressed layer. Its digest is the layer's diff ID. */
export type PlainLayer = Pick<LocatedLayer, 'digest' | 'size'>;

/**
 * Unpacks a gzip layer.
 * @returns `size` bytes in total
 * @throws HandoverError `load-failed` while iterating, unless the bytes are a gzip file of that unpacked length; and any error of `chunks`
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
  if (length !== size) throw unfit(`its unpacked length is not the ${String(size)} bytes recorded at its end`);
}

function unfit(why: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'load-failed',
    `A layer can't be unpacked while it is sent: ${why}.`,
    'Set `overlap: false`.',
    cause,
  );
}

// Requesting the end of a smaller layer would take longer than unpacking it.
const minBytes = 4 * 1024 * 1024;

/**
 * Describes a gzip layer in its uncompressed form.
 * @param diffId its uncompressed digest, from the image's config
 * @returns undefined for a small layer, or if the unpacked length is unknown
 */
export async function gunzippedLayer(
  { mediaType, size, offset }: LocatedLayer,
  diffId: Digest,
  read: ReadRange,
): Promise<PlainLayer | undefined> {
  // `….tar+gzip` in OCI, `….tar.gzip` in Docker.
  if (size < minBytes || !/\.tar[+.]gzip$/.test(mediaType)) return undefined;
  const end = offset + size;
  const length = (await copiedBytes(read(end - gzipTrailerBytes, end, () => undefined))).readUInt32LE();
  // A gzip file with several members ends with the length of only the last one.
  return length < size ? undefined : { digest: diffId, size: length };
}
