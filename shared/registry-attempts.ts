import { messageOf } from './errors.ts';
import { RegistryFailure } from './registry-failure.ts';
import { retry } from './retry.ts';
import { formatDuration } from './text.ts';

/** How often registry work is tried in all. */
export const registryAttempts = 3;
/** How long one push or pull may take, in ms. */
export const registryLimitMs = 25 * 60_000;

export interface AttemptOptions {
  /** Pause between two attempts, in ms. */
  readonly pauseMs: number;
  readonly warning: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Runs registry work until it succeeds, for three attempts at most, with a warning before each further one.
 * @param failed the first attempt, if it was made elsewhere
 * @throws RegistryFailure of the last attempt; at once when another would fail in the same way
 */
export function attemptRegistry<T>(
  work: () => Promise<T>,
  { pauseMs, warning, signal }: AttemptOptions,
  failed?: RegistryFailure,
): Promise<T> {
  return retry((attempt) => (attempt === 1 && failed !== undefined ? Promise.reject(failed) : work()), {
    attempts: registryAttempts,
    delayMs: () => pauseMs,
    isRetryable: (error) => error instanceof RegistryFailure && !error.permanent,
    onRetry: (error, attempt) => {
      const next = `${String(attempt + 1)} of ${String(registryAttempts)} in ${formatDuration(pauseMs)}`;
      warning(`${messageOf(error)}. Attempt ${next}.`);
    },
    signal,
  });
}
