import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Footprint } from './footprint.ts';
import { readRaces } from './earlier-races.ts';
import { barsPlot, slopePlot } from './plots.ts';
import { footprintTable, raceTable, summaryTable } from './tables.ts';

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

const orders = {
  what: ['Producer', 'Consumer', 'Consumer that has it', 'New layers, from build to test'],
  store: ['containerd', 'classic'],
  link: ['unlimited', 'limited'],
} as const;

/** By size, store, link and kind. */
function inOrder(races: readonly Race[]): readonly Race[] {
  const keyOf = ({ heading }: Race): readonly number[] => [
    heading.megabytes,
    ...(['store', 'link', 'what'] as const).map((part) => orders[part].findIndex((each) => each === heading[part])),
  ];
  return [...races].sort((one, other) => {
    const [ours, others] = [keyOf(one), keyOf(other)];
    const at = ours.findIndex((part, position) => part !== others[position]);
    return at < 0 ? 0 : (ours[at] ?? 0) - (others[at] ?? 0);
  });
}

function isSame({ heading: one }: Race, { heading: other }: Race): boolean {
  return (['megabytes', 'store', 'link', 'what'] as const).every((part) => one[part] === other[part]);
}

/**
 * What was measured; written anew after each race, so that a run that is cut short leaves what it has. The races of an
 * earlier run stay, each with its day, until they are run again.
 */
export class Results {
  readonly #name: string;
  #races: readonly Race[];
  #footprint: readonly Footprint[] = [];

  constructor(name: string) {
    this.#name = name;
    this.#races = readRaces(this.#path('.json'));
  }

  footprint(all: readonly Footprint[]): void {
    this.#footprint = all;
    console.log(footprintTable(all));
  }

  race(race: Race): void {
    this.#races = inOrder([...this.#races.filter((other) => !isSame(race, other)), race]);
    this.#save();
  }

  #path(suffix: string): string {
    return join(fileURLToPath(new URL('results/', import.meta.url)), `${this.#name}${suffix}`);
  }

  #save(): void {
    mkdirSync(dirname(this.#path('')), { recursive: true });
    const write = (suffix: string, text: string): void => {
      writeFileSync(this.#path(suffix), text);
    };
    const head =
      'Each race is one run: its contenders take turns, side by side, on a machine with two cores; medians. ' +
      'The slow link gives 100 MB/s in all, 60 MB/s a connection, and takes 10 ms. ' +
      'CPU is that of the contender’s own processes, without the engine.';
    const tables = [...this.#races.map(raceTable), footprintTable(this.#footprint)];
    write('.json', `${JSON.stringify({ races: this.#races }, null, 2)}\n`);
    write('.md', `${head}\n\n${tables.join('\n\n')}\n`);
    write('-summary.md', `${head}\n\n${summaryTable(this.#races)}\n\n${footprintTable(this.#footprint)}\n`);
    write('.svg', barsPlot(this.#races));
    if (new Set(this.#races.map(({ heading }) => heading.megabytes)).size > 1)
      write('-slope.svg', slopePlot(this.#races));
  }
}
