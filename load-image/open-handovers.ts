import type { Artifact } from '../shared/artifacts/store.ts';
import { matchesPattern } from '../shared/image/artifact-pattern.ts';
import { artifactNotFound } from './find-artifact.ts';
import { digestsFileName } from './image-mapping.ts';
import { type Handover, type LoadTools, readRecord } from './load-image.ts';
import { type Outcome, sideBySide } from './side-by-side.ts';

const opensAtOnce = 8;

/**
 * Opens the newest artifact of each name, and of each name that a pattern stands for, and reads their records: some
 * kilobytes each. An artifact that holds but the mapping of an earlier step is left out, unless it is named.
 * @param wanted names and patterns
 * @throws HandoverError `artifact-not-found` listing what stands for nothing, and what is there
 */
export async function openHandovers(
  wanted: readonly string[],
  { store, log, runAttempt }: LoadTools,
): Promise<readonly Outcome<Handover>[]> {
  const artifacts = await store.list();
  const { selected, missing } = selectArtifacts(wanted, artifacts);
  if (missing.length > 0) throw artifactNotFound(missing, artifacts, runAttempt);
  const found = selected.map((artifact) => ({ name: artifact.name, ok: true as const, value: artifact }));
  const opened = await sideBySide(found, opensAtOnce, async (artifact) => {
    const content = await store.open(artifact);
    const isMapping = content.files.length === 1 && content.files[0]?.name === digestsFileName;
    return isMapping && !wanted.includes(artifact.name)
      ? undefined
      : { origin: 'artifact' as const, content, record: await readRecord(content, log) };
  });
  const handovers = opened.flatMap((outcome): readonly Outcome<Handover>[] => {
    if (!outcome.ok) return [outcome];
    return outcome.value === undefined ? [] : [{ ...outcome, value: outcome.value }];
  });
  if (handovers.length === 0) throw artifactNotFound(wanted, artifacts, runAttempt);
  return handovers;
}

/**
 * @param artifacts newest first
 * @returns the newest artifact of each name that is wanted, sorted by name, and the names and patterns that stand for none
 */
export function selectArtifacts(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
): { readonly selected: readonly Artifact[]; readonly missing: readonly string[] } {
  const newest = new Map<string, Artifact>();
  for (const artifact of artifacts) if (!newest.has(artifact.name)) newest.set(artifact.name, artifact);
  const all = [...newest.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  return {
    selected: all.filter(({ name }) => wanted.some((pattern) => matchesPattern(pattern, name))),
    missing: wanted.filter((pattern) => !all.some(({ name }) => matchesPattern(pattern, name))),
  };
}
