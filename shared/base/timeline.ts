import type { Log } from './log.ts';

/** One part of the work, in ms since the timeline began. */
export interface Span {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** Records how long parts of the work took. */
export interface Timeline {
  /** @param name the part's name, or a function that returns it, called with the result (undefined after a failure) */
  measure<T>(name: string | ((result: T | undefined) => string), work: () => Promise<T>): Promise<T>;
  spans(): readonly Span[];
  /** The beginning, in ms since the epoch. */
  readonly began: number;
}

export function timeline(): Timeline {
  const began = performance.now();
  const spans: Span[] = [];
  return {
    measure: async (name, work) => {
      const startMs = performance.now() - began;
      let result;
      try {
        result = await work();
        return result;
      } finally {
        // Failures are also recorded.
        const called = typeof name === 'string' ? name : name(result);
        spans.push({ name: called, startMs, endMs: performance.now() - began });
      }
    },
    spans: () => spans,
    began: Math.round(performance.timeOrigin + began),
  };
}

/** Returns the timeline for one of several parallel tasks: each part's name begins with the task's name. */
export function namedTimeline(timeline: Timeline, name: string): Timeline {
  return {
    ...timeline,
    measure: (what, work) =>
      timeline.measure((result) => `${name} ${typeof what === 'string' ? what : what(result)}`, work),
  };
}

/**
 * Runs one chapter of the log, and measures it.
 * @param span the name of the part; the title by default
 */
export function chapter<T>(
  { log, timeline }: { readonly log: Pick<Log, 'chapter'>; readonly timeline: Timeline },
  title: string,
  work: () => Promise<T>,
  span: Parameters<typeof timeline.measure<T>>[0] = title,
): Promise<T> {
  return log.chapter(title, () => timeline.measure(span, work));
}
