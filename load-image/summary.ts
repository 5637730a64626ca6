import { formatPlatform } from '../shared/image/platform.ts';
import { layerTable } from '../shared/layer-table.ts';
import { code, gantt, markdownTable } from '../shared/markdown.ts';
import { formatBytes } from '../shared/text.ts';
import type { Span } from '../shared/timeline.ts';
import type { PulledResult } from './fallback-image.ts';
import type { LoadResult } from './load-image.ts';

/** The job summary of a load, or of the pull instead of it, that worked. */
export function loadSummary(result: LoadResult | PulledResult, spans: readonly Span[]): string {
  return 'pulledFrom' in result ? pulledSummary(result, spans) : loadedSummary(result, spans);
}

function pulledSummary(result: PulledResult, spans: readonly Span[]): string {
  const facts = [
    ['Image', code(result.reference)],
    ['Pulled from', code(result.pulledFrom)],
    ['Why not the artifact', result.reason],
    ['Image ID here', code(result.image.imageId)],
    ...(result.configDigest === undefined ? [] : [['Config digest', code(result.configDigest)]]),
    ['Platform', formatPlatform(result.image.platform)],
  ];
  const title = `### ⚠️ Pulled instead: ${code(result.reference)}`;
  return [title, markdownTable(['', ''], facts), gantt(spans), ''].join('\n\n');
}

function loadedSummary(result: LoadResult, spans: readonly Span[]): string {
  const { artifact, record, expected } = result;
  const from = record?.producer;
  const facts = [
    ['Image', code(result.reference)],
    ['Image ID here', code(result.image.imageId)],
    ['Config digest', code(expected.configDigest)],
    ['Platform', formatPlatform(expected.platform)],
    ['Layers', String(expected.diffIds.length)],
    ['Artifact', `${code(artifact.name)} (id ${String(artifact.id)}), ${formatBytes(artifact.size)}`],
    ...(artifact.run === undefined ? [] : [['From run', `[${String(artifact.run.id)}](${artifact.run.url})`]]),
    ['Downloaded', result.loaded ? formatBytes(result.size) : 'nothing: the engine had this very image'],
    ...(from === undefined
      ? []
      : [['Built from', `${code(from.commit || 'unknown commit')}, attempt ${String(from.runAttempt)}`]]),
    ['Checked against', record === undefined ? "the tarball's own manifest and config" : 'the record of the export'],
  ];
  const layers = record === undefined ? [] : [layerTable(record.layers)];
  const verb = result.loaded ? 'Loaded and verified' : 'Already here, verified:';
  return [`### 📦 ${verb} ${code(result.reference)}`, markdownTable(['', ''], facts), ...layers, gantt(spans), ''].join(
    '\n\n',
  );
}
