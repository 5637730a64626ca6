import type { RangedReader } from './ranged-reader.ts';

const tailBytes = 64 * 1024;

/**
 * The same reader, with the blob's last 64 KiB fetched once: a zip's directory and our record lie there, so that
 * both cost one request.
 */
export async function withTailCache(reader: RangedReader): Promise<RangedReader> {
  const tailStart = Math.max(0, reader.size - tailBytes);
  const tail = reader.size === 0 ? Buffer.alloc(0) : await reader.read(tailStart, reader.size);
  const cached = (start: number, end: number): Buffer => tail.subarray(start - tailStart, end - tailStart);
  return {
    size: reader.size,
    read: (start, end) => (start >= tailStart ? Promise.resolve(cached(start, end)) : reader.read(start, end)),
    stream: async function* (start, end) {
      const border = Math.max(start, Math.min(end, tailStart));
      if (start < border) yield* reader.stream(start, border);
      if (border < end) yield cached(border, end);
    },
  };
}
