import { exportSummary } from '../export-image/summary.ts';
import { loadSummary } from '../load-image/summary.ts';
import { code } from '../shared/base/markdown.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { HandoverResult } from './handover.ts';
import type { OtherImage } from './own-image.ts';

/**
 * The job summary of the joined action.
 * @param name the artifact's
 */
export function handoverSummary(result: HandoverResult, name: string, timeline: Timeline): string {
  const loaded = loadSummary(result.loaded, timeline);
  switch (result.kind) {
    case 'loaded':
      return loaded;
    case 'handed-over':
      return exportSummary(result.exported, []) + loaded;
    case 'kept':
      return exportSummary(result.exported, [], keptNote(result.other, name)) + loaded;
  }
}

function keptNote(other: OtherImage, name: string): string {
  if (other.kind === 'unknown') {
    return `Another job was first to use the name ${code(name)}. Whether its image is the same as this one is not known: ${other.why}`;
  }
  const its = `that another job was first to hand over as ${code(name)} (id ${String(other.artifact.id)})`;
  return other.kind === 'same'
    ? `The image ${its} is the same image as this one.`
    : `⚠️ The image ${its} is **not this one**, and later jobs get that one: its config is ${code(other.configDigest)}.`;
}
