import { HandoverError, messageOf } from '../../base/errors.ts';
import { HttpError } from '../../http/answer.ts';
import type { Http, HttpResponse } from '../../http/client.ts';
import { again } from '../../http/retry.ts';
import { UnknownAnswer } from '../service/results-service.ts';

export interface SignedBlobOptions {
  readonly http: Http;
  /** Of the blob, in bytes. */
  readonly size: number;
  /** Asks for a new signed URL. */
  readonly sign: () => Promise<string>;
  /** Told of each request that had to be made again. */
  readonly onRetry: (message: string) => void;
  readonly signal: AbortSignal;
}

/** A blob behind signed URLs that run out. */
export interface SignedBlob {
  /**
   * Asks for the blob; the body of the answer must be read to its end or destroyed.
   * @param signal ends this request alone
   */
  get(headers?: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<HttpResponse>;
  /**
   * Does the work until it succeeds, with a new URL where the last one has run out.
   * @param reached the byte that the work has come to
   * @param end the byte that it is to come to
   * @throws HandoverError `transfer-failed`, `artifact-expired`; HandoverErrors, `UnknownAnswer` and `RangesIgnored` of the work as they are
   */
  persist(work: () => Promise<void>, reached: () => number, end: number): Promise<void>;
}

export function signedBlob(options: SignedBlobOptions): SignedBlob {
  let url: Promise<string> | undefined;
  return {
    get: async (headers, signal) => {
      url ??= options.sign();
      return options.http.send({
        method: 'GET',
        url: await url,
        headers: { ...headers, 'accept-encoding': 'identity' },
        ...(signal === undefined ? {} : { signal }),
      });
    },
    persist: async (work, reached, end) => {
      try {
        await again('part', work, {
          what: () => `Bytes ${String(reached())}-${String(end)} of the download`,
          onRetry: options.onRetry,
          signal: options.signal,
          isAtOnce: (error) => {
            if (!isExpired(error)) return false;
            url = undefined;
            return true;
          },
        });
      } catch (error) {
        throw explained(error, reached(), options);
      }
    },
  };
}

/** The connection ended in good order before all bytes had come, or other bytes than those asked for have come. */
export class CutShort extends Error {
  readonly code = 'CUT_SHORT';
  constructor(at: number, end: number, why = 'the answer ended') {
    super(`${why} at byte ${String(at)} of ${String(end)}`);
  }
}

/** The server answered a request for a part with the whole, as HTTP allows (RFC 9110 section 14.2). */
export class RangesIgnored extends Error {
  override readonly name = 'RangesIgnored';
}

/** @throws HandoverError `artifact-corrupt` when the blob has another size than the service lists */
export function requireListedSize(size: number, { size: listed }: Pick<SignedBlobOptions, 'size'>): void {
  if (size === listed) return;
  throw new HandoverError(
    'artifact-corrupt',
    `The artifact's blob has ${String(size)} bytes; the artifact service lists ${String(listed)}.`,
    'Run the job that exports the image again.',
  );
}

/** Ends an answer that nobody will read; destroying its body would raise an error event out of reach. */
export async function discard(response: HttpResponse): Promise<void> {
  await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}

// Azure answers 403 AuthenticationFailed for a signature past its time.
function isExpired(error: unknown): boolean {
  return error instanceof HttpError && (error.status === 403 || error.status === 401);
}

function explained(error: unknown, at: number, options: SignedBlobOptions): unknown {
  if (error instanceof HandoverError || error instanceof UnknownAnswer || error instanceof RangesIgnored) return error;
  if (options.signal.aborted) return error;
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
