import { exportSummary } from '../export-image/summary.ts';
import { loadSummary } from '../load-image/summary.ts';
import { code, markdownTable } from '../shared/markdown.ts';
import type { Span } from '../shared/timeline.ts';
import type { HandoverResult } from './handover.ts';
import type { OtherImage } from './own-image.ts';

/**
 * The job summary of the joined action.
 * @param name the artifact's
 */
export function handoverSummary(result: HandoverResult, name: string, spans: readonly Span[]): string {
  const loaded = loadSummary(result.loaded, spans);
  switch (result.kind) {
    case 'loaded':
      return loaded;
    case 'handed-over':
      return exportSummary(result.exported, []) + loaded;
    case 'kept':
      return exportSummary(result.exported, []) + keptNote(result.other, name) + loaded;
  }
}

function keptNote(other: OtherImage, name: string): string {
  const facts = [['Artifact', `${code(name)} is another job’s, which was first: this job keeps its own image`]];
  if (other.kind === 'unknown') facts.push(['It holds', `not known: ${other.why}`]);
  else {
    facts.push(['Its id', String(other.artifact.id)]);
    const holds = other.kind === 'same' ? 'the same image as this one' : '⚠️ another image, which later jobs get';
    facts.push(['It holds', `${holds}: config ${code(other.configDigest)}`]);
  }
  return `${markdownTable(['', ''], facts)}\n\n`;
}
