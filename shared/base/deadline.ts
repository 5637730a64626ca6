/** Returns a signal that is aborted `ms` after another signal, with `reason` or, without one, that signal's reason. */
export function abortedAfter(signal: AbortSignal, ms: number, reason?: Error): AbortSignal {
  const controller = new AbortController();
  const begin = (): void => void setTimeout(() => controller.abort(reason ?? signal.reason), ms).unref();
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return controller.signal;
}

export interface TimeLimit {
  /** Aborted when the time is up. */
  readonly signal: AbortSignal;
  /** Starts the timer unless it was started before. */
  readonly start: () => void;
  /** Restarts the timer. */
  readonly restart: () => void;
  readonly stop: () => void;
}

/** @param reason the signal's reason for the abort */
export function timeLimit(ms: number, reason?: Error): TimeLimit {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const restart = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => controller.abort(reason), ms).unref();
  };
  return {
    signal: controller.signal,
    start: () => {
      if (timer === undefined) restart();
    },
    restart,
    stop: () => clearTimeout(timer),
  };
}
