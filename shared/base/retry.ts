import { setTimeout as sleep } from 'node:timers/promises';

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
