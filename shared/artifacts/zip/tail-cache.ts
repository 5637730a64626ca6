import type { RangedReader } from '../blob/ranged-reader.ts';

// The end record may have a comment of 65,535 bytes: this is what a zip reader looks at (APPNOTE 4.3.16).
const tailBytes = 68 * 1024;

/**
 * The same reader, with the blob's last 68 KiB fetched once: a zip's directory and our record lie there, so that
 * both cost one request.
 */
export async function withTailCache(reader: RangedReader): Promise<RangedReader> {
  const tailStart = Math.max(0, reader.size - tailBytes);
  const tail = reader.size === 0 ? Buffer.alloc(0) : await reader.read(tailStart, reader.size);
  const cached = (start: number, end: number): Buffer => tail.subarray(start - tailStart, end - tailStart);
  const both = async function* <Chunk>(
    start: number,
    end: number,
    read: (start: number, end: number) => AsyncIterable<Chunk>,
  ): AsyncGenerator<Chunk | Buffer> {
    const border = Math.max(start, Math.min(end, tailStart));
    if (start < border) yield* read(start, border);
    if (border < end) yield cached(border, end);
  };
  return {
    size: reader.size,
    downloaded: reader.downloaded,
    read: (start, end) => (start >= tailStart ? Promise.resolve(cached(start, end)) : reader.read(start, end)),
    stream: (start, end) => both(start, end, reader.stream),
    lend: (start, end) => both(start, end, reader.lend),
  };
}
