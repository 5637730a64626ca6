import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { giveBack } from '../give-back.ts';
import { constants, createZstdCompress, gzip, type ZstdCompress } from 'node:zlib';

/** Compresses one frame after the other; each is a whole file of its format. */
export interface FrameCompressor {
  compress(frame: Buffer): Promise<readonly Buffer[]>;
  /** Takes a part that nobody needs any more. */
  release(part: Buffer): void;
  /** Gives its memory back. */
  close(): void;
}

const gzipFrame = promisify(gzip);

/**
 * @param frameBytes the longest frame
 * @param level undefined for the compressor's own default
 */
export function gzipCompressor(frameBytes: number, level: number | undefined): FrameCompressor {
  // Room for the whole result, else Node comes back from its thread for every 16 KiB; what doesn't compress grows by less
  // than a thousandth.
  const chunkSize = frameBytes + 64 * 1024;
  const options = level === undefined ? { chunkSize } : { chunkSize, level };
  return {
    compress: async (frame) => [await gzipFrame(frame, options)],
    release: () => undefined,
    close: () => undefined,
  };
}

const zstdChunkBytes = 2304 * 1024;

/**
 * Keeps zstd's own memory from frame to frame: a new one for each, as `zlib.zstdCompress` takes it, keeps the garbage collector
 * busy (docs/decisions.md).
 * @param level undefined for the compressor's own default
 */
export function zstdCompressor(level: number | undefined): FrameCompressor {
  const params = level === undefined ? {} : { [constants.ZSTD_c_compressionLevel]: level };
  // Each write is a frame of its own (zstd.h, ZSTD_EndDirective). zstd takes it in one pass where the room left holds the
  // longest result, so a chunk has room for more than one.
  const stream = createZstdCompress({ flush: constants.ZSTD_e_end, chunkSize: zstdChunkBytes, params });
  let parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  return {
    compress: async (frame) => {
      await written(stream, frame);
      const result = parts;
      parts = [];
      return result;
    },
    release: ({ buffer, byteOffset, length }) => {
      // The stream goes on in a chunk until it's full.
      if (byteOffset + length === zstdChunkBytes) giveBack(Buffer.from(buffer));
    },
    close: () => stream.destroy(),
  };
}

async function written(stream: ZstdCompress, frame: Buffer): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.once('error', reject);
    stream.write(frame, (error) => {
      stream.off('error', reject);
      if (error) reject(error);
      else resolve();
    });
  });
  // All of it is out by now, unless the stream was about to hand it over.
  while (stream.readableLength > 0) await turn();
}
