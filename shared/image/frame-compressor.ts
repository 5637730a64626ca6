import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { constants, createZstdCompress, gzip, type ZstdCompress } from 'node:zlib';

/** Compresses one frame after the other; each is a whole file of its format. */
export interface FrameCompressor {
  compress(frame: Buffer): Promise<readonly Buffer[]>;
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
  return { compress: async (frame) => [await gzipFrame(frame, options)], close: () => undefined };
}

/**
 * Keeps zstd's own memory from frame to frame: a new one for each, as `zlib.zstdCompress` takes it, keeps the garbage collector
 * busy (docs/decisions.md).
 * @param level undefined for the compressor's own default
 */
export function zstdCompressor(level: number | undefined): FrameCompressor {
  const params = level === undefined ? {} : { [constants.ZSTD_c_compressionLevel]: level };
  const stream = createZstdCompress({ chunkSize: 1024 * 1024, params });
  let parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  return {
    compress: async (frame) => {
      stream.write(frame);
      await endFrame(stream);
      const result = parts;
      parts = [];
      return result;
    },
    close: () => stream.destroy(),
  };
}

// ZSTD_e_end ends the frame; what is written next begins another (zstd.h, ZSTD_EndDirective).
async function endFrame(stream: ZstdCompress): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.once('error', reject);
    stream.flush(constants.ZSTD_e_end, (error?: Error | null) => {
      stream.off('error', reject);
      if (error) reject(error);
      else resolve();
    });
  });
  // All of it is out by now, unless the stream was about to hand it over.
  while (stream.readableLength > 0) await turn();
}
