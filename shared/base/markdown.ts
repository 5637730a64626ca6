import { formatBytes, formatDuration } from './text.ts';
import type { Span } from './timeline.ts';

// Job summaries are GitHub's Markdown, and much of what is in them is text of others: names in an artifact, words of a registry, an image's
// platform. So a summary is made of `Markdown` alone, which only this room makes: the compiler refuses a text that wasn't made safe here.

const source = Symbol('source');

/** Markdown that can be put anywhere into a line of a job summary. */
export interface Markdown {
  readonly [source]: string;
  readonly toString: () => string;
}

function made(text: string): Markdown {
  return { [source]: text, toString: () => text };
}

/** A template of this project's own words, with parts that are safe. */
export function safe(own: TemplateStringsArray, ...parts: readonly Markdown[]): Markdown {
  return made(own.map((text, position) => `${text}${parts[position]?.[source] ?? ''}`).join(''));
}

/** Parts with something of ours between them. */
export function joined(parts: readonly Markdown[], between: '' | ', ' | '<br>' | '\n\n'): Markdown {
  return made(parts.map((part) => part[source]).join(between));
}

/**
 * Any text, as text. What GitHub would make a link or a picture of is put into code style, where it makes none: addresses, mentions,
 * references to issues and commits, names of emoji (GFM, "Autolinks"; docs.github.com, "Autolinked references and URLs").
 */
export function words(text: string): Markdown {
  const parts = visible(text).split(/([\s"'(),;<>]+)/);
  const line = parts.map((part) => (isLively.test(part) ? code(part)[source] : escaped(part))).join('');
  // At its beginning, some marks make a list or a line of it.
  return made(
    line.replace(/^(\s*)([-+=])|^(\s*\d+)([.)])(?=\s|$)/, (...found: readonly string[]) => {
      const [, blanks = '', mark = '', number = '', point = ''] = found;
      return `${blanks}${number}${numbered(mark || point)}`;
    }),
  );
}

const isLively = /[@$]|#\d|\b(?:GH|GHSA|CVE)-|:\/\/|www\.|\b(?:mailto|xmpp|tel):|:[\w+-]+:|\b[0-9a-f]{7,40}\b/i;

// A number of a character is never a mark.
function escaped(text: string): string {
  return text.replace(/[\\`*_[\]<>#~|&]/g, numbered);
}

function numbered(mark: string): string {
  return `&#${String(mark.charCodeAt(0))};`;
}

/** One line, without characters that can't be seen or turn the direction of others. */
function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu, ' ').replace(/\s+/g, ' ');
}

/** Any text in code style. */
export function code(text: string): Markdown {
  return made(`\`${visible(text).replaceAll('`', "'") || ' '}\``);
}

/** A message: what is between single backticks is code, all else is text. */
export function prose(message: string): Markdown {
  const spans = message.replace(/`{2,}/g, "'").split(/(`[^`\n]*`)/);
  return joined(
    spans.map((part, position) => (position % 2 === 1 ? code(part.slice(1, -1)) : words(part))),
    '',
  );
}

/** A link, if the address is one of the web; else its text alone. */
export function link(text: string, address: string): Markdown {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') return words(text);
  const target = url.href
    .replace(/[()<>\\|`]/g, (mark) => `%${mark.charCodeAt(0).toString(16)}`)
    .replaceAll('&', '&amp;');
  return safe`[${words(text)}](${made(target)})`;
}

/** A table. The head is of this project's own words. */
export function markdownTable(head: readonly string[], rows: readonly (readonly Markdown[])[]): Markdown {
  const line = (cells: readonly Markdown[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return made([line(head.map(words)), line(head.map(() => safe`---`)), ...rows.map(line)].join('\n'));
}

// Only code has bars still. A backslash before one would be paired with the one that escapes it (GFM, "Tables").
function cell(markdown: Markdown): string {
  return markdown[source].replace(/(\\*)\|/g, '$1$1\\|');
}

/** `sha256:` and 12 digits: enough to tell two images apart by eye. */
function shortDigest(digest: string): string {
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
export function layerTable(layers: readonly TableLayer[]): Markdown {
  const rows = layers.map((layer, position) => [
    words(String(position + 1)),
    code(shortDigest(layer.digest)),
    words(formatBytes(layer.size)),
    words(layer.mediaType.split('.').at(-1) ?? ''),
  ]);
  const count = words(`${String(rows.length)} ${rows.length === 1 ? 'layer' : 'layers'}`);
  return safe`<details><summary>${count}</summary>\n\n${markdownTable(['#', 'Digest', 'Size', 'Format'], rows)}\n\n</details>`;
}

/** Returns a chart of where the time went, which GitHub draws (Mermaid gantt; `x` is ms since the epoch). */
export function gantt(spans: readonly Span[]): Markdown {
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

// Letters and digits, and what doesn't end a name, begin a comment or a directive, or make HTML in Mermaid's text.
function chartWord(text: string): string {
  return text.replace(/[^\p{L}\p{N} ._/()+-]+/gu, ' ');
}
