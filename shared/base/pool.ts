import { asError } from './errors.ts';

/**
 * Runs work on each item, `maxConcurrent` at a time, and takes an item only when its work can start. After an error, takes no further
 * items, but waits for the running work.
 * @param work its signal is aborted with the first error
 * @throws the first error of the items or the work
 */
export async function inPool<T>(
  items: AsyncIterable<T> | Iterable<T>,
  maxConcurrent: number,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const source = all(items);
  const failed = new AbortController();
  const { signal } = failed;
  const hasFailed = (): boolean => signal.aborted;
  const worker = async (): Promise<void> => {
    while (!hasFailed()) {
      const next = await source.next();
      if (next.done === true || hasFailed()) return;
      await work(next.value, signal);
    }
  };
  const workers = Array.from({ length: maxConcurrent }, () =>
    worker().catch((error: unknown) => {
      if (!hasFailed()) failed.abort(asError(error));
    }),
  );
  await Promise.all(workers);
  await source.return(undefined);
  if (hasFailed()) throw asError(signal.reason);
}

async function* all<T>(items: AsyncIterable<T> | Iterable<T>): AsyncGenerator<T, undefined> {
  yield* items;
}
