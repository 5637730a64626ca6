import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { LentChunk, LentChunks } from '../../bytes/chunks.ts';
import { quoteForeign } from '../../base/text.ts';
import { readAnswer, serviceError } from '../../http/answer.ts';
import {
  CutShort,
  discard,
  RangesIgnored,
  requireListedSize,
  type SignedBlob,
  signedBlob,
  type SignedBlobOptions,
} from './signed-blob.ts';
import { type Part, type PartFigures, type Parts, parts } from './slow-parts.ts';

const usualPartBytes = 2 * 1024 * 1024;
const maxHeldBytes = 64 * 1024 * 1024;

export interface RangedReader {
  /** Size of the blob in bytes. */
  readonly size: number;
  /** Returns the number of bytes that were downloaded if the whole blob is on this machine, else undefined. */
  readonly downloaded: () => number | undefined;
  /** Reads the bytes from `start` up to but not including `end`; meant for small ranges. */
  read(start: number, end: number): Promise<Buffer>;
  /** Reads the bytes from `start` to `end` in order, 8 to 32 parts at a time; holds at most 64 MiB, and usually 16. */
  readonly stream: (start: number, end: number) => AsyncIterable<Buffer>;
  /** Does the same in memory that is used again for later chunks. */
  readonly lend: (start: number, end: number) => LentChunks;
}

export interface RangedReaderOptions extends SignedBlobOptions {
  /** Bytes of each part. Default: 2 MiB. */
  readonly partBytes?: number;
  readonly figures?: PartFigures | undefined;
  /** Whether slow parts are requested again, and more of them at once; the benchmark measures both. */
  readonly adapts?: boolean;
}

/**
 * Reads a blob through signed URLs that expire.
 * @throws (from its methods) HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt`; `RangesIgnored` when the
 *   server answers the first request with the whole blob
 */
export function rangedReader(options: RangedReaderOptions): RangedReader {
  const { size, onRetry, figures, adapts = true, partBytes = usualPartBytes } = options;
  const blob = signedBlob(options);
  const source: Source = { blob, size, partBytes, givesParts: false };
  const request = (all: Parts, bytes: Buffer, start: number): Part => {
    const end = start + bytes.length;
    return all.request(
      async (signal, timed) => {
        const filling = { bytes, start, filled: 0 };
        const attempt = (): Promise<void> => timed(() => fill(source, filling, all, signal));
        await blob.persist(attempt, () => start + filling.filled, end);
        return bytes;
      },
      async (signal) => {
        const what = `Bytes ${String(start)}-${String(end)} of the download`;
        onRetry(`${what} take far longer than their neighbours: requesting them again.`);
        const filling = { bytes: Buffer.allocUnsafeSlow(bytes.length), start, filled: 0 };
        await fill(source, filling, all, signal);
        return filling.bytes;
      },
    );
  };
  const small = parts(adapts, figures);
  /** @param free memory to use again */
  const inParts = async function* (start: number, end: number, free: Buffer[]): AsyncGenerator<Buffer> {
    const all = parts(adapts, figures);
    const queue: Part[] = [];
    let next = start;
    while (next < end || queue.length > 0) {
      while (next < end && queue.length < Math.min(all.inFlight(partBytes), maxHeldBytes / partBytes)) {
        const bytes = free.pop() ?? Buffer.allocUnsafeSlow(Math.min(partBytes, end - start));
        queue.push(request(all, bytes.subarray(0, end - next), next));
        next = Math.min(end, next + partBytes);
      }
      const part = queue.shift();
      if (part !== undefined) yield await all.firstResponse(part, queue);
    }
  };
  return {
    size,
    downloaded: () => undefined,
    read: (start, end) => small.firstResponse(request(small, Buffer.allocUnsafeSlow(end - start), start), []),
    stream: (start, end) => inParts(start, end, []),
    lend: async function* (start, end): AsyncGenerator<LentChunk> {
      const free: Buffer[] = [];
      for await (const part of inParts(start, end, free)) {
        yield part;
        free.push(Buffer.from(part.buffer));
      }
    },
  };
}

/** A part's memory, and how much of it is filled. */
interface Filling {
  readonly bytes: Buffer;
  readonly start: number;
  filled: number;
}

interface Source {
  readonly blob: SignedBlob;
  readonly size: number;
  readonly partBytes: number;
  /** Whether the server has answered with a part. */
  givesParts: boolean;
}

/** Requests the bytes that a part still lacks, once. */
async function fill(source: Source, part: Filling, all: Parts, signal: AbortSignal): Promise<void> {
  const { bytes, start } = part;
  const sentAt = performance.now();
  const end = start + bytes.length;
  const body = await requestRange(source, start + part.filled, end, signal);
  // An event for each chunk: promises for each would cost a tenth of a load's CPU time.
  body.on('data', (chunk: Buffer) => {
    part.filled += chunk.copy(bytes, part.filled);
    // Before the end of the answer, this closes its connection. The next one looks the host's name up again.
    if (part.filled === bytes.length && all.retires(source.partBytes, performance.now() - sentAt)) body.destroy();
  });
  await finished(body).catch((error: unknown) => {
    if (part.filled < bytes.length) throw error;
  });
  if (part.filled < bytes.length) throw new CutShort(start + part.filled, end);
}

async function requestRange(source: Source, start: number, end: number, signal: AbortSignal): Promise<Readable> {
  const response = await source.blob.get({ range: `bytes=${String(start)}-${String(end - 1)}` }, signal);
  const { statusCode, headers } = response;
  if (statusCode !== 200 && statusCode !== 206) throw serviceError(await readAnswer(response));
  try {
    if (statusCode === 200 && !source.givesParts)
      throw new RangesIgnored(`HTTP 200 for bytes ${String(start)}-${String(end)}`);
    if (statusCode === 200) throw new CutShort(start, end, 'the answer is the whole blob');
    const range = String(headers['content-range'] ?? '');
    const [, from, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(range) ?? [];
    requireListedSize(Number(size), source);
    if (Number(from) !== start) throw new CutShort(start, end, `the answer is "${quoteForeign(range, 80)}"`);
    source.givesParts = true;
    return response.body;
  } catch (error) {
    await discard(response);
    throw error;
  }
}
