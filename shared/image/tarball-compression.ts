import { pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';

export type TarballCompression = 'none' | 'gzip' | 'zstd';

/** How a tarball is compressed, from its first four bytes (RFC 1952 section 2.3.1, RFC 8878 section 3.1.1). */
export function compressionOf(head: Buffer): TarballCompression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return 'zstd';
  return 'none';
}

/** The plain tarball's bytes. Damaged or cut input makes the iteration throw zlib's error. */
export function decompress(chunks: AsyncIterable<Buffer>, compression: TarballCompression): AsyncIterable<Buffer> {
  if (compression === 'none') return chunks;
  const decoder = compression === 'gzip' ? createGunzip() : createZstdDecompress();
  // An error on either side destroys the decoder, and so reaches whoever iterates over it.
  return pipeline(chunks, decoder, () => undefined);
}
