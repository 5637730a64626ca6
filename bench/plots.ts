import { docsRecipe, linkedPull, tunedRecipe } from './contenders.ts';
import { type Race, timeOf } from './measured.ts';
import { seconds, titleOf } from './tables.ts';

/** Colours by class, for a light and a dark page. */
const style = [
  'svg{color:#1f2328;background:#fff}.quiet{color:#59636e}.ours{color:#1a7f37}.other{color:#0969da}.floor{color:#818b98}',
  '@media(prefers-color-scheme:dark){svg{color:#f0f6fc;background:#0d1117}.quiet{color:#9198a1}.ours{color:#3fb950}.other{color:#4493f8}.floor{color:#8b949e}}',
].join('');

function classOf(name: string): string {
  if (name === 'ours' || name === 'auto') return 'ours';
  return /^(?:floor|the link)/.test(name) ? 'floor' : 'other';
}

/** Draws the races as SVG bars: one group for each race, with its own scale. */
export function barsPlot(races: readonly Race[]): string {
  const parts: string[] = [];
  let y = 10;
  for (const race of races) {
    const times = race.series.map(({ name }) => timeOf(race, name));
    parts.push(text(10, y + 14, titleOf(race.heading), 'font-weight="bold"'));
    y += 24;
    race.series.forEach(({ name }, position) => {
      const ms = times[position] ?? 0;
      const width = Math.round((ms / Math.max(...times)) * 400);
      parts.push(text(300, y + 12, name, 'text-anchor="end"'), bar(310, y, width, 15, name));
      parts.push(text(316 + width, y + 12, `${seconds(ms)} s`));
      y += 20;
    });
    y += 14;
  }
  return svg(790, y, parts);
}

/** Contenders in the README's plot, with the names that it shows. */
const glance: readonly (readonly [string, string])[] = [
  ['ours', 'Image Handover'],
  [tunedRecipe, 'tuned recipe (no zip compression)'],
  [docsRecipe, 'recipe of Docker’s docs'],
  [linkedPull, 'docker pull, same link'],
];

/** Draws four races of the 1 GB image over the slow link on one scale: handover and load, with both image stores. */
export function glancePlot(races: readonly Race[]): string {
  const chosen = ['Producer', 'Consumer'].flatMap((what) =>
    ['containerd', 'classic'].flatMap((store) =>
      races.filter(
        ({ heading }) =>
          heading.what === what && heading.store === store && heading.link === 'limited' && heading.megabytes === 1000,
      ),
    ),
  );
  const bars = chosen.map((race) => ({
    title: `${race.heading.what === 'Producer' ? 'Hand over' : 'Load'}, ${race.heading.store} store`,
    times: glance
      .map(([name, label]) => ({ name, label, ms: timeOf(race, name) }))
      .filter(({ ms }) => !Number.isNaN(ms)),
  }));
  const most = Math.max(1, ...bars.flatMap(({ times }) => times.map(({ ms }) => ms)));
  const days = [...new Set(chosen.map(({ day }) => day))].sort().join(', ');
  const about = `1 GB image, 100 MB/s link, two cores, ${days}: seconds, lower is better`;
  const parts = [text(10, 22, about, 'class="quiet"')];
  let y = 38;
  for (const { title, times } of bars) {
    parts.push(text(10, y + 15, title, 'font-weight="bold" font-size="14"'));
    for (const { name, label, ms } of times) {
      const width = Math.round((ms / most) * 310);
      parts.push(text(395, y + 15, label, 'text-anchor="end"'), bar(405, y, width, 20, name));
      parts.push(text(412 + width, y + 15, `${seconds(ms)} s`, name === 'ours' ? 'font-weight="bold"' : ''));
      y += 24;
    }
    y += 14;
  }
  return svg(790, y, parts);
}

const chart = { width: 330, height: 190, left: 50, top: 75 } as const;

/** Contenders in the slope plot. */
export const inSlope = /^ours$|^docs|^floor/;

/** Plots time against size on the unlimited link, one chart for each kind of race and store. */
export function slopePlot(races: readonly Race[]): string {
  const kinds = ['Producer', 'Consumer'].flatMap((what) =>
    ['containerd', 'classic'].map((store) => ({
      title: `${what}, ${store} store`,
      races: races
        .filter(({ heading }) => heading.what === what && heading.store === store && heading.link === 'unlimited')
        .sort((one, other) => one.heading.megabytes - other.heading.megabytes),
    })),
  );
  const parts = kinds.flatMap((kind, position) =>
    slopeChart(kind.title, kind.races, (position % 2) * 390, Math.floor(position / 2) * 310),
  );
  return svg(790, 620, parts);
}

/** Draws one chart: its title, its legend, and the lines below them. */
function slopeChart(title: string, races: readonly Race[], left: number, top: number): readonly string[] {
  const names = races[0]?.series.map(({ name }) => name).filter((name) => inSlope.test(name)) ?? [];
  const most = Math.max(1, ...races.flatMap((race) => names.map((name) => timeOf(race, name))));
  const largest = Math.max(1, ...races.map(({ heading }) => heading.megabytes));
  const x = (megabytes: number): number => Math.round(left + chart.left + (megabytes / largest) * (chart.width - 20));
  const y = (ms: number): number => Math.round(top + chart.top + chart.height - (ms / most) * chart.height);
  const lines = names.map((name) => {
    const points = races.map((race) => [x(race.heading.megabytes), y(timeOf(race, name))] as const);
    const line = [[x(0), y(0)] as const, ...points].map((point) => point.join(',')).join(' ');
    const dots = points.map(
      ([cx, cy]) => `<circle cx="${String(cx)}" cy="${String(cy)}" r="3" fill="currentColor" stroke="none"/>`,
    );
    return `<g class="${classOf(name)}" stroke="currentColor"><polyline points="${line}" fill="none" stroke-width="2"/>${dots.join('')}</g>`;
  });
  const axis = `M${String(x(0))} ${String(y(most))}V${String(y(0))}H${String(x(largest))}`;
  return [
    text(left + 10, top + 16, `${title}: seconds by MB`, 'font-weight="bold"'),
    ...names.map((name, at) => text(left + chart.left, top + 32 + at * 15, `— ${name}`, `class="${classOf(name)}"`)),
    text(left + chart.left - 5, y(most) + 5, seconds(most), 'text-anchor="end"'),
    `<path d="${axis}" fill="none" stroke="currentColor"/>`,
    ...races.map(({ heading: { megabytes } }) =>
      text(x(megabytes), y(0) + 15, String(megabytes), 'text-anchor="middle"'),
    ),
    ...lines,
  ];
}

function bar(x: number, y: number, width: number, height: number, name: string): string {
  const place = `x="${String(x)}" y="${String(y)}" width="${String(width)}" height="${String(height)}"`;
  return `<rect ${place} rx="2" class="${classOf(name)}"/>`;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${String(x)}" y="${String(y)}"${attributes === '' ? '' : ` ${attributes}`}>${escaped}</text>`;
}

function svg(width: number, height: number, parts: readonly string[]): string {
  const size = `width="${String(width)}" height="${String(height)}"`;
  const open = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12" fill="currentColor">`;
  return [open, `<style>${style}</style>`, ...parts, '</svg>', ''].join('\n');
}
