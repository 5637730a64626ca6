import { code, markdownTable, shortDigest } from '../base/markdown.ts';
import { formatBytes } from '../base/text.ts';
import type { RecordLayer } from './record.ts';

/** The layers with their sizes, folded under one line of a job summary. */
export function layerTable(layers: readonly RecordLayer[]): string {
  const rows = layers.map((layer, position) => [
    String(position + 1),
    code(shortDigest(layer.digest)),
    formatBytes(layer.size),
    layer.mediaType.split('.').at(-1) ?? '',
  ]);
  const table = markdownTable(['#', 'Digest', 'Size', 'Format'], rows);
  return `<details><summary>${String(rows.length)} layers</summary>\n\n${table}\n\n</details>`;
}
