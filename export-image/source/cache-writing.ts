import { notWritten } from '../plan/cache.ts';
import { messageOf } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { formatDuration } from '../../shared/base/text.ts';
import type { CacheWriter } from '../../shared/docker/buildx.ts';

/** A cache, and the build that writes it. */
export interface CacheBuild {
  readonly cache: string;
  readonly write: (writer: CacheWriter) => Promise<string | undefined>;
}

/** Caches that are written when the image is there; nothing that becomes of them is thrown. */
export interface CacheWriting extends AsyncDisposable {
  /** Begins to write, unless that was done before. */
  begin(): void;
  /** Waits for the end. Returns a sentence for each cache that wasn't written. */
  problems(): Promise<readonly string[]>;
}

/** Writes caches one after the other: they share the builder, and most of their blobs. When it is disposed of, it stops at once. */
export function cacheWriting(builds: readonly CacheBuild[], log: Log): CacheWriting {
  const stop = new AbortController();
  let work: Promise<readonly string[]> | undefined;
  const begin = (): Promise<readonly string[]> => (work ??= writeAll(builds, log, stop.signal));
  return {
    begin: () => void begin(),
    problems: () => begin(),
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
    const why = await write({ signal }).catch(messageOf);
    if (why !== undefined) problems.push(notWritten(cache, why));
    else log.info(`Wrote the build cache in ${formatDuration(performance.now() - began)}`);
  }
  return problems;
}
