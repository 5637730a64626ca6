import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import { formatDuration } from '../base/text.ts';
import { HttpError } from './answer.ts';

interface RetryOptions {
  /** How often the work runs, including the first time. */
  readonly attempts: number;
  /** Pause before attempt number `attempt` + 1, in ms. */
  readonly delayMs: (attempt: number, error: unknown) => number;
  /** Whether another attempt can help. */
  readonly isRetryable: (error: unknown) => boolean;
  /** Called before each pause. */
  readonly onRetry?: (error: unknown, attempt: number, delayMs: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Runs the work until it succeeds, an error isn't retryable, or no attempts are left. Throws the last error. */
export async function retry<T>(
  work: (attempt: number) => Promise<T>,
  { attempts, delayMs, isRetryable, onRetry, signal }: RetryOptions,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      if (attempt >= attempts || !isRetryable(error)) throw error;
      const pauseMs = delayMs(attempt, error);
      onRetry?.(error, attempt, pauseMs);
      await sleep(pauseMs, undefined, { signal });
    }
  }
}

/** Returns pauses that double, with a random spread, so that many jobs don't return at the same moment. */
export function backoff(firstMs: number, maxMs: number): (attempt: number) => number {
  return (attempt) => Math.round(Math.min(maxMs, firstMs * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2));
}

/** Whether a status is final: the same request wouldn't get another answer in a moment. */
export function isFinal(status: number): boolean {
  return ![408, 429, 500, 502, 503, 504].includes(status);
}

// Error codes of the system (errno(3), getaddrinfo(3)), undici and Node's HTTP parser. With these, the connection failed, and not the
// request, the certificate or this machine.
const transientCodes: readonly string[] = [
  ...['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETUNREACH', 'ENETDOWN', 'EHOSTUNREACH'],
  ...['EAI_AGAIN', 'ENOTFOUND', 'UND_ERR_SOCKET', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
  ...['UND_ERR_BODY_TIMEOUT', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'HPE_INVALID_EOF_STATE', 'CUT_SHORT'],
];

/** Whether the same request may succeed in a moment, after a lost connection, a time-out or a busy service. */
export function isTransient(error: unknown): boolean {
  if (error instanceof HttpError) return !isFinal(error.status);
  return transientCodes.includes(systemCodeOf(error) ?? '');
}

/**
 * For each kind of request: how often it is made, and the first and the longest pause in ms, unless the service asks for another. No
 * retried request is part of other retried work.
 */
const policies = {
  /** A call of a service. */
  call: { attempts: 5, firstMs: 1000, longestMs: 15_000 },
  /** The upload or download of a part of a blob. There are many, and each has all attempts. */
  part: { attempts: 6, firstMs: 500, longestMs: 10_000 },
  /** Removes an unfinished upload, in the seconds that a cancelled step has. */
  cleanup: { attempts: 3, firstMs: 250, longestMs: 250 },
} as const;

/** The longest pause in ms, even if a service asks for a longer one. */
export const longestRetryAfterMs = 60_000;

/** The options of all retried requests. */
export interface Retries {
  /** Called with one log line before each retry. */
  readonly onRetry: (line: string) => void;
  /** Ends the requests, and the pauses between them. */
  readonly signal: AbortSignal;
}

export interface AgainOptions extends Retries {
  /** The request's name in the log. */
  readonly what: string;
  /** Whether another request can help; `isTransient` by default. */
  readonly isRetryable?: ((error: unknown) => boolean) | undefined;
  /** Whether another request can help at once; called before the pause. */
  readonly isAtOnce?: (error: unknown) => boolean;
}

/** Makes a request until it succeeds, and logs each retry. Throws the last error. */
export function again<T>(
  policy: keyof typeof policies,
  request: () => Promise<T>,
  { what, onRetry, signal, isRetryable = isTransient, isAtOnce = () => false }: AgainOptions,
): Promise<T> {
  const { attempts, firstMs, longestMs } = policies[policy];
  const doubling = backoff(firstMs, longestMs);
  return retry(request, {
    attempts,
    delayMs: (attempt, error) => {
      if (isAtOnce(error)) return 0;
      const wanted = error instanceof HttpError ? error.retryAfterMs : undefined;
      return wanted === undefined ? doubling(attempt) : Math.min(wanted, longestRetryAfterMs);
    },
    isRetryable: (error) => isAtOnce(error) || isRetryable(error),
    onRetry: (error, attempt, delayMs) => {
      const next = delayMs === 0 ? 'at once' : `in ${formatDuration(delayMs)}`;
      onRetry(`${what}: ${messageOf(error)}; attempt ${String(attempt)} of ${String(attempts)}, the next ${next}.`);
    },
    signal,
  });
}
