import { code, gantt, markdownTable } from '../shared/base/markdown.ts';
import { formatBytes } from '../shared/base/text.ts';
import type { Span } from '../shared/base/timeline.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { PublishResult } from './publish-image.ts';

/** The job summary of an image that is in its registry. */
export function publishSummary(result: PublishResult, spans: readonly Span[]): string {
  const { digest, references, images, isNew, bytes } = result;
  const facts = [
    ['Digest', code(digest)],
    ['References', references.map((one) => code(formatReference(one))).join('<br>')],
    ['Sent', formatBytes(bytes.pushed)],
    ...(bytes.mounted === 0 ? [] : [['Taken from other repositories there', formatBytes(bytes.mounted)]]),
    ...(bytes.there === 0 ? [] : [['Was there already', formatBytes(bytes.there)]]),
  ];
  const rows = images.map(({ artifact, platform, manifestDigest, configDigest }) => [
    formatPlatform(platform),
    code(artifact.name),
    ...(artifact.run === undefined ? ['this run'] : [`[${String(artifact.run.id)}](${artifact.run.url})`]),
    code(manifestDigest),
    code(configDigest),
  ]);
  const title = isNew ? '🚀 Published' : '🚀 Was published already:';
  return [
    `### ${title} ${code(formatReference(references[0]))}`,
    markdownTable(['', ''], facts),
    markdownTable(['Platform', 'Artifact', 'Of run', 'Manifest digest', 'Config digest'], rows),
    gantt(spans),
    '',
  ].join('\n\n');
}
