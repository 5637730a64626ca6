import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bareExport, linkAlone, loadFloor, withoutOverlap } from './contenders.ts';
import type { Footprint } from './footprint.ts';
import { barsPlot, slopePlot } from './plots.ts';

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

export function titleOf({ what, megabytes, store, link, tarball }: Heading): string {
  const size = tarball === 0 ? '' : ` (tarball ${(tarball / 1e6).toFixed(0)} MB)`;
  return `${what}, ${String(megabytes)} MB image${size}, ${store} store, ${link} link`;
}

/** A race as a Markdown table: medians, spread, and ratios to the first contender (ours). */
export function raceTable({ heading, series }: Race): string {
  const first = median(series[0]?.samples.map(({ ms }) => ms) ?? []);
  const rows = series.map(({ name, samples }) => {
    const times = samples.map(({ ms }) => ms);
    const peak = Math.max(0, ...samples.map(({ peakMemoryKb }) => peakMemoryKb ?? 0));
    const cells = [
      name,
      `${seconds(median(times))} s`,
      `${seconds(Math.min(...times))}–${seconds(Math.max(...times))}`,
      (first / median(times)).toFixed(2),
      `${median(samples.map(({ cpuSeconds }) => cpuSeconds)).toFixed(1)} s`,
      bytes(median(samples.map(({ downloaded }) => downloaded))),
      peak === 0 ? '' : `${(peak / 1000).toFixed(0)} MB`,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const names = ['', 'Median', 'Spread (s)', 'First as a part of it', 'CPU', 'Downloaded', 'Peak memory'];
  const head = [`| ${names.join(' | ')} |`, `|${' --- |'.repeat(names.length)}`];
  return [`#### ${titleOf(heading)}, ${String(heading.rounds)} rounds`, '', ...head, ...rows].join('\n');
}

export function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

function bytes(count: number): string {
  if (count === 0) return '';
  return count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(0)} MB`;
}

/** What one run measured; written anew after each race, so that a run that is cut short leaves what it has. */
export class Results {
  readonly #name: string;
  readonly #rounds: number;
  readonly #races: Race[] = [];
  #footprint: readonly Footprint[] = [];

  constructor(name: string, rounds: number) {
    this.#name = name;
    this.#rounds = rounds;
  }

  footprint(all: readonly Footprint[]): void {
    this.#footprint = all;
    console.log(footprintTable(all));
  }

  race(race: Race): void {
    this.#races.push(race);
    this.#save();
  }

  #save(): void {
    const folder = fileURLToPath(new URL('results/', import.meta.url));
    mkdirSync(folder, { recursive: true });
    const write = (suffix: string, text: string): void => {
      writeFileSync(join(folder, `${this.#name}${suffix}`), text);
    };
    const head =
      `${String(this.#rounds)} rounds (one for 4000 MB), side by side in one run on a machine with two cores, medians. ` +
      'The slow link gives 100 MB/s in all, 60 MB/s a connection, and takes 10 ms. ' +
      'CPU is that of the contender’s own processes, without the engine.';
    const tables = [...this.#races.map(raceTable), footprintTable(this.#footprint)];
    write('.md', `${head}\n\n${tables.join('\n\n')}\n`);
    write('-summary.md', `${head}\n\n${summaryTable(this.#races)}\n\n${footprintTable(this.#footprint)}\n`);
    write('.json', `${JSON.stringify({ races: this.#races, footprint: this.#footprint }, null, 2)}\n`);
    write('.svg', barsPlot(this.#races));
    if (new Set(this.#races.map(({ heading }) => heading.megabytes)).size > 1)
      write('-slope.svg', slopePlot(this.#races));
  }
}

/** Ours beside what people use and beside the floors, a row per race. */
function summaryTable(races: readonly Race[]): string {
  const rows = races.flatMap((race) => {
    const ours = timeOf(race, 'ours');
    if (Number.isNaN(ours)) return [];
    const part = (ms: number): string => (Number.isNaN(ms) ? '' : (ours / ms).toFixed(2));
    const floor = timeOf(race, loadFloor);
    const cells = [
      titleOf(race.heading),
      `${seconds(ours)} s`,
      part(timeOf(race, 'docs recipe (zip level 6)')),
      part(timeOf(race, 'tuned recipe (zip level 0)')),
      part(timeOf(race, 'docker pull from a loopback registry')),
      part(Number.isNaN(floor) ? timeOf(race, bareExport) + timeOf(race, linkAlone) : floor),
      part(timeOf(race, withoutOverlap)),
    ];
    return [`| ${cells.join(' | ')} |`];
  });
  const others = ['the docs recipe', 'the tuned recipe', 'docker pull', 'the floor', '`overlap: false`'];
  const names = ['', 'Ours', ...others.map((name) => `of ${name}`)];
  return [`| ${names.join(' | ')} |`, `|${' --- |'.repeat(names.length)}`, ...rows].join('\n');
}

function footprintTable(all: readonly Footprint[]): string {
  const rows = all.map(({ action, startMs, entryBytes, laterBytes }) => {
    const [entry, later] = [entryBytes, laterBytes].map((count) => `${(count / 1e6).toFixed(1)} MB`);
    return `| ${action} | ${startMs.toFixed(0)} ms | ${entry ?? ''} | ${later ?? ''} |`;
  });
  const head = [
    '| | Start to the first input error | Read at the start | Read only when needed |',
    '| --- | --- | --- | --- |',
  ];
  return ['#### Footprint', '', ...head, ...rows].join('\n');
}
