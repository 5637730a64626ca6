import type { Artifact, ArtifactReader } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import { matchesPattern } from '../shared/image/artifact-name.ts';
import { digestsFileName } from './digests.ts';
import { type Handover, type LoadTools, readRecord } from './load-image.ts';
import { type Outcome, sideBySide } from './several.ts';

/**
 * The newest artifact of that name in the store's run.
 * @param runAttempt which attempt of the run this is
 * @throws HandoverError `artifact-not-found` listing what is there
 */
export async function findArtifact(store: ArtifactReader, name: string, runAttempt: number): Promise<Artifact> {
  const artifacts = await store.list();
  const found = artifacts.find((artifact) => artifact.name === name);
  if (found !== undefined) return found;
  throw artifactNotFound([name], artifacts, runAttempt);
}

/**
 * What to say of names, or patterns, that stand for no artifact: it lists what is there.
 * @param runAttempt which attempt of the run this is
 */
export function artifactNotFound(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
  runAttempt: number,
): HandoverError {
  const there = [...new Set(artifacts.map((artifact) => artifact.name))].map((other) => `"${other}"`);
  return new HandoverError(
    'artifact-not-found',
    `This run has no artifact ${wanted.map((name) => `"${name}"`).join(' and no ')}; it has ${there.length === 0 ? 'none' : there.slice(0, 30).join(', ')}.`,
    'Check `artifact-name`, and that this job has `needs:` the job that exports the image and that it uploaded it.' +
      (runAttempt > 1
        ? ` This is attempt ${String(runAttempt)}: the artifact of an earlier attempt may have expired. Re-run all jobs, or raise ` +
          '`retention-days` of export-image.'
        : ''),
  );
}

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
