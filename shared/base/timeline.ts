/** One stretch of work, in ms since the timeline began. */
export interface Span {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** Remembers where the time went. */
export interface Timeline {
  /** @param name of the stretch; a function of the result, which a failure hasn't, where that tells what it was */
  measure<T>(name: string | ((result: T | undefined) => string), work: () => Promise<T>): Promise<T>;
  spans(): readonly Span[];
  /** When it began, in ms since the epoch. */
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
        // What failed took its time too: another place may come after it.
        const called = typeof name === 'string' ? name : name(result);
        spans.push({ name: called, startMs, endMs: performance.now() - began });
      }
    },
    spans: () => spans,
    began: Math.round(performance.timeOrigin + began),
  };
}

/** The same timeline for one of several works at once: each stretch begins with the name. */
export function namedTimeline(timeline: Timeline, name: string): Timeline {
  return {
    ...timeline,
    measure: (what, work) =>
      timeline.measure((result) => `${name} ${typeof what === 'string' ? what : what(result)}`, work),
  };
}
