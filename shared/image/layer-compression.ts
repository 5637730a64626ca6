import { type FrameCompressor, gzipCompressor, zstdCompressor } from './frame-compressor.ts';
import type { LayerFormat } from './layer-format.ts';

/** A format and its level; without one the compressor's own default counts. */
export interface LayerCompression {
  readonly format: LayerFormat;
  readonly level: number | undefined;
}

interface CompressedFrame {
  readonly parts: readonly Buffer[];
  readonly compressor: FrameCompressor;
}

const frameBytes = 2 * 1024 * 1024;
// As many as Node's pool has threads; more would only hold memory.
const framesInFlight = 4;

/**
 * A layer's tar, compressed in parallel: independent frames of 2 MiB each, one behind the other. Such files are whole gzip
 * (RFC 1952 section 2.2) and zstd (RFC 8878 section 3) files. Node's own parallel zstd cuts its output short (nodejs/node#59899).
 * Holds at most nine frames. Each chunk is valid until the next is asked for.
 */
export async function* compressLayer(
  chunks: AsyncIterable<Buffer>,
  compression: LayerCompression,
): AsyncGenerator<Buffer> {
  if (compression.format === 'uncompressed') {
    yield* chunks;
    return;
  }
  const pool: Buffer[] = [];
  const compressors: FrameCompressor[] = [];
  const waiting: Promise<CompressedFrame>[] = [];
  try {
    for await (const frame of frames(chunks, pool)) {
      const compressor = compressors.pop() ?? newCompressor(compression);
      const compressed = compressor
        .compress(frame)
        .then((parts) => ({ parts, compressor }))
        .finally(() => {
          pool.push(Buffer.from(frame.buffer));
          compressors.push(compressor);
        });
      compressed.catch(() => undefined); // thrown below, when its turn comes
      waiting.push(compressed);
      const first = waiting.length >= framesInFlight ? waiting.shift() : undefined;
      if (first !== undefined) yield* passing(await first);
    }
    for (const compressed of waiting) yield* passing(await compressed);
  } finally {
    await Promise.allSettled(waiting);
    for (const compressor of compressors) compressor.close();
  }
}

function* passing({ parts, compressor }: CompressedFrame): Generator<Buffer> {
  for (const part of parts) {
    yield part;
    compressor.release(part);
  }
}

function newCompressor({ format, level }: LayerCompression): FrameCompressor {
  return format === 'gzip' ? gzipCompressor(frameBytes, level) : zstdCompressor(level);
}

/** The bytes in pieces of 2 MiB, the last one shorter. A piece's memory comes from the pool if that has some. */
async function* frames(chunks: AsyncIterable<Buffer>, pool: Buffer[]): AsyncGenerator<Buffer> {
  let frame = pool.pop() ?? Buffer.allocUnsafeSlow(frameBytes);
  let length = 0;
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length;) {
      const count = chunk.copy(frame, length, taken);
      taken += count;
      length += count;
      if (length < frameBytes) continue;
      yield frame;
      frame = pool.pop() ?? Buffer.allocUnsafeSlow(frameBytes);
      length = 0;
    }
  }
  // An empty layer has one empty frame: no bytes at all would not be a file of that format.
  yield frame.subarray(0, length);
}
