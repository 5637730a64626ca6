import {
  artifactRow,
  code,
  joined,
  layerTable,
  type Markdown,
  markdownTable,
  page,
  safe,
  prose,
  words,
} from '../shared/base/markdown.ts';
import { formatBytes, formatDuration } from '../shared/base/text.ts';
import type { Span } from '../shared/base/timeline.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { ExportResult } from './export-image.ts';
import type { PushOutcome } from './push.ts';

/** The result that the summary shows; without a path if the tarball is not kept. */
type ShownExport = Omit<ExportResult, 'tarballPath'> & { readonly tarballPath: string | undefined };

/**
 * Returns the job summary of a successful export.
 * @param note the first paragraph
 */
export function exportSummary(result: ShownExport, spans: readonly Span[], note?: Markdown): Markdown {
  const { record, artifact, steps } = result;
  const executed = steps.filter((step) => !step.cached);
  const manifests = record.manifestDigests.map(code);
  const references = record.references.map(formatReference);
  const path = result.tarballPath === undefined ? undefined : code(result.tarballPath);
  const facts = [
    [safe`Image`, joined(references.map(code), ', ')],
    [safe`Platform`, words(formatPlatform(record.platform))],
    [safe`Config digest`, code(record.configDigest)],
    [safe`Manifest digest`, manifests.length === 0 ? safe`none` : joined(manifests, ', ')],
    record.indexDigest && [safe`Digest with attestations`, code(record.indexDigest)],
    artifact && artifactRow(artifact),
    pushRow(result.push),
    [safe`Tarball`, joined([path, words(formatBytes(record.tarballSize))], ', ')],
    minutes(result),
    steps.length === 0
      ? undefined
      : [
          safe`Build steps`,
          words(`${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`),
        ],
  ];
  const title = artifact === undefined ? safe`Kept here, not handed over:` : safe`Handed over`;
  const names = executed.map((step) => code(step.name));
  return page(
    [
      safe`### 📦 ${title} ${code(references[0] ?? '')}`,
      note,
      markdownTable(['Property', 'Value'], facts),
      executed.length === 0 ? undefined : safe`**Executed steps:** ${joined(names, ', ')}`,
      layerTable(record.layers),
    ],
    spans,
  );
}

function minutes({ record: { times }, artifact }: ShownExport): readonly Markdown[] | undefined {
  if (times === undefined || artifact === undefined) return undefined;
  return [safe`From build to handover`, words(formatDuration(times.ready - times.built))];
}

function pushRow(push: PushOutcome): readonly Markdown[] | undefined {
  if (push.kind === 'none') return undefined;
  const outcome =
    push.kind === 'pushed' ? code(formatReference(push.reference)) : safe`❌ ${prose(push.error.message)}`;
  return [safe`Pushed`, outcome];
}
