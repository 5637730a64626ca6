import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Dispatcher } from 'undici';
import { HandoverError, messageOf } from '../errors.ts';
import { giveBack } from '../give-back.ts';
import { backoff, retry } from '../retry.ts';
import { type Http, httpError, HttpError, isTransient, pauseFor } from './http.ts';
import { UnknownAnswer } from './results-service.ts';

const partBytes = 2 * 1024 * 1024;
const partsInFlight = 8;
const attemptsPerPart = 6;

/** Whether each chunk has memory of its own, or takes that of an earlier one. */
export type ChunkMemory = 'own' | 'shared';

/** Reads a blob by byte range through signed URLs that run out. */
export interface RangedReader {
  /** Size of the blob in bytes. */
  readonly size: number;
  /** The bytes from `start` up to but not including `end`; meant for small ranges. */
  read(start: number, end: number): Promise<Buffer>;
  /**
   * The bytes from `start` to `end` in order, several parts at a time; at most 16 MiB are held.
   * @param memory where it is `shared`, each chunk is valid until the next is asked for
   */
  stream(start: number, end: number, memory: ChunkMemory): AsyncIterable<Buffer>;
}

export interface RangedReaderOptions {
  readonly http: Http;
  readonly size: number;
  /** Asks for a new signed URL. */
  readonly sign: () => Promise<string>;
  /** Told of each part that had to be asked for again. */
  readonly onRetry: (message: string) => void;
  readonly signal: AbortSignal;
}

/** @throws (from its methods) HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt` */
export function rangedReader(options: RangedReaderOptions): RangedReader {
  const { size, sign } = options;
  let url: Promise<string> | undefined;
  const signedUrl = (): Promise<string> => (url ??= sign());
  const signAgain = (): void => {
    url = undefined;
  };
  const readInto = (bytes: Buffer, start: number): Promise<Buffer> =>
    readPart(options, bytes, start, signedUrl, signAgain);
  return {
    size,
    read: (start, end) => readInto(Buffer.allocUnsafeSlow(end - start), start),
    stream: async function* (start, end, memory) {
      const free: Buffer[] = [];
      const queue: Promise<Buffer>[] = [];
      let next = start;
      while (next < end || queue.length > 0) {
        while (next < end && queue.length < partsInFlight) {
          const bytes = free.pop() ?? Buffer.allocUnsafeSlow(Math.min(partBytes, end - start));
          const part = readInto(bytes.subarray(0, end - next), next);
          part.catch(() => undefined); // reported when its turn comes
          queue.push(part);
          next = Math.min(end, next + partBytes);
        }
        const part = await queue.shift();
        if (part === undefined) continue;
        yield part;
        if (memory === 'shared') free.push(Buffer.from(part.buffer));
      }
    },
  };
}

/** Fills `bytes` from `start` on. */
async function readPart(
  options: RangedReaderOptions,
  bytes: Buffer,
  start: number,
  signedUrl: () => Promise<string>,
  signAgain: () => void,
): Promise<Buffer> {
  const end = start + bytes.length;
  let filled = 0;
  const attempt = async (): Promise<void> => {
    const body = await request(options, await signedUrl(), start + filled, end);
    // An event for each chunk: promises for each would cost a tenth of a load's CPU time.
    body.on('data', (chunk: Buffer) => {
      filled += chunk.copy(bytes, filled);
      giveBack(chunk);
    });
    await finished(body);
    if (filled < bytes.length) throw new CutShort(start + filled, end);
  };
  try {
    await retry(attempt, {
      attempts: attemptsPerPart,
      delayMs: (number, error) => (isExpired(error) ? 0 : pauseFor(backoff(500, 10_000))(number, error)),
      isRetryable: (error) => isTransient(error) || isExpired(error) || error instanceof CutShort,
      onRetry: (error, number) => {
        if (isExpired(error)) signAgain();
        options.onRetry(
          `Bytes ${String(start + filled)}-${String(end)}: ${messageOf(error)}; trying again (${String(number)}).`,
        );
      },
      signal: options.signal,
    });
  } catch (error) {
    throw explained(error, start + filled, options);
  }
  return bytes;
}

/** The connection ended in good order before all bytes had come. */
class CutShort extends Error {
  readonly code = 'CUT_SHORT';
  constructor(at: number, end: number) {
    super(`the answer ended at byte ${String(at)} of ${String(end)}`);
  }
}

async function request(options: RangedReaderOptions, url: string, start: number, end: number): Promise<Readable> {
  const headers = { range: `bytes=${String(start)}-${String(end - 1)}`, 'accept-encoding': 'identity' };
  const response = await options.http.send({ method: 'GET', url, headers });
  if (response.statusCode !== 206) {
    const text = response.statusCode === 200 ? '' : await response.body.text();
    await discard(response);
    throw httpError(response, text);
  }
  const total = Number(/\/(\d+)$/.exec(String(response.headers['content-range'] ?? ''))?.[1]);
  if (total !== options.size) {
    await discard(response);
    throw new HandoverError(
      'artifact-corrupt',
      `The artifact's blob has ${String(total)} bytes; the artifact service lists ${String(options.size)}.`,
      'Run the job that exports the image again.',
    );
  }
  return response.body;
}

// Ends an answer that nobody will read; destroying its body would raise an error event out of reach.
async function discard(response: Dispatcher.ResponseData): Promise<void> {
  await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}

// Azure answers 403 AuthenticationFailed for a signature past its time.
function isExpired(error: unknown): boolean {
  return error instanceof HttpError && (error.status === 403 || error.status === 401);
}

function explained(error: unknown, at: number, options: RangedReaderOptions): unknown {
  if (error instanceof HandoverError || error instanceof UnknownAnswer || options.signal.aborted) return error;
  if (error instanceof HttpError && (error.status === 404 || error.status === 410)) {
    return new HandoverError(
      'artifact-expired',
      `The artifact's content is gone: ${error.message}. It has expired or was deleted.`,
      'Re-run all jobs, so that the image is built and handed over again, or raise `retention-days` of export-image.',
      error,
    );
  }
  return new HandoverError(
    'transfer-failed',
    `The download failed at byte ${String(at)} of ${String(options.size)}: ${messageOf(error)}.`,
    'Re-run the job. If it repeats, look at https://www.githubstatus.com and at the proxy of a self-hosted runner.',
    error,
  );
}
