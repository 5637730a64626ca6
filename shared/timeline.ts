/** One stretch of work, in ms since the timeline began. */
export interface Span {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** Remembers where the time went. */
export interface Timeline {
  measure<T>(name: string, work: () => Promise<T>): Promise<T>;
  spans(): readonly Span[];
}

export function timeline(): Timeline {
  const began = performance.now();
  const spans: Span[] = [];
  return {
    measure: async (name, work) => {
      const startMs = performance.now() - began;
      try {
        return await work();
      } finally {
        spans.push({ name, startMs, endMs: performance.now() - began });
      }
    },
    spans: () => spans,
  };
}

/** The same timeline for one of several works at once: each stretch begins with the name. */
export function namedTimeline(timeline: Timeline, name: string): Timeline {
  return { ...timeline, measure: (what, work) => timeline.measure(`${name} ${what}`, work) };
}
