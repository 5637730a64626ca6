import { code, joined, link, type Markdown, markdownTable, page, safe, words } from '../shared/base/markdown.ts';
import { formatBytes } from '../shared/base/text.ts';
import type { Span } from '../shared/base/timeline.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import type { PublishResult } from './publish-image.ts';

/** Returns the job summary of a published image. */
export function publishSummary(result: PublishResult, spans: readonly Span[]): Markdown {
  const { digest, images, isNew, bytes } = result;
  const references = result.references.map((reference) => code(formatReference(reference)));
  const facts = [
    [safe`Digest`, code(digest)],
    [safe`References`, joined(references, '<br>')],
    [safe`Sent`, words(formatBytes(bytes.pushed))],
    bytes.mounted === 0 ? undefined : [safe`Mounted from other repositories`, words(formatBytes(bytes.mounted))],
    bytes.there === 0 ? undefined : [safe`Already there`, words(formatBytes(bytes.there))],
  ];
  const rows = images.map(({ artifact, platform, contents }) => [
    words(formatPlatform(platform)),
    code(artifact.name),
    artifact.run === undefined ? safe`this run` : link(String(artifact.run.id), artifact.run.url),
    code(contents.manifestDigest),
    code(contents.configDigest),
  ]);
  const title = isNew ? safe`🚀 Published` : safe`🚀 Already published:`;
  return page(
    [
      safe`### ${title} ${references[0] ?? safe``}`,
      markdownTable(['Property', 'Value'], facts),
      markdownTable(['Platform', 'Artifact', 'Run', 'Manifest digest', 'Config digest'], rows),
    ],
    spans,
  );
}
