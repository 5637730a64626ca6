import { asError, corruptArtifact, HandoverError, messageOf } from '../../base/errors.ts';
import { HttpError } from '../../http/answer.ts';
import type { Http, HttpResponse } from '../../http/client.ts';
import { again, isTransient } from '../../http/retry.ts';
import { retryHint, type WorkflowHost } from '../../image/host.ts';

export interface SignedBlobOptions {
  readonly http: Http;
  readonly host: WorkflowHost;
  /** Of the blob, in bytes. */
  readonly size: number;
  /** Returns a new signed URL. Its errors are thrown unchanged, and it is not called again after one. */
  readonly sign: () => Promise<string>;
  /** Called with one log line before each retry. */
  readonly onRetry: (message: string) => void;
  readonly signal: AbortSignal;
}

/** A blob behind signed URLs that expire. */
export interface SignedBlob {
  /**
   * Requests the blob; the body of the answer must be read to its end or destroyed.
   * @param signal ends this request alone
   */
  get(headers?: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<HttpResponse>;
  /**
   * Repeats work until it succeeds, with a new URL when the last one has expired.
   * @param reached returns the position that the work has reached, in bytes
   * @param end the position that it has to reach
   * @throws HandoverError `transfer-failed`, `artifact-expired`; HandoverErrors and `RangesIgnored` of the work unchanged
   */
  persist(work: () => Promise<void>, reached: () => number, end: number): Promise<void>;
}

export function signedBlob(options: SignedBlobOptions): SignedBlob {
  let url: Promise<string> | undefined;
  let unsigned: Error | undefined;
  const sign = async (): Promise<string> => {
    try {
      return await options.sign();
    } catch (error) {
      throw (unsigned = asError(error));
    }
  };
  const isExpired = (error: unknown): boolean =>
    // Azure answers 403 AuthenticationFailed for an expired signature.
    error !== unsigned && error instanceof HttpError && (error.status === 403 || error.status === 401);
  return {
    get: async (headers, signal) => {
      url ??= sign();
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
          isRetryable: (error) => error !== unsigned && isTransient(error),
          isAtOnce: (error) => {
            if (!isExpired(error)) return false;
            url = undefined;
            return true;
          },
        });
      } catch (error) {
        throw error === unsigned ? error : explained(error, reached(), options);
      }
    },
  };
}

/** The connection ended normally before all bytes had arrived, or other bytes than the requested ones arrived. */
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

/** @throws HandoverError `artifact-corrupt` when the blob has another size than the service lists */
export function requireListedSize(size: number, { size: listed }: Pick<SignedBlobOptions, 'size'>): void {
  if (size === listed) return;
  throw corruptArtifact(`The artifact's blob has ${String(size)} bytes; the artifact service lists ${String(listed)}.`);
}

/** Ends an answer without reading it; to destroy its body would emit an error that nothing can catch. */
export async function discard(response: HttpResponse): Promise<void> {
  await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}

function explained(error: unknown, at: number, options: SignedBlobOptions): unknown {
  if (error instanceof HandoverError || error instanceof RangesIgnored || options.signal.aborted) return error;
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
    retryHint(options.host),
    error,
  );
}

/**
 * Returns the same URL after masking its signature: in the form that the URL has, which is the one that can be printed, and in
 * the form that `URLSearchParams` writes.
 */
export function maskedUrl(url: string, maskSecret: (secret: string) => void): string {
  const signature = (text: string): string | undefined => /[?&]sig=([^&#]+)/.exec(text)?.[1];
  const { searchParams } = new URL(url);
  for (const form of new Set([signature(url), signature(`?${searchParams.toString()}`)])) {
    if (form !== undefined) maskSecret(form);
  }
  return url;
}
