import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import { code, gantt, markdownTable, shortDigest } from '../shared/markdown.ts';
import { formatBytes } from '../shared/text.ts';
import type { Span } from '../shared/timeline.ts';
import type { ExportResult } from './export-image.ts';

/** The job summary of a handover that worked. */
export function exportSummary(result: ExportResult, spans: readonly Span[]): string {
  const { record, artifact, steps } = result;
  const executed = steps.filter((step) => !step.cached);
  const facts = [
    ['Image', record.references.map((reference) => code(formatReference(reference))).join(', ')],
    ['Platform', formatPlatform(record.platform)],
    ['Config digest', code(record.configDigest)],
    ['Manifest digest', record.manifestDigests.map(code).join(', ') || 'none'],
    ['Artifact', `${code(artifact.name)} (id ${String(artifact.id)}), ${formatBytes(artifact.size)}`],
    ['Tarball', `${code(result.tarballPath)}, ${formatBytes(record.tarballSize)}`],
    ...(steps.length === 0
      ? []
      : [['Build steps', `${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`]]),
  ];
  const layers = record.layers.map((layer, position) => [
    String(position + 1),
    code(shortDigest(layer.digest)),
    formatBytes(layer.size),
    layer.mediaType.split('.').at(-1) ?? '',
  ]);
  return [
    `### 📦 Handed over ${code(formatReferenceOf(result))}`,
    markdownTable(['', ''], facts),
    ...(executed.length === 0 ? [] : ['**Executed steps:** ' + executed.map((step) => code(step.name)).join(', ')]),
    `<details><summary>${String(layers.length)} layers</summary>\n\n${markdownTable(['#', 'Digest', 'Size', 'Format'], layers)}\n\n</details>`,
    gantt(spans),
    '',
  ].join('\n\n');
}

function formatReferenceOf(result: ExportResult): string {
  return result.record.references.map(formatReference)[0] ?? '';
}
