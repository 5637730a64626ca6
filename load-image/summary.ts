import {
  artifactRow,
  code,
  joined,
  layerTable,
  link,
  type Markdown,
  markdownTable,
  page,
  safe,
  prose,
  words,
} from '../shared/base/markdown.ts';
import { formatBytes, formatDuration } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { formatPlatform } from '../shared/image/platform.ts';
import { digestsFileName } from '../shared/handed-over/find.ts';
import type { LoadResult } from './load-image.ts';
import type { ImagesResult } from './load-images.ts';

const sources = {
  artifact: 'the artifact',
  registry: 'the registry',
  engine: 'this engine, which already had this image',
  build: 'this job’s own build, which was not handed over',
} as const;

/** Returns the job summary of a successful load. */
export function loadSummary(result: LoadResult, timeline: Timeline): Markdown {
  const { artifact, record, identity, nodes = [], layoutPath, fallback } = result;
  const from = record?.producer;
  const facts = [
    [safe`Image`, code(result.reference)],
    result.image && [safe`Image ID here`, code(result.image.imageId)],
    nodes.length === 0 ? undefined : [safe`Nodes`, joined(nodes.map(code), ', ')],
    layoutPath === undefined ? undefined : [safe`OCI layout`, code(layoutPath)],
    [safe`Config digest`, identity.configDigest === undefined ? safe`unknown` : code(identity.configDigest)],
    [safe`Platform`, words(formatPlatform(identity.platform))],
    [safe`Layers`, words(String(identity.diffIds.length))],
    [safe`Source`, words(sources[result.source])],
    fallback && [safe`Pulled from`, code(fallback.reference)],
    fallback && [safe`Why not the artifact`, prose(fallback.reason)],
    artifact && artifactRow(artifact),
    artifact?.run && [safe`From run`, link(String(artifact.run.id), artifact.run.url)],
    artifact && [safe`Downloaded`, words(downloaded(result))],
    from && [
      safe`Built from`,
      safe`${code(from.commit || 'unknown commit')}, attempt ${words(String(from.runAttempt))}`,
    ],
    [safe`Checked against`, words(checkedAgainst(result))],
    ...minutes(result, timeline),
  ];
  return page(
    [
      safe`### ${words(title(result))} ${code(result.reference)}`,
      markdownTable(['Property', 'Value'], facts),
      record && layerTable(record.layers),
    ],
    timeline.spans(),
  );
}

/** Returns rows that show when another job of this run built the image, and how long this job took. */
function minutes({ artifact, record }: LoadResult, timeline: Timeline): readonly (readonly Markdown[])[] {
  const times = artifact === undefined || artifact.run !== undefined ? undefined : record?.times;
  if (times === undefined || times.began === timeline.began) return [];
  const took = Math.max(0, ...timeline.spans().map(({ endMs }) => endMs));
  const early = timeline.began - times.ready;
  const when = early >= 0 ? `${formatDuration(early)} before this step began` : `${formatDuration(-early)} after it`;
  return [
    [safe`Built`, words(`once, in ${formatDuration(times.built - times.started)}; ready ${when}`)],
    [safe`Took here`, words(formatDuration(took))],
  ];
}

function downloaded({ size, record, loaded, source }: LoadResult): string {
  if (size === 0) return loaded && source !== 'engine' ? 'nothing: the engine had all layers' : 'nothing';
  const layers = new Map(record?.layers.map((layer) => [layer.digest, layer.size]));
  const all = [...layers.values()].reduce((sum, bytes) => sum + bytes, 0);
  return `${formatBytes(size)}${size < all ? '; the engine had the rest' : ''}`;
}

function title({ fallback, loaded, nodes }: LoadResult): string {
  if (fallback !== undefined) return '⚠️ Pulled instead:';
  if (nodes?.length === 0) return '📦 Downloaded and verified';
  return loaded ? '📦 Loaded and verified' : '📦 Already here, verified:';
}

function checkedAgainst({ record, artifact, fallback }: LoadResult): string {
  if (fallback !== undefined) return 'the expectations in the inputs, and this engine’s platform';
  if (record !== undefined) return 'the record of the export';
  return artifact === undefined ? 'the digest it was pulled by' : "the tarball's own manifest and config";
}

/** Returns the job summary of a successful step: one image in detail, or several images as a table. */
export function imagesSummary(result: ImagesResult, timeline: Timeline): Markdown {
  const { images, loaded, digests, removed } = result;
  const [only] = images.length === 1 ? loaded : [];
  const changes = [
    digests && safe`The digests are ${code(digestsFileName)} in the artifact ${code(digests.name)}.`,
    removed.length === 0 ? undefined : safe`Removed from this run: ${joined(removed.map(code), ', ')}.`,
  ];
  const below = joined([...changes, safe``], '\n\n');
  if (images.length === 0) return below;
  if (only !== undefined) return joined([loadSummary(only, timeline), below], '');

  const known = loaded.length === 0;
  const wasLoaded = new Map(loaded.map((each) => [each.artifact?.id, each.loaded]));
  const rows = images.map((image) => [
    code(image.name),
    code(image.reference),
    code(image.configDigest),
    image.manifestDigest === '' ? safe`` : code(image.manifestDigest),
    image.pushedReference === '' ? safe`` : code(image.pushedReference),
    words(image.platform),
    words(formatBytes(image.size)),
    ...(known ? [] : [wasLoaded.get(image.artifact?.id) === true ? safe`loaded` : safe`already here`]),
  ]);
  const head = ['Artifact', 'Image', 'Config digest', 'Manifest digest', 'Pushed as', 'Platform', 'Size'];
  const title = known ? 'Digests of' : 'Loaded and verified';
  return page(
    [
      safe`### 📦 ${words(`${title} ${String(images.length)} ${images.length === 1 ? 'image' : 'images'}`)}`,
      markdownTable([...head, ...(known ? [] : ['Here'])], rows),
      ...changes,
    ],
    timeline.spans(),
  );
}
