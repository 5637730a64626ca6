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
import { type AskedPart, type Parts, parts } from './slow-parts.ts';

const partBytes = 2 * 1024 * 1024;
const partsInFlight = 8;

/** Reads a blob by byte range through signed URLs that run out. */
export interface RangedReader {
  /** Size of the blob in bytes. */
  readonly size: number;
  /** Bytes that were downloaded to have the whole blob on this machine; undefined when it isn't. */
  readonly downloaded: () => number | undefined;
  /** The bytes from `start` up to but not including `end`; meant for small ranges. */
  read(start: number, end: number): Promise<Buffer>;
  /** The bytes from `start` to `end` in order, several parts at a time; at most 16 MiB are held. */
  readonly stream: (start: number, end: number) => AsyncIterable<Buffer>;
  /** The same in memory that is used again and again. */
  readonly lend: (start: number, end: number) => LentChunks;
}

export interface RangedReaderOptions extends SignedBlobOptions {
  /** Whether a part that takes too long is asked for once more; the benchmark looks at what that is worth. */
  readonly asksAgain?: boolean;
}

/**
 * @throws (from its methods) HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt`; `RangesIgnored` when the
 *   server answers with the whole
 */
export function rangedReader(options: RangedReaderOptions): RangedReader {
  const { size } = options;
  const blob = signedBlob(options);
  const source: Source = { blob, size, givesParts: false };
  const ask: Ask = (all, bytes, start) => {
    const end = start + bytes.length;
    return all.ask(
      async (signal, timed) => {
        const part = { bytes, start, filled: 0 };
        const attempt = (): Promise<void> => timed(() => fill(source, part, signal));
        await blob.persist(attempt, () => start + part.filled, end);
        return bytes;
      },
      async (signal) => {
        const what = `Bytes ${String(start)}-${String(end)} of the download`;
        options.onRetry(`${what} take far longer than those beside them: they are asked for once more.`);
        const part = { bytes: Buffer.allocUnsafeSlow(bytes.length), start, filled: 0 };
        await fill(source, part, signal);
        return part.bytes;
      },
    );
  };
  const newParts = (): Parts => parts(options.asksAgain ?? true);
  const small = newParts();
  return {
    size,
    downloaded: () => undefined,
    read: (start, end) => small.firstToCome(ask(small, Buffer.allocUnsafeSlow(end - start), start), []),
    stream: (start, end) => inParts(newParts(), ask, { start, end }, () => undefined),
    lend: async function* (start, end): AsyncGenerator<LentChunk> {
      const free: Buffer[] = [];
      for await (const part of inParts(newParts(), ask, { start, end }, () => free.pop())) {
        yield part;
        free.push(Buffer.from(part.buffer));
      }
    },
  };
}

/** Asks for the bytes from `start` on that fill a memory, or other memory where that takes too long. */
type Ask = (all: Parts, bytes: Buffer, start: number) => AskedPart;

/** @param memory asked for a buffer to use again */
async function* inParts(
  all: Parts,
  ask: Ask,
  { start, end }: { readonly start: number; readonly end: number },
  memory: () => Buffer | undefined,
): AsyncGenerator<Buffer> {
  const queue: AskedPart[] = [];
  let next = start;
  while (next < end || queue.length > 0) {
    while (next < end && queue.length < partsInFlight) {
      const bytes = memory() ?? Buffer.allocUnsafeSlow(Math.min(partBytes, end - start));
      queue.push(ask(all, bytes.subarray(0, end - next), next));
      next = Math.min(end, next + partBytes);
    }
    const part = queue.shift();
    if (part !== undefined) yield await all.firstToCome(part, queue);
  }
}

/** A part's memory, and how much of it is filled. */
interface Part {
  readonly bytes: Buffer;
  readonly start: number;
  filled: number;
}

interface Source {
  readonly blob: SignedBlob;
  readonly size: number;
  /** Whether the server has answered with a part. */
  givesParts: boolean;
}

/** Requests the bytes that a part still lacks, once. */
async function fill(source: Source, part: Part, signal: AbortSignal): Promise<void> {
  const { bytes, start } = part;
  const end = start + bytes.length;
  const body = await request(source, start + part.filled, end, signal);
  // An event for each chunk: promises for each would cost a tenth of a load's CPU time.
  body.on('data', (chunk: Buffer) => {
    part.filled += chunk.copy(bytes, part.filled);
  });
  await finished(body);
  if (part.filled < bytes.length) throw new CutShort(start + part.filled, end);
}

async function request(source: Source, start: number, end: number, signal: AbortSignal): Promise<Readable> {
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
