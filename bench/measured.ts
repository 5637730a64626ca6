// Measurements of a race: `race` takes them, tables and plots show them, and `Results` stores them.

/** Measurements of one turn of a contender. */
export interface Sample {
  readonly ms: number;
  /** CPU time of the contender's processes, excluding engines. */
  readonly cpuSeconds: number;
  /** Artifact bytes that it downloaded. */
  readonly downloaded: number;
  readonly peakMemoryKb?: number;
}

export interface Series {
  readonly name: string;
  readonly samples: readonly Sample[];
}

export interface Heading {
  readonly what: string;
  /** Size of the unpacked image. */
  readonly megabytes: number;
  readonly store: string;
  readonly link: string;
  readonly rounds: number;
  /** Size of the tarball in bytes. */
  readonly tarball: number;
}

export interface Race {
  readonly heading: Heading;
  /** Date of the run, such as 2026-01-31. */
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

/** Returns the median time of a contender in ms, or NaN if it didn't run. */
export function timeOf(race: Race, name: string): number {
  const times = race.series.find((series) => series.name === name)?.samples.map(({ ms }) => ms) ?? [];
  return times.length === 0 ? Number.NaN : median(times);
}
