import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import { formatDuration } from '../base/text.ts';
import { HttpError } from './answer.ts';

export interface RetryOptions {
  /** How often the work is tried in all. */
  readonly attempts: number;
  /** Pause before try number `attempt` + 1, in ms. */
  readonly delayMs: (attempt: number, error: unknown) => number;
  /** Whether another try can help. */
  readonly isRetryable: (error: unknown) => boolean;
  /** Told before each pause. */
  readonly onRetry?: (error: unknown, attempt: number, delayMs: number) => void;
  readonly signal?: AbortSignal;
}

/** Runs the work until it succeeds, an error isn't retryable, or the attempts are used up; throws the last error. */
export async function retry<T>(work: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work(attempt);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (attempt >= options.attempts || !options.isRetryable(error)) throw error;
      const delayMs = options.delayMs(attempt, error);
      options.onRetry?.(error, attempt, delayMs);
      await sleep(delayMs, undefined, options.signal ? { signal: options.signal } : {});
    }
  }
}

/** Doubling pauses with a little spread, so that many jobs don't come back at the same moment. */
export function backoff(firstMs: number, maxMs: number): (attempt: number) => number {
  return (attempt) => Math.round(Math.min(maxMs, firstMs * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2));
}

const transientStatus: readonly number[] = [408, 429, 500, 502, 503, 504];

/** Whether a service that answers with this status may give another answer in a moment. */
export function isTransientStatus(status: number): boolean {
  return transientStatus.includes(status);
}

// Of the system (errno(3), getaddrinfo(3)), of undici and of Node's HTTP parser: what says that the connection is at fault, not the
// request, the certificate or this machine.
const transientCodes: readonly string[] = [
  ...['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETUNREACH', 'ENETDOWN', 'EHOSTUNREACH'],
  ...['EAI_AGAIN', 'ENOTFOUND', 'UND_ERR_SOCKET', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
  ...['UND_ERR_BODY_TIMEOUT', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'HPE_INVALID_EOF_STATE', 'CUT_SHORT'],
];

/** Whether the same request may succeed in a moment: a lost connection, a time-out or a busy service. */
export function isTransient(error: unknown): boolean {
  if (error instanceof HttpError) return isTransientStatus(error.status);
  return transientCodes.includes(systemCodeOf(error) ?? '');
}

/** How often a request is made in all, and the first and the longest pause, in ms, where the service asks for none. */
const policies = {
  /** A question to a service. */
  call: { attempts: 5, firstMs: 1000, longestMs: 15_000 },
  /** A part of a blob, up or down: there are many, and each starts anew. */
  part: { attempts: 6, firstMs: 500, longestMs: 10_000 },
} as const;

export interface AgainOptions {
  /** What is asked for, as the log names it. */
  readonly what: () => string;
  /** Told of each request that is made again, in one line. */
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
  /** Whether another request can help; undefined takes `isTransient`. */
  readonly isRetryable?: (error: unknown) => boolean;
  /** Whether it can help at once; told before the pause. */
  readonly isAtOnce?: (error: unknown) => boolean;
}

/**
 * Makes a request until it succeeds, with pauses that double, and never in silence. All requests of a step stand under one
 * deadline, the signal's. Throws the last error.
 */
export function again<T>(
  policy: keyof typeof policies,
  request: () => Promise<T>,
  { what, onRetry, signal, isRetryable = isTransient, isAtOnce = () => false }: AgainOptions,
): Promise<T> {
  const { attempts, firstMs, longestMs } = policies[policy];
  const doubling = backoff(firstMs, longestMs);
  return retry(request, {
    attempts,
    delayMs: (attempt, error) => (isAtOnce(error) ? 0 : (retryAfter(error) ?? doubling(attempt))),
    isRetryable: (error) => isAtOnce(error) || isRetryable(error),
    onRetry: (error, attempt, delayMs) => {
      const next = delayMs === 0 ? 'at once' : `in ${formatDuration(delayMs)}`;
      onRetry(`${what()}: ${messageOf(error)}; attempt ${String(attempt)} of ${String(attempts)}, the next ${next}.`);
    },
    signal,
  });
}

function retryAfter(error: unknown): number | undefined {
  return error instanceof HttpError ? error.retryAfterMs : undefined;
}
