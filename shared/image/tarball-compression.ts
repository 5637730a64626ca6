import { pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress, type ZstdDecompress } from 'node:zlib';

export type TarballCompression = 'none' | 'gzip' | 'zstd';

/** How many bytes of a tarball tell its compression. */
export const magicBytes = 4;

/** How a tarball is compressed, from its first bytes (RFC 1952 section 2.3.1, RFC 8878 section 3.1.1). */
export function compressionOf(head: Buffer): TarballCompression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return 'zstd';
  return 'none';
}

// Node comes back from its thread for each chunk: 16 KiB by default.
const gunzipOptions = { chunkSize: 1024 * 1024, readableHighWaterMark: 4 * 1024 * 1024 };
// In pieces of 16 KiB it takes four times as long.
const zstdOptions = { ...gunzipOptions, chunkSize: 2 * 1024 * 1024 };

/** The plain tarball's bytes. Damaged or cut input makes the iteration throw zlib's error. */
export function decompress(chunks: AsyncIterable<Buffer>, compression: TarballCompression): AsyncIterable<Buffer> {
  if (compression === 'none') return chunks;
  if (compression === 'zstd') return zstdFrames(chunks);
  // An error on either side destroys the decoder, and so reaches whoever iterates over it.
  return pipeline(chunks, createGunzip(gunzipOptions), () => undefined);
}

/** Zstandard files may hold several frames (RFC 8878 section 3), and Node's decoder stops behind one of them. */
async function* zstdFrames(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const source = chunks[Symbol.asyncIterator]();
  let rest: Buffer | undefined = await nextOf(source);
  while (rest !== undefined) {
    const decoder = createZstdDecompress(zstdOptions);
    const feeding = feed(decoder, rest, source);
    feeding.catch((error: unknown) => decoder.destroy(error instanceof Error ? error : new Error(String(error))));
    const decoded: AsyncIterable<Buffer> = decoder;
    yield* decoded;
    rest = await feeding;
  }
}

/** Writes until the decoder has come to the end of a frame in the middle of a chunk; returns what is left of that. */
async function feed(
  decoder: ZstdDecompress,
  first: Buffer,
  source: AsyncIterator<Buffer>,
): Promise<Buffer | undefined> {
  let written = 0;
  for (let chunk: Buffer | undefined = first; chunk !== undefined; chunk = await nextOf(source)) {
    written += chunk.length;
    await write(decoder, chunk);
    const left = written - decoder.bytesWritten;
    if (left > 0) return chunk.subarray(chunk.length - left);
  }
  decoder.end();
  return undefined;
}

function write(decoder: ZstdDecompress, chunk: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    decoder.write(chunk, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

async function nextOf(source: AsyncIterator<Buffer>): Promise<Buffer | undefined> {
  const next = await source.next();
  return next.done === true ? undefined : next.value;
}
