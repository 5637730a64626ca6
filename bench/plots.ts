import { docsRecipe, linkedPull } from './contenders.ts';
import { type Race, timeOf } from './measured.ts';
import { seconds, titleOf } from './tables.ts';

const colours = { ours: '#2da44e', other: '#0969da', floor: '#afb8c1' } as const;

function colourOf(name: string): string {
  if (name === 'ours' || name === 'auto') return colours.ours;
  return /^(?:floor|the link)/.test(name) ? colours.floor : colours.other;
}

/** Draws the races as SVG bars: one group for each race, with its own scale. */
export function barsPlot(races: readonly Race[]): string {
  const parts: string[] = [];
  let y = 10;
  for (const race of races) {
    const times = race.series.map(({ name }) => timeOf(race, name));
    parts.push(`<text x="10" y="${String(y + 14)}" font-weight="bold">${escape(titleOf(race.heading))}</text>`);
    y += 24;
    race.series.forEach(({ name }, position) => {
      const width = Math.round(((times[position] ?? 0) / Math.max(...times)) * 400);
      parts.push(`<text x="300" y="${String(y + 12)}" text-anchor="end">${escape(name)}</text>`);
      parts.push(`<rect x="310" y="${String(y)}" width="${String(width)}" height="15" fill="${colourOf(name)}"/>`);
      parts.push(`<text x="${String(316 + width)}" y="${String(y + 12)}">${seconds(times[position] ?? 0)} s</text>`);
      y += 20;
    });
    y += 14;
  }
  return svg(790, y, parts);
}

/** Contenders in the README's plot, with names for readers. */
const glance: readonly (readonly [string, string])[] = [
  ['ours', 'Image Handover'],
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
  const parts = [
    '<text x="10" y="22" fill="#59636e">1 GB image, 100 MB/s link, two cores: seconds, less is better</text>',
  ];
  let y = 38;
  for (const { title, times } of bars) {
    parts.push(`<text x="10" y="${String(y + 15)}" font-weight="bold" font-size="14">${escape(title)}</text>`);
    for (const { name, label, ms } of times) {
      const width = Math.round((ms / most) * 330);
      parts.push(`<text x="375" y="${String(y + 15)}" text-anchor="end">${escape(label)}</text>`);
      parts.push(
        `<rect x="385" y="${String(y)}" width="${String(width)}" height="20" rx="2" fill="${colourOf(name)}"/>`,
      );
      parts.push(
        `<text x="${String(392 + width)}" y="${String(y + 15)}"${name === 'ours' ? ' font-weight="bold"' : ''}>${seconds(ms)} s</text>`,
      );
      y += 24;
    }
    y += 14;
  }
  return svg(790, y, parts);
}

const chart = { width: 330, height: 190, left: 50 } as const;

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
    slopeChart(kind.title, kind.races, (position % 2) * 390, Math.floor(position / 2) * 270),
  );
  return svg(790, 550, parts);
}

function slopeChart(title: string, races: readonly Race[], left: number, top: number): readonly string[] {
  const names = races[0]?.series.map(({ name }) => name).filter((name) => inSlope.test(name)) ?? [];
  const most = Math.max(1, ...races.flatMap((race) => names.map((name) => timeOf(race, name))));
  const largest = Math.max(1, ...races.map(({ heading }) => heading.megabytes));
  const x = (megabytes: number): number => left + chart.left + (megabytes / largest) * (chart.width - 20);
  const y = (ms: number): number => top + 30 + chart.height - (ms / most) * chart.height;
  const lines = names.map((name) => {
    const points = races.map((race) => `${x(race.heading.megabytes).toFixed(0)},${y(timeOf(race, name)).toFixed(0)}`);
    const dots = points
      .map((point) => point.split(','))
      .map(([cx = '', cy = '']) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colourOf(name)}"/>`);
    return `<polyline points="0 ${points.join(' ')}" fill="none" stroke="${colourOf(name)}" stroke-width="2"/>${dots.join('')}`.replace(
      'points="0 ',
      `points="${x(0).toFixed(0)},${y(0).toFixed(0)} `,
    );
  });
  const axis = `<path d="M${x(0).toFixed(0)} ${y(most).toFixed(0)}V${y(0).toFixed(0)}H${x(largest).toFixed(0)}" fill="none" stroke="black"/>`;
  const ticks = races.map(
    ({ heading }) =>
      `<text x="${x(heading.megabytes).toFixed(0)}" y="${(y(0) + 15).toFixed(0)}" text-anchor="middle">${String(heading.megabytes)}</text>`,
  );
  const legend = names.map(
    (name, at) =>
      `<text x="${String(left + chart.left + 10)}" y="${String(top + 45 + at * 15)}" fill="${colourOf(name)}">${escape(name)}</text>`,
  );
  return [
    `<text x="${String(left + 10)}" y="${String(top + 16)}" font-weight="bold">${escape(title)}: seconds by MB</text>`,
    `<text x="${String(left + chart.left - 5)}" y="${(y(most) + 5).toFixed(0)}" text-anchor="end">${seconds(most)}</text>`,
    axis,
    ...ticks,
    ...lines,
    ...legend,
  ];
}

function svg(width: number, height: number, parts: readonly string[]): string {
  const size = `width="${String(width)}" height="${String(height)}"`;
  const open = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12">`;
  return [open, `<rect ${size} fill="white"/>`, ...parts, '</svg>', ''].join('\n');
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
