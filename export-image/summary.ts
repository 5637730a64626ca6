import { code, gantt, markdownTable } from '../shared/base/markdown.ts';
import { formatBytes } from '../shared/base/text.ts';
import type { Span } from '../shared/base/timeline.ts';
import { layerTable } from '../shared/base/markdown.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import { besidePlainRecipe } from '../shared/image/times.ts';
import type { ExportResult } from './export-image.ts';
import type { PushOutcome } from './push.ts';

/**
 * The job summary of a handover that worked.
 * @param note a paragraph that comes first
 */
export function exportSummary(result: ExportResult, spans: readonly Span[], note?: string): string {
  const { record, artifact, steps } = result;
  const executed = steps.filter((step) => !step.cached);
  const facts = [
    ['Image', record.references.map((reference) => code(formatReference(reference))).join(', ')],
    ['Platform', formatPlatform(record.platform)],
    ['Config digest', code(record.configDigest)],
    ['Manifest digest', record.manifestDigests.map(code).join(', ') || 'none'],
    ...(artifact === undefined
      ? []
      : [['Artifact', `${code(artifact.name)} (id ${String(artifact.id)}), ${formatBytes(artifact.size)}`]]),
    ...pushFacts(result.push),
    ['Tarball', `${code(result.tarballPath)}, ${formatBytes(record.tarballSize)}`],
    ...minutes(result),
    ...(steps.length === 0
      ? []
      : [['Build steps', `${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`]]),
  ];
  return [
    `### 📦 ${artifact === undefined ? 'Kept here, not handed over:' : 'Handed over'} ${code(formatReferenceOf(result))}`,
    ...(note === undefined ? [] : [note]),
    markdownTable(['', ''], facts),
    ...(executed.length === 0 ? [] : ['**Executed steps:** ' + executed.map((step) => code(step.name)).join(', ')]),
    layerTable(record.layers),
    gantt(spans),
    '',
  ].join('\n\n');
}

function minutes({ record, artifact }: ExportResult): readonly (readonly string[])[] {
  const { times, tarballSize } = record;
  if (times === undefined || artifact === undefined) return [];
  return [['From built to handed over', besidePlainRecipe(times.ready - times.built, 'export', tarballSize)]];
}

function pushFacts(push: PushOutcome): readonly (readonly string[])[] {
  if (push.kind === 'none') return [];
  return [['Pushed', push.kind === 'pushed' ? code(formatReference(push.reference)) : `❌ ${push.error.message}`]];
}

function formatReferenceOf(result: ExportResult): string {
  return result.record.references.map(formatReference)[0] ?? '';
}
