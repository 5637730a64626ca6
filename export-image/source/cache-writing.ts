import { notWritten } from '../plan/cache.ts';
import { messageOf } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { formatDuration } from '../../shared/base/text.ts';

/** The build caches of an image that was built. */
export interface UsedCaches {
  /** A sentence for each cache that was not read or not written. */
  readonly problems: readonly string[];
  /** The caches that are still to be written. */
  readonly builds: readonly CacheBuild[];
}

/** A cache, and the build that writes it. */
export interface CacheBuild {
  readonly cache: string;
  /** Returns why it failed; undefined if the cache was written. */
  readonly write: (signal: AbortSignal) => Promise<string | undefined>;
}

/** Writes caches after the image is built. No failure is thrown. */
export interface CacheWriting extends AsyncDisposable {
  /** Starts writing, unless it has started before. */
  begin(): void;
  /** Waits for the end. Returns a sentence for each cache that was not read or not written. */
  problems(): Promise<readonly string[]>;
}

/** Writes caches one after another, because they share the builder and most of their blobs. Disposing stops it. */
export function cacheWriting({ builds, problems }: UsedCaches, log: Log): CacheWriting {
  const stop = new AbortController();
  let work: Promise<readonly string[]> | undefined;
  let isWriting = builds.length > 0;
  const begin = (): Promise<readonly string[]> =>
    (work ??= writeAll(builds, log, stop.signal).finally(() => (isWriting = false)));
  return {
    begin: () => void begin(),
    problems: async () => {
      const written = begin();
      if (isWriting) log.info('The image is handed over. Waiting for the build cache.');
      return [...problems, ...(await written)];
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await work;
    },
  };
}

async function writeAll(builds: readonly CacheBuild[], log: Log, signal: AbortSignal): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const { cache, write } of builds) {
    if (signal.aborted) break;
    const began = performance.now();
    const why = await write(signal).catch(messageOf);
    if (why !== undefined) problems.push(notWritten(cache, why));
    else log.info(`Wrote the build cache in ${formatDuration(performance.now() - began)}`);
  }
  return problems;
}
