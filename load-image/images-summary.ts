import { code, gantt, markdownTable } from '../shared/markdown.ts';
import { formatBytes } from '../shared/text.ts';
import type { Span } from '../shared/timeline.ts';
import { digestsFileName } from './image-mapping.ts';
import type { ImagesResult } from './load-images.ts';
import { loadSummary } from './summary.ts';

/** The job summary of a step that worked: of one image in detail, of several as a table. */
export function imagesSummary(result: ImagesResult, spans: readonly Span[]): string {
  const { images, loaded, digests } = result;
  const [only] = images.length === 1 ? loaded : [];
  const uploaded =
    digests === undefined ? '' : `The digests are ${code(digestsFileName)} in the artifact ${code(digests.name)}.\n\n`;
  if (only !== undefined) return loadSummary(only, spans) + uploaded;

  const known = loaded.length === 0;
  const wasLoaded = new Map(loaded.map((each) => [each.artifact?.id, each.loaded]));
  const rows = images.map((image) => [
    code(image.name),
    code(image.reference),
    code(image.configDigest),
    image.manifestDigest === '' ? '' : code(image.manifestDigest),
    image.pushedReference === '' ? '' : code(image.pushedReference),
    image.platform,
    formatBytes(image.size),
    ...(known ? [] : [wasLoaded.get(image.artifact?.id) === true ? 'loaded' : 'was here']),
  ]);
  const head = ['Artifact', 'Image', 'Config digest', 'Manifest digest', 'Pushed as', 'Platform', 'Size'];
  const title = known ? 'Digests of' : 'Loaded and verified';
  return [
    `### 📦 ${title} ${String(images.length)} ${images.length === 1 ? 'image' : 'images'}`,
    markdownTable([...head, ...(known ? [] : ['Here'])], rows),
    `${uploaded}${gantt(spans)}`,
    '',
  ].join('\n\n');
}
