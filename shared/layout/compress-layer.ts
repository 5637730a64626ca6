import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { constants, createZstdCompress, gzip, type ZstdCompress } from 'node:zlib';
import { type LentChunk, type LentChunks, pieces } from '../bytes/chunks.ts';
import type { LayerFormat } from '../image/manifest.ts';

/** Compresses one frame after the other; each is a whole file of its format. */
interface FrameCompressor {
  compress(frame: Buffer): Promise<readonly Buffer[]>;
  /** Gives its memory back. */
  close(): void;
}

const frameBytes = 2 * 1024 * 1024;
const gzipFrame = promisify(gzip);

/** @param level undefined for the compressor's own default */
function gzipCompressor(level: number | undefined): FrameCompressor {
  // Room for the whole result, else Node comes back from its thread for every 16 KiB; what doesn't compress grows by less
  // than a thousandth.
  const chunkSize = frameBytes + 64 * 1024;
  const options = level === undefined ? { chunkSize } : { chunkSize, level };
  return {
    compress: async (frame) => [await gzipFrame(frame, options)],
    close: () => undefined,
  };
}

const zstdChunkBytes = 2304 * 1024;

/**
 * Keeps zstd's own memory from frame to frame: a new one for each, as `zlib.zstdCompress` takes it, keeps the garbage collector
 * busy (docs/decisions/0013-memory-is-used-again-up-and-down.md).
 * @param level undefined for the compressor's own default
 */
function zstdCompressor(level: number | undefined): FrameCompressor {
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

/** A format and its level; without one the compressor's own default counts. */
export interface LayerCompression {
  readonly format: LayerFormat;
  readonly level: number | undefined;
}

// As many as Node's pool has threads; more would only hold memory.
const framesInFlight = 4;

/**
 * A layer's tar, compressed in parallel: independent frames of 2 MiB each, one behind the other. Such files are whole gzip
 * (RFC 1952 section 2.2) and zstd (RFC 8878 section 3) files. Node's own parallel zstd cuts its output short (nodejs/node#59899).
 * Holds at most nine frames.
 */
export async function* compressLayer(chunks: LentChunks, compression: LayerCompression): AsyncGenerator<LentChunk> {
  if (compression.format === 'uncompressed') {
    yield* chunks;
    return;
  }
  const { format, level } = compression;
  const newCompressor = (): FrameCompressor => (format === 'gzip' ? gzipCompressor(level) : zstdCompressor(level));
  const pool: Buffer[] = [];
  const compressors: FrameCompressor[] = [];
  const waiting: Promise<readonly Buffer[]>[] = [];
  try {
    // An empty layer has one empty frame: no bytes at all would not be a file of that format.
    for await (const frame of pieces(chunks, frameBytes, pool)) {
      const compressor = compressors.pop() ?? newCompressor();
      const compressed = compressor.compress(frame).finally(() => {
        pool.push(Buffer.from(frame.buffer));
        compressors.push(compressor);
      });
      compressed.catch(() => undefined); // thrown below, when its turn comes
      waiting.push(compressed);
      const first = waiting.length >= framesInFlight ? waiting.shift() : undefined;
      if (first !== undefined) yield* await first;
    }
    for (const compressed of waiting) yield* await compressed;
  } finally {
    await Promise.allSettled(waiting);
    for (const compressor of compressors) compressor.close();
  }
}
