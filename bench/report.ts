/** Times of one contender, in ms, one per round. */
export interface Series {
  readonly name: string;
  readonly times: readonly number[];
  /** Peak memory of our own process over all rounds, kB; 0 when the contender isn't ours. */
  readonly peakMemoryKb: number;
}

export interface Race {
  readonly title: string;
  readonly series: readonly Series[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] =
    sorted.length % 2 === 1 ? [sorted[middle], sorted[middle]] : [sorted[middle - 1], sorted[middle]];
  return (low + high) / 2;
}

/** A race as a Markdown table: medians, spread, and ratios to the first contender (ours). */
export function raceTable({ title, series }: Race): string {
  const ours = median(series[0]?.times ?? []);
  const rows = series.map(({ name, times, peakMemoryKb }) => {
    const middle = median(times);
    const spread = `${seconds(Math.min(...times))}–${seconds(Math.max(...times))}`;
    const memory = peakMemoryKb === 0 ? '' : `${(peakMemoryKb / 1000).toFixed(0)} MB`;
    return `| ${name} | ${seconds(middle)} s | ${spread} | ${(ours / middle).toFixed(2)} | ${memory} |`;
  });
  const head = ['| | Median | Spread (s) | Ours as a part of it | Peak memory |', '| --- | --- | --- | --- | --- |'];
  return [`#### ${title}`, '', ...head, ...rows].join('\n');
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

/** The races as bars in SVG, one group per race. */
export function racePlot(races: readonly Race[]): string {
  const longest = Math.max(...races.flatMap(({ series }) => series.map(({ times }) => median(times))));
  const parts: string[] = [];
  let y = 10;
  for (const { title, series } of races) {
    parts.push(`<text x="10" y="${String(y + 14)}" font-weight="bold">${escape(title)}</text>`);
    y += 24;
    series.forEach(({ name, times }, position) => {
      const width = Math.round((median(times) / longest) * 420);
      const colour = position === 0 ? '#2da44e' : name.startsWith('floor') ? '#afb8c1' : '#0969da';
      parts.push(`<text x="270" y="${String(y + 12)}" text-anchor="end">${escape(name)}</text>`);
      parts.push(`<rect x="280" y="${String(y)}" width="${String(width)}" height="15" fill="${colour}"/>`);
      parts.push(`<text x="${String(286 + width)}" y="${String(y + 12)}">${seconds(median(times))} s</text>`);
      y += 20;
    });
    y += 14;
  }
  const open = `<svg xmlns="http://www.w3.org/2000/svg" width="780" height="${String(y)}" font-family="sans-serif" font-size="12">`;
  return [open, `<rect width="780" height="${String(y)}" fill="white"/>`, ...parts, '</svg>', ''].join('\n');
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
