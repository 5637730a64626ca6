import { promisify } from 'node:util';
import { constants, gzip, zstdCompress } from 'node:zlib';

/** How layers are stored in a manifest (OCI image-spec, layer.md). */
export type LayerFormat = 'gzip' | 'zstd' | 'uncompressed';

/** A format and its level; without one the compressor's own default counts. */
export interface LayerCompression {
  readonly format: LayerFormat;
  readonly level: number | undefined;
}

const frameBytes = 2 * 1024 * 1024;
// What doesn't compress grows by less than a thousandth.
const outputBytes = frameBytes + 64 * 1024;
// As many as Node's pool has threads; more would only hold memory.
const framesInFlight = 4;

const gzipFrame = promisify(gzip);
const zstdFrame = promisify(zstdCompress);

/** How a layer of that format is called in a manifest. */
export function layerMediaType(format: LayerFormat): string {
  const suffix = { gzip: '+gzip', zstd: '+zstd', uncompressed: '' } as const;
  return `application/vnd.oci.image.layer.v1.tar${suffix[format]}`;
}

/**
 * A layer's tar, compressed in parallel: independent frames of 2 MiB each, one behind the other. Such files are whole gzip
 * (RFC 1952 section 2.2) and zstd (RFC 8878 section 3) files. Node's own parallel zstd cuts its output short (nodejs/node#59899).
 * Holds at most nine frames.
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
  const waiting: Promise<Buffer>[] = [];
  for await (const frame of frames(chunks, pool)) {
    const compressed = compressFrame(frame, compression).finally(() => pool.push(Buffer.from(frame.buffer)));
    compressed.catch(() => undefined); // thrown below, when its turn comes
    waiting.push(compressed);
    const first = waiting.length >= framesInFlight ? waiting.shift() : undefined;
    if (first !== undefined) yield await first;
  }
  for (const compressed of waiting) yield await compressed;
}

function compressFrame(frame: Buffer, { format, level }: LayerCompression): Promise<Buffer> {
  // Room for the whole result: else Node comes back from its thread for every 16 KiB of it.
  const chunkSize = outputBytes;
  if (format === 'gzip') return gzipFrame(frame, level === undefined ? { chunkSize } : { chunkSize, level });
  const params = level === undefined ? {} : { [constants.ZSTD_c_compressionLevel]: level };
  return zstdFrame(frame, { chunkSize, params });
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
