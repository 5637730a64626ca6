import { pipeline } from 'node:stream';
import { constants, createGunzip, createZstdDecompress, type ZstdDecompress } from 'node:zlib';
import { asError, invalidTarball } from '../base/errors.ts';
import type { TarballCompression } from '../image/record.ts';
import { isZero, readTarHeader, tarBlock } from './header.ts';

/** A compression that docker load may be able to read. */
export type Packing = TarballCompression | 'xz' | 'bzip2';

/** Bytes that identify the compression of a tarball, after any skippable frames. */
export const magicBytes = 6;

const zstdMagic = 0xfd2fb528;
const xzMagic = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);

/**
 * Detects the compression of a tarball from its first bytes.
 * @throws HandoverError `tarball-invalid` for xz and bzip2, which docker load accepts but Node can't read
 */
export function compressionOf(head: Buffer): TarballCompression {
  const packing = packingOf(head);
  if (packing !== 'xz' && packing !== 'bzip2') return packing;
  throw invalidTarball(
    `The tarball is compressed with ${packing}, which this action can't read.`,
    `Run ${packing === 'xz' ? 'unxz' : 'bunzip2'} on it in a step before it's handed over, or compress it with zstd or gzip instead.`,
  );
}

/** Detects a compression from the first bytes (RFC 1952 section 2.3.1, RFC 8878 sections 3.1.1 and 3.1.2). */
function packingOf(head: Buffer): Packing {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head.subarray(0, xzMagic.length).equals(xzMagic)) return 'xz';
  if (/^BZh[1-9]/.test(head.toString('latin1', 0, 4))) return 'bzip2';
  const magic = head.length >= 4 ? head.readUInt32LE(0) : 0;
  // pzstd starts its files with a skippable frame.
  if (magic === zstdMagic || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return 'zstd';
  return 'none';
}

// A layer's first bytes must match its media type. An engine keeps every blob that it receives: a config that was sent as a layer
// could be used by another document later.

/** Detects a layer's compression from its first 512 bytes. Returns undefined for anything that can't be a layer, such as JSON. */
export function layerPackingOf(head: Buffer): Packing | undefined {
  const packing = packingOf(head);
  if (packing !== 'none') return packing;
  const block = head.subarray(0, tarBlock);
  // Go reads an empty file as an empty tar. A tar header contains zero bytes, which JSON never does.
  if (block.length === 0 || (block.length === tarBlock && isZero(block))) return 'none';
  return block.length === tarBlock && block.includes(0) && readTarHeader(block) !== undefined ? 'none' : undefined;
}

/**
 * Returns how a layer's compression differs from its media type, or undefined when they match. Docker's type without a compression
 * allows any compression (containerd, core/images/mediatypes.go, DiffCompression).
 * @param mediaType empty when unknown
 * @param packing undefined when the blob can't be a layer
 */
export function wrongForm(mediaType: string, packing: Packing | undefined): string | undefined {
  if (packing === undefined)
    return `is not a tar, compressed or not${mediaType === '' ? '' : ` (its media type is ${mediaType})`}`;
  const packed = /[+.](gzip|zstd)$/.exec(mediaType)?.[1];
  const expected = packed ?? (mediaType.startsWith('application/vnd.oci.image.layer.') ? 'none' : packing);
  if (packing === expected) return undefined;
  return `is ${packing === 'none' ? 'a plain tar' : `${packing} data`}, but has the media type ${mediaType}`;
}

// Node returns from its thread for each chunk, 16 KiB by default.
const gunzipOptions = { chunkSize: 1024 * 1024, readableHighWaterMark: 4 * 1024 * 1024 };
// With chunks of 16 KiB, decompression takes four times as long. Files from `zstd --long=31`, with a window of 2 GiB, can be read too.
const zstdOptions = {
  ...gunzipOptions,
  chunkSize: 2 * 1024 * 1024,
  params: { [constants.ZSTD_d_windowLogMax]: 31 },
};

/** Returns the bytes of the plain tarball. If the input is damaged or truncated, the iteration throws zlib's error. */
export function decompress(chunks: AsyncIterable<Buffer>, compression: TarballCompression): AsyncIterable<Buffer> {
  if (compression === 'none') return chunks;
  if (compression === 'zstd') return zstdFrames(chunks);
  // An error on either side destroys the decoder, which passes the error on to its consumer.
  return pipeline(chunks, createGunzip(gunzipOptions), () => undefined);
}

/** Decodes every frame: a Zstandard file may contain several (RFC 8878 section 3), but Node's decoder stops after one. */
async function* zstdFrames(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const source = chunks[Symbol.asyncIterator]();
  let rest: Buffer | undefined = await nextOf(source);
  while (rest !== undefined) {
    const decoder = createZstdDecompress(zstdOptions);
    const feeding = feed(decoder, rest, source);
    feeding.catch((error: unknown) => decoder.destroy(asError(error)));
    const decoded: AsyncIterable<Buffer> = decoder;
    yield* decoded;
    rest = await feeding;
  }
}

/** Writes chunks until a frame ends in the middle of one. Returns the rest of that chunk. */
async function feed(decoder: ZstdDecompress, head: Buffer, source: AsyncIterator<Buffer>): Promise<Buffer | undefined> {
  let written = 0;
  for (let chunk: Buffer | undefined = head; chunk !== undefined; chunk = await nextOf(source)) {
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
