// What a race has measured, as data: what runs one makes it, tables and plots show it, results keep it.

/** One turn of one contender. */
export interface Sample {
  readonly ms: number;
  /** CPU of its own processes, without the engines. */
  readonly cpuSeconds: number;
  /** Bytes of artifacts that it downloaded. */
  readonly downloaded: number;
  readonly peakMemoryKb?: number;
}

export interface Series {
  readonly name: string;
  readonly samples: readonly Sample[];
}

export interface Heading {
  readonly what: string;
  /** Of the unpacked image. */
  readonly megabytes: number;
  readonly store: string;
  readonly link: string;
  readonly rounds: number;
  /** Bytes of our tarball. */
  readonly tarball: number;
}

export interface Race {
  readonly heading: Heading;
  /** The day on which it was run, as 2026-01-31. */
  readonly day: string;
  readonly series: readonly Series[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] =
    sorted.length % 2 === 1 ? [sorted[middle], sorted[middle]] : [sorted[middle - 1], sorted[middle]];
  return (low + high) / 2;
}

/** The median time of a contender in ms; NaN when it didn't run. */
export function timeOf(race: Race, name: string): number {
  const times = race.series.find((series) => series.name === name)?.samples.map(({ ms }) => ms) ?? [];
  return times.length === 0 ? Number.NaN : median(times);
}
