/** Returns a signal that is aborted a number of ms after another one, with `reason` or else the other's. */
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
  /** Starts the time, unless it has started before. */
  readonly start: () => void;
  /** Starts the time again. */
  readonly restart: () => void;
  readonly stop: () => void;
}

/** @param reason what the signal is aborted with */
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
