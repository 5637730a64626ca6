import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { asError, corruptArtifact, HandoverError, messageOf } from '../../base/errors.ts';
import { quoteForeign } from '../../base/text.ts';
import type { LentChunk, LentChunks } from '../../bytes/chunks.ts';
import { hasStatus, readAnswer, serviceError } from '../../http/answer.ts';
import type { Http, HttpResponse } from '../../http/client.ts';
import { again, isTransient, type Retries } from '../../http/retry.ts';
import { retryHint, type WorkflowHost } from '../../image/host.ts';
import { type Part, type PartOptions, type Parts, parts } from './slow-parts.ts';

const usualPartBytes = 2 * 1024 * 1024;
const maxHeldBytes = 64 * 1024 * 1024;

export interface RangedReader {
  /** Size of the blob in bytes. */
  readonly size: number;
  /** Returns the number of downloaded bytes if the whole blob is on this machine, else undefined. */
  readonly downloaded: () => number | undefined;
  /** Reads the bytes from `start` up to but not including `end`; meant for small ranges. */
  read(start: number, end: number): Promise<Buffer>;
  /** Reads the bytes from `start` to `end` in order, 8 to 32 parts at a time. Holds at most 64 MiB, usually 16 MiB. */
  readonly stream: (start: number, end: number) => AsyncIterable<Buffer>;
  /** Does the same, but reuses the memory for later chunks. */
  readonly lend: (start: number, end: number) => LentChunks;
}

export interface BlobOptions extends Retries, PartOptions {
  readonly http: Http;
  readonly host: WorkflowHost;
  /** Size of the blob in bytes. */
  readonly size: number;
  /** Returns a new signed URL. Its errors are thrown unchanged; after an error it is not called again. */
  readonly sign: () => Promise<string>;
  /** Size of each part in bytes. Default: 2 MiB. */
  readonly partBytes?: number | undefined;
}

/**
 * Reads a blob through signed URLs that expire.
 * @throws (from the reader's methods) HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt`; `RangesIgnored` when
 *   the server answers the first request with the whole blob
 */
