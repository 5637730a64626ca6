import { exportSummary } from '../export-image/summary.ts';
import { loadSummary } from '../load-image/summary.ts';
import { code, joined, type Markdown, safe, prose, words } from '../shared/base/markdown.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { JoinedResult, OtherImage } from './joined.ts';

/**
 * Returns the job summary of the joined action.
 * @param name the artifact's name
 */
export function joinedSummary({ loaded, exported, other }: JoinedResult, name: string, timeline: Timeline): Markdown {
  const ofLoad = loadSummary(loaded, timeline);
  if (exported === undefined) return ofLoad;
  const note = other && keptNote(other, name);
  return joined([exportSummary({ ...exported, tarballPath: undefined }, [], note), ofLoad], '');
}

function keptNote(other: OtherImage, name: string): Markdown {
  if (other.kind === 'unknown') {
    return safe`Another job was first to use the name ${code(name)}. Whether its image is the same as this one is not known: ${prose(other.why)}`;
  }
  const its = safe`that another job was first to hand over as ${code(name)} (id ${words(String(other.artifact.id))})`;
  return other.kind === 'same'
    ? safe`The image ${its} is the same image as this one.`
    : safe`⚠️ The image ${its} is **not this one**, and later jobs get that one: its config is ${code(other.configDigest)}.`;
}
