/** Returns a signal that is aborted a number of ms after another one, with `reason` or else the other's. */
export function abortedAfter(signal: AbortSignal, ms: number, reason?: Error): AbortSignal {
  const controller = new AbortController();
  const begin = (): void => void setTimeout(() => controller.abort(reason ?? signal.reason), ms).unref();
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return controller.signal;
}