export function rangedReader(options: BlobOptions): RangedReader {
  const { size, onRetry, partBytes = usualPartBytes } = options;
  const blob = new SignedBlob(options);
  const request = (all: Parts, bytes: Buffer, start: number): Part => {
    const end = start + bytes.length;
    const retires = (ms: number): boolean => all.retires(partBytes, ms);
    return all.request(
      async (signal, timed) => {
        const filling = { bytes, start, filled: 0 };
        const attempt = (): Promise<void> => timed(() => fill(blob, filling, retires, signal));
        await blob.persist(attempt, () => start + filling.filled, end);
        return bytes;
      },
      async (signal) => {
        const what = `Bytes ${String(start)}-${String(end)} of the download`;
        onRetry(`${what} take far longer than their neighbours: requesting them again.`);
        const filling = { bytes: Buffer.allocUnsafeSlow(bytes.length), start, filled: 0 };
        await fill(blob, filling, retires, signal);
        return filling.bytes;
      },
    );
  };
  const small = parts(options);
  /** @param free memory to reuse */
  const inParts = async function* (start: number, end: number, free: Buffer[]): AsyncGenerator<Buffer> {
    const all = parts(options);
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

/** A part's memory, and the number of bytes filled so far. */
interface Filling {
  readonly bytes: Buffer;
  readonly start: number;
  filled: number;
}

/** Requests a part's missing bytes once, without retries. */
async function fill(
  blob: SignedBlob,
  part: Filling,
  retires: (ms: number) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const { bytes, start } = part;
  const sentAt = performance.now();
  const end = start + bytes.length;
  const body = await requestRange(blob, start + part.filled, end, signal);
  // Uses an event for each chunk: a promise for each would cost a tenth of a load's CPU time.
  body.on('data', (chunk: Buffer) => {
    part.filled += chunk.copy(bytes, part.filled);
    // Destroying the body before the answer ends closes its connection. The next connection resolves the host's name again.
    if (part.filled === bytes.length && retires(performance.now() - sentAt)) body.destroy();
  });
  await finished(body).catch((error: unknown) => {
    if (part.filled < bytes.length) throw error;
  });
  if (part.filled < bytes.length) throw new CutShort(start + part.filled, end);
}

async function requestRange(blob: SignedBlob, start: number, end: number, signal: AbortSignal): Promise<Readable> {
  const response = await blob.get({ range: `bytes=${String(start)}-${String(end - 1)}` }, signal);
  const { statusCode, headers } = response;
  if (statusCode !== 200 && statusCode !== 206) throw serviceError(await readAnswer(response));
  try {
    if (statusCode === 200 && !blob.givesParts)
      throw new RangesIgnored(`HTTP 200 for bytes ${String(start)}-${String(end)}`);
    if (statusCode === 200) throw new CutShort(start, end, 'the answer is the whole blob');
    const range = String(headers['content-range'] ?? '');
    const [, from, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(range) ?? [];
    requireListedSize(Number(size), blob);
    if (Number(from) !== start) throw new CutShort(start, end, `the answer is "${quoteForeign(range, 80)}"`);
    blob.givesParts = true;
    return response.body;
  } catch (error) {
    await discard(response);
    throw error;
  }
}

/** A blob that is read through signed URLs that expire. */
export class SignedBlob {
  readonly size: number;
  /** Whether the server has answered with a part. */
  givesParts = false;
  readonly #options: BlobOptions;
  #url: Promise<string> | undefined;
  #unsigned: Error | undefined;

  constructor(options: BlobOptions) {
    this.size = options.size;
    this.#options = options;
  }

  /**
   * Requests the blob. The caller must read the answer's body to its end or destroy it.
   * @param signal cancels only this request
   */
  async get(headers?: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<HttpResponse> {
    this.#url ??= this.#sign();
    const identity = { ...headers, 'accept-encoding': 'identity' };
    return this.#options.http.send({ method: 'GET', url: await this.#url, headers: identity, signal });
  }

  /**
   * Retries `work` until it succeeds, with a new URL when the last URL has expired.
   * @param reached returns the position that the work has reached, in bytes
   * @param end the position that the work has to reach, in bytes
   * @throws HandoverError `transfer-failed`, `artifact-expired`; HandoverErrors and `RangesIgnored` from `work` unchanged
   */
  async persist(work: () => Promise<void>, reached: () => number, end: number): Promise<void> {
    const { onRetry, signal, host, size } = this.#options;
    try {
      await again('part', work, {
        what: 'the download',
        onRetry: (line) => onRetry(`Bytes ${String(reached())}-${String(end)} of ${line}`),
        signal,
        isRetryable: (error) => error !== this.#unsigned && isTransient(error),
        isAtOnce: (error) => {
          // Azure answers 403 AuthenticationFailed for an expired signature.
          if (error === this.#unsigned || !hasStatus(error, 401, 403)) return false;
          this.#url = undefined;
          return true;
        },
      });
    } catch (error) {
      const isExplained = error === this.#unsigned || error instanceof HandoverError || error instanceof RangesIgnored;
      if (isExplained || signal.aborted) throw error;
      if (hasStatus(error, 404, 410))
        throw new HandoverError(
          'artifact-expired',
          `The artifact's content is gone: ${error.message}. It has expired or was deleted.`,
          'Re-run all jobs, so that the image is built and handed over again, or raise `retention-days` of export-image.',
          error,
        );
      throw new HandoverError(
        'transfer-failed',
        `The download failed at byte ${String(reached())} of ${String(size)}: ${messageOf(error)}.`,
        retryHint(host),
        error,
      );
    }
  }

  async #sign(): Promise<string> {
    try {
      return await this.#options.sign();
    } catch (error) {
      throw (this.#unsigned = asError(error));
    }
  }
}

/** The connection ended normally before all bytes had arrived, or bytes arrived that were not requested. */
export class CutShort extends Error {
  readonly code = 'CUT_SHORT';
  constructor(at: number, end: number, why = 'the answer ended') {
    super(`${why} at byte ${String(at)} of ${String(end)}`);
  }
}

/** The server answered a request for a part with the whole blob, as HTTP allows (RFC 9110 section 14.2). */
export class RangesIgnored extends Error {
  override readonly name = 'RangesIgnored';
}

/** @throws HandoverError `artifact-corrupt` when the blob's size differs from the size that the service lists */
export function requireListedSize(size: number, { size: listed }: Pick<BlobOptions, 'size'>): void {
  if (size === listed) return;
  throw corruptArtifact(`The artifact's blob has ${String(size)} bytes; the artifact service lists ${String(listed)}.`);
}

/** Discards an answer without reading it. Destroying its body would emit an error that nothing can catch. */
export async function discard(response: HttpResponse): Promise<void> {
  await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}
