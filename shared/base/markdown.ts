import { formatBytes, formatDuration } from './text.ts';
import type { Span } from './timeline.ts';

// Job summaries are GitHub's Markdown with foreign text: names in an artifact, messages of a registry, an image's platform. A summary
// consists of `Markdown`, which only this file creates. So the compiler rejects text that is not escaped.

const source = Symbol('source');

/** Markdown for any place in a line of a job summary. */
export interface Markdown {
  readonly [source]: string;
  readonly toString: () => string;
}

function made(text: string): Markdown {
  return { [source]: text, toString: () => text };
}

/** Creates Markdown from a template of this project, with safe parts. */
export function safe(own: TemplateStringsArray, ...parts: readonly Markdown[]): Markdown {
  return made(own.map((text, position) => `${text}${parts[position]?.[source] ?? ''}`).join(''));
}

/** Joins the parts that are not undefined. */
export function joined(parts: readonly (Markdown | undefined)[], between: '' | ', ' | '<br>' | '\n\n'): Markdown {
  const given = parts.filter((part) => part !== undefined);
  return made(given.map((part) => part[source]).join(between));
}

/**
 * Escapes any text. Code style protects everything that GitHub would convert to a link or a picture: addresses, mentions, references to
 * issues and commits, names of emoji (GFM, "Autolinks"; docs.github.com, "Autolinked references and URLs").
 */
export function words(text: string): Markdown {
  const parts = visible(text).split(/([\s"'(),;<>]+)/);
  const line = parts.map((part) => (isLively.test(part) ? code(part)[source] : escaped(part))).join('');
  // At the beginning of a line, some characters would start a list or a rule.
  return made(line.replace(/(?<=^\s*)[-+=]|(?<=^\s*\d+)[.)](?=\s|$)/, numbered));
}

const isLively = /[@$]|#\d|\b(?:GH|GHSA|CVE)-|:\/\/|www\.|\b(?:mailto|xmpp|tel):|:[\w+-]+:|\b[0-9a-f]{7,40}\b/i;

// A character reference never has a meaning in Markdown.
function escaped(text: string): string {
  return text.replace(/[\\`*_[\]<>#~|&]/g, numbered);
}

function numbered(mark: string): string {
  return `&#${String(mark.charCodeAt(0))};`;
}

/** Returns the text as one line, without characters that are invisible or change the text's direction. */
function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu, ' ').replace(/\s+/g, ' ');
}

/** Returns any text in code style. */
export function code(text: string): Markdown {
  return made(`\`${visible(text).replaceAll('`', "'") || ' '}\``);
}

/** Escapes a message. Text between single backticks becomes code. */
export function prose(message: string): Markdown {
  const spans = message.replace(/`{2,}/g, "'").split(/(`[^`\n]*`)/);
  return joined(
    spans.map((part, position) => (position % 2 === 1 ? code(part.slice(1, -1)) : words(part))),
    '',
  );
}

/** Returns a link if the address is a web address, otherwise the text. */
export function link(text: string, address: string): Markdown {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') return words(text);
  const target = url.href
    .replace(/[()<>\\|`]/g, (mark) => `%${mark.charCodeAt(0).toString(16)}`)
    .replaceAll('&', '&amp;');
  return safe`[${words(text)}](${made(target)})`;
}

/** Returns a table of the rows that are not undefined. Only the rows may contain foreign text. */
export function markdownTable(head: readonly string[], rows: readonly (readonly Markdown[] | undefined)[]): Markdown {
  const line = (cells: readonly Markdown[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return made(
    [line(head.map(words)), line(head.map(() => safe`---`)), ...rows.filter((row) => row !== undefined).map(line)].join(
      '\n',
    ),
  );
}

// Only code can still contain bars. A backslash before a bar would escape the backslash that escapes the bar (GFM, "Tables").
function cell(markdown: Markdown): string {
  return markdown[source].replace(/(\\*)\|/g, '$1$1\\|');
}

interface TableLayer {
  readonly digest: string;
  /** In bytes. */
  readonly size: number;
  readonly mediaType: string;
}

/** Returns a collapsible table of layers. */
export function layerTable(layers: readonly TableLayer[]): Markdown {
  const rows = layers.map((layer, position) => [
    words(String(position + 1)),
    code(layer.digest.slice(0, 'sha256:'.length + 12)),
    words(formatBytes(layer.size)),
    words(layer.mediaType.split('.').at(-1) ?? ''),
  ]);
  const count = words(`${String(rows.length)} ${rows.length === 1 ? 'layer' : 'layers'}`);
  return safe`<details><summary>${count}</summary>\n\n${markdownTable(['#', 'Digest', 'Size', 'Format'], rows)}\n\n</details>`;
}

/** Returns a table row about an artifact; `size` is in bytes. */
export function artifactRow(artifact: {
  readonly id: number;
  readonly name: string;
  readonly size: number;
}): readonly Markdown[] {
  const { id, name, size } = artifact;
  return [safe`Artifact`, safe`${code(name)}${words(` (id ${String(id)}), ${formatBytes(size)}`)}`];
}

/** Returns a page of the sections that are not undefined, and a chart of the time spent. */
export function page(sections: readonly (Markdown | undefined)[], spans: readonly Span[]): Markdown {
  return joined([...sections, gantt(spans), safe``], '\n\n');
}

// GitHub renders the chart (Mermaid gantt; `x` is ms since the epoch).
function gantt(spans: readonly Span[]): Markdown {
  if (spans.length === 0) return safe``;
  const tasks = spans.map((span, position) => {
    const start = Math.round(span.startMs);
    const end = Math.max(start + 1, Math.round(span.endMs));
    return `    ${chartWord(span.name)} (${formatDuration(end - start)}) :t${String(position)}, ${String(start)}, ${String(end)}`;
  });
  const isLong = spans.some(({ endMs }) => endMs > 60_000);
  const axis = `    axisFormat ${isLong ? '%M:%S' : '%S.%L s'}`;
  return made(['```mermaid', 'gantt', '    dateFormat x', axis, ...tasks, '```'].join('\n'));
}

// Keeps letters, digits and punctuation without a meaning in Mermaid.
function chartWord(text: string): string {
  return text.replace(/[^\p{L}\p{N} ._/()+-]+/gu, ' ');
}
