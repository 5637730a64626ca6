import { existsSync, readFileSync } from 'node:fs';
import { isObject, type JsonObject, objectsOf, parseJson } from '../shared/base/json.ts';
import type { Heading, Race, Sample } from './results.ts';

/** The races that an earlier run has written; none when there was no run. Throws on a file that isn't ours. */
export function readRaces(path: string): readonly Race[] {
  if (!existsSync(path)) return [];
  const written = parseJson(readFileSync(path, 'utf8'));
  if (!isObject(written)) throw new Error(`${path} holds no races: remove it.`);
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
