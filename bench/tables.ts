import {
  bareExport,
  cacheAndRebuild,
  docsRecipe,
  linkAlone,
  linkedPull,
  loadFloor,
  loopbackPull,
  tunedRecipe,
  withoutOverlap,
} from './contenders.ts';
import type { Footprint } from './footprint.ts';
import { type Heading, median, type Race, type Sample, timeOf } from './measured.ts';

export function titleOf({ what, megabytes, store, link, tarball }: Heading): string {
  const size = tarball === 0 ? '' : ` (tarball ${(tarball / 1e6).toFixed(0)} MB)`;
  return `${what}, ${String(megabytes)} MB image${size}, ${store} store, ${link} link`;
}

/** Returns a race as a Markdown table: medians, spread, and ratios to the first contender. */
export function raceTable({ heading, series, day }: Race): string {
  const first = median(series[0]?.samples.map(({ ms }) => ms) ?? []);
  const rows = series.map(({ name, samples }) => {
    const times = samples.map(({ ms }) => ms);
    const cells = [
      name,
      `${seconds(median(times))} s`,
      `${seconds(Math.min(...times))}–${seconds(Math.max(...times))}`,
      (first / median(times)).toFixed(2),
      `${median(samples.map(({ cpuSeconds }) => cpuSeconds)).toFixed(1)} s`,
      ...movedAndHeld(samples),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const names = ['', 'Median', 'Spread (s)', 'Ratio of first to this', 'CPU', 'Downloaded', 'Peak memory'];
  const head = [`| ${names.join(' | ')} |`, `|${' --- |'.repeat(names.length)}`];
  return [`#### ${titleOf(heading)}, ${roundsOf(heading)}, ${day}`, '', ...head, ...rows].join('\n');
}

function movedAndHeld(samples: readonly Sample[]): readonly [downloaded: string, peakMemory: string] {
  const peak = Math.max(0, ...samples.map(({ peakMemoryKb }) => peakMemoryKb ?? 0));
  return [
    bytes(median(samples.map(({ downloaded }) => downloaded))),
    peak === 0 ? '' : `${(peak / 1000).toFixed(0)} MB`,
  ];
}

/** Returns every time of every contender in seconds. On a busy machine, pairs from one round show more than medians. */
export function roundByRound({ series }: Race): string {
  return series.map(({ name, samples }) => `${name}: ${samples.map(({ ms }) => seconds(ms)).join(', ')}`).join('\n');
}

function roundsOf({ rounds }: Heading): string {
  return rounds === 1 ? '1 round' : `${String(rounds)} rounds`;
}

export function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

function bytes(count: number): string {
  if (count === 0) return '';
  return count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(0)} MB`;
}

/** Compares this project with common recipes and lower bounds, one row for each race. */
export function summaryTable(races: readonly Race[]): string {
  const rows = races.flatMap((race) => {
    const ours = timeOf(race, 'ours');
    if (Number.isNaN(ours)) return [];
    const part = (ms: number): string => (Number.isNaN(ms) ? '' : (ours / ms).toFixed(2));
    const floor = timeOf(race, loadFloor);
    const cells = [
      titleOf(race.heading),
      `${seconds(ours)} s`,
      part(timeOf(race, docsRecipe)),
      part(timeOf(race, tunedRecipe)),
      part(timeOf(race, loopbackPull)),
      part(timeOf(race, linkedPull)),
      part(Number.isNaN(floor) ? timeOf(race, bareExport) + timeOf(race, linkAlone) : floor),
      part(timeOf(race, withoutOverlap)),
      ...movedAndHeld(race.series.find(({ name }) => name === 'ours')?.samples ?? []),
    ];
    return [`| ${cells.join(' | ')} |`];
  });
  const others = [
    'the docs recipe',
    'the tuned recipe',
    'docker pull',
    '`docker pull` over the link',
    'the floor',
    '`overlap: false`',
  ];
  const names = ['', 'Ours', ...others.map((name) => `ratio to ${name}`), 'Downloaded', 'Peak memory'];
  return [`| ${names.join(' | ')} |`, `|${' --- |'.repeat(names.length)}`, ...rows].join('\n');
}

/** Returns the README's race: 1 GB, containerd store, slow link. If the image is already present, the link is unlimited. */
function shown(races: readonly Race[], what: string): Race | undefined {
  const link = what === 'Consumer that already has it' ? 'unlimited' : 'limited';
  return races.find(
    ({ heading }) =>
      heading.what === what && heading.megabytes === 1000 && heading.store === 'containerd' && heading.link === link,
  );
}

/** Returns the README's speed table: this project, the docs recipe, and the tuned recipe. */
export function readmeTable(races: readonly Race[]): string {
  const rows = [
    ['Image Handover', 'ours'],
    ['the recipe in Docker’s documentation', docsRecipe],
    ['that recipe with `compression-level: 0`', tunedRecipe],
  ].map(([title = '', name = '']) => [
    title,
    ...['Producer', 'Consumer', 'Consumer that already has it'].map((what) => {
      const race = shown(races, what);
      return race === undefined ? '' : `${seconds(timeOf(race, name))} s`;
    }),
  ]);
  const names = ['1 GB image', 'The build job hands it over', 'A test job loads it', 'A warm runner already has it'];
  return table(names, rows);
}

/** Compares the ways to share an image between jobs: how long a test job waits, advantages and disadvantages. */
export function waysTable(races: readonly Race[]): string {
  const race = shown(races, 'Consumer');
  const wait = (name: string): string => {
    const ms = race === undefined ? Number.NaN : timeOf(race, name);
    return Number.isNaN(ms) ? 'not measured' : `${seconds(ms)} s`;
  };
  return table(
    ['Way', 'A test job waits', 'Advantages', 'Disadvantages'],
    [
      [
        'Registry: push, then pull',
        wait(linkedPull),
        'moves only missing layers; outlives the run',
        'a login in each job, so no forks; rate limits; tags to clean up',
      ],
      [
        'Build cache: build again in each job',
        wait(cacheAndRebuild),
        'nothing to hand over',
        'no proof that it is the same image; a cache miss is a full build; 10 GB of cache are free',
      ],
      [
        'Artifact: upload, then download',
        `${wait('ours')} with this project; ${wait(docsRecipe)} with the docs recipe, ${wait(tunedRecipe)} if tuned`,
        'no login; expires after a day; this project also proves that it is the same image',
        'the whole image is uploaded in each run; the recipes verify nothing',
      ],
      [
        'Matrix: each job builds for itself',
        'a full build',
        'simplest',
        'n builds, and the published image is not the one that was tested',
      ],
    ],
  );
}

/** Returns a Markdown table. */
export function table(names: readonly string[], rows: readonly (readonly string[])[]): string {
  return [names, names.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Returns a table of the bundles' sizes and start-up times. */
export function footprintTable(all: readonly Footprint[]): string {
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
