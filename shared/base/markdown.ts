import { formatBytes, formatDuration, quoteForeign } from './text.ts';
import type { Span } from './timeline.ts';

/** A table in GitHub's Markdown; `|` and line ends inside a cell are made harmless. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replace(/\s*\n\s*/g, ' ');
}

/** Text in code style that can't break out of it. */
export function code(text: string): string {
  return `\`${text.replaceAll('`', "'")}\``;
}

/**
 * A message as Markdown: code spans between single backticks stay, all else is text. Whoever's words are in it can't put links,
 * pictures, HTML or headings into a job summary.
 */
export function plain(message: string): string {
  const spans = message.replace(/`{2,}/g, "'").split(/(`[^`\n]*`)/);
  return spans
    .map((part, position) =>
      position % 2 === 1 ? part : part.replace(/[\\<>[\]&]/g, (char) => `&#${String(char.charCodeAt(0))};`),
    )
    .join('');
}

/** `sha256:` and 12 digits: enough to tell two images apart by eye. */
export function shortDigest(digest: string): string {
  return digest.slice(0, 'sha256:'.length + 12);
}

/** A layer as a summary shows it. */
interface TableLayer {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
}

/** The layers with their sizes, folded under one line of a job summary. */
export function layerTable(layers: readonly TableLayer[]): string {
  const rows = layers.map((layer, position) => [
    String(position + 1),
    code(shortDigest(layer.digest)),
    formatBytes(layer.size),
    layer.mediaType.split('.').at(-1) ?? '',
  ]);
  const table = markdownTable(['#', 'Digest', 'Size', 'Format'], rows);
  const count = `${String(rows.length)} ${rows.length === 1 ? 'layer' : 'layers'}`;
  return `<details><summary>${count}</summary>\n\n${table}\n\n</details>`;
}

/** A part of a chart, under a name of its own. */
export interface ChartSection {
  readonly name: string;
  readonly spans: readonly Span[];
}

/**
 * Where the time went, as a chart that GitHub draws (Mermaid gantt; `x` is ms since the epoch).
 * @param before what others did, on the same clock, which may be before 0: then the chart has sections, and `own` is the last one's name
 */
export function gantt(spans: readonly Span[], before: readonly ChartSection[] = [], own = ''): string {
  if (spans.length === 0) return '';
  const sections = [...before, { name: own, spans }];
  const all = sections.flatMap((section) => section.spans);
  const [first, last] = [Math.min(0, ...all.map(({ startMs }) => startMs)), Math.max(...all.map(({ endMs }) => endMs))];
  const titles = before.length === 0 ? [] : sections.map(({ name }) => quoteForeign(chartWord(name), longestName));
  const tasks = sections.flatMap(({ spans: of }, section) => [
    ...(titles.length === 0 ? [] : [`    section ${titles[section] ?? ''}`]),
    ...of.map((span, position) => {
      const start = Math.round(span.startMs - first);
      const end = Math.max(start + 1, Math.round(span.endMs - first));
      const id = before.length === 0 ? `t${String(position)}` : `t${String(section)}x${String(position)}`;
      return `    ${chartWord(span.name)} (${formatDuration(end - start)}) :${id}, ${String(start)}, ${String(end)}`;
    }),
  ]);
  return [
    '```mermaid',
    ...(titles.length === 0 ? [] : [`%%{init: {"gantt": {"leftPadding": ${String(roomFor(titles))}}}}%%`]),
    'gantt',
    '    dateFormat x',
    `    axisFormat ${last - first > 60_000 ? '%M:%S' : '%S.%L s'}`,
    ...tasks,
    '```',
  ].join('\n');
}

// Mermaid writes the sections' names left of the bars, and over them where they are longer than its own 75 pixels; a letter has about six
// (mermaid, packages/mermaid/src/schemas/config.schema.yaml, GanttDiagramConfig).
const longestName = 40;

function roomFor(names: readonly string[]): number {
  return Math.max(75, 14 + 6 * Math.max(...names.map((name) => name.length)));
}

// What would end a task's name.
function chartWord(text: string): string {
  return text.replace(/[:;#,]/g, ' ');
}
