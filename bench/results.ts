import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isObject, type JsonObject, objectsOf, parseJson } from '../shared/base/json.ts';
import type { Footprint } from './footprint.ts';
import type { Heading, Race, Sample } from './measured.ts';
import { barsPlot, glancePlot, slopePlot } from './plots.ts';
import { footprintTable, raceTable, readmeTable, summaryTable, waysTable } from './tables.ts';

const orders = {
  what: ['Producer', 'Consumer', 'Consumer that already has it', 'New layers, from build to test'],
  store: ['containerd', 'classic'],
  link: ['unlimited', 'limited'],
} as const;

/** Sorts races by size, store, link and kind. */
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
 * Stores the measurements after each race, so an interrupted run keeps its results. Races of an earlier run are kept, each
 * with its date, until they are repeated.
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

  /** Writes the plots, and the tables of the README. */
  draw(): void {
    if (this.#name === 'full') {
      this.#write('-readme.md', `${readmeTable(this.#races)}\n`);
      this.#write('-ways.md', `${waysTable(this.#races)}\n`);
      this.#write('-glance.svg', glancePlot(this.#races));
    }
    this.#write('.svg', barsPlot(this.#races));
    if (new Set(this.#races.map(({ heading }) => heading.megabytes)).size > 1)
      this.#write('-slope.svg', slopePlot(this.#races));
  }

  #write(suffix: string, text: string): void {
    writeFileSync(this.#path(suffix), text);
  }

  #path(suffix: string): string {
    return join(fileURLToPath(new URL('results/', import.meta.url)), `${this.#name}${suffix}`);
  }

  #save(): void {
    mkdirSync(dirname(this.#path('')), { recursive: true });
    const write = (suffix: string, text: string): void => {
      this.#write(suffix, text);
    };
    this.draw();
    const head =
      'Each race is one run on a machine with two cores, in which the contenders take turns. Times are medians. ' +
      'The slow link has 100 MB/s in total, 60 MB/s per connection, and a latency of 10 ms. ' +
      'CPU is the time of the contender’s own processes, excluding the engine.';
    const tables = [...this.#races.map(raceTable), footprintTable(this.#footprint)];
    write('.json', `${JSON.stringify({ races: this.#races }, null, 2)}\n`);
    write('.md', `${head}\n\n${tables.join('\n\n')}\n`);
    write('-summary.md', `${head}\n\n${summaryTable(this.#races)}\n\n${footprintTable(this.#footprint)}\n`);
  }
}

/** Reads the races of an earlier run, if any. Throws if the file has another format. */
function readRaces(path: string): readonly Race[] {
  if (!existsSync(path)) return [];
  const written = parseJson(readFileSync(path, 'utf8'));
  if (!isObject(written)) throw new Error(`${path} contains no races: remove it.`);
  return objectsOf(written['races']).map((race) => ({
    heading: headingOf(isObject(race['heading']) ? race['heading'] : {}),
    day: textOf(race, 'day'),
    series: objectsOf(race['series']).map((series) => ({
      name: textOf(series, 'name'),
      samples: objectsOf(series['samples']).map(sampleOf),
    })),
  }));
}

function headingOf(heading: JsonObject): Heading {
  return {
    what: textOf(heading, 'what'),
    megabytes: numberOf(heading, 'megabytes'),
    store: textOf(heading, 'store'),
    link: textOf(heading, 'link'),
    rounds: numberOf(heading, 'rounds'),
    tarball: numberOf(heading, 'tarball'),
  };
}

function sampleOf(sample: JsonObject): Sample {
  return {
    ms: numberOf(sample, 'ms'),
    cpuSeconds: numberOf(sample, 'cpuSeconds'),
    downloaded: numberOf(sample, 'downloaded'),
    ...(sample['peakMemoryKb'] === undefined ? {} : { peakMemoryKb: numberOf(sample, 'peakMemoryKb') }),
  };
}

function textOf(object: JsonObject, name: string): string {
  const value = object[name];
  if (typeof value === 'string') return value;
  throw new Error(`An earlier race has no "${name}".`);
}

function numberOf(object: JsonObject, name: string): number {
  const value = object[name];
  if (typeof value === 'number') return value;
  throw new Error(`An earlier race has no "${name}".`);
}
