import type { Artifact, ArtifactContent, ArtifactReader } from '../artifacts/store.ts';
import { HandoverError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatBytes } from '../base/text.ts';
import { isId, isPattern, isWanted } from '../image/artifact-name.ts';
import { type HandoverRecord, parseRecord, recordName } from '../image/record.ts';
import { identifyByRange, type IdentifiedImage } from './identity.ts';
import { type Outcome, sideBySide } from './side-by-side.ts';

/** The name of the artifact's file with the mapping. */
export const digestsFileName = 'docker-image-digests.json';

/** An artifact of a run, or the image that this job exported without uploading it. */
export interface FoundArtifact {
  readonly origin: 'artifact' | 'build';
  readonly content: ArtifactContent;
  /** Its record; never trusted without the bytes that it describes. */
  readonly record: HandoverRecord | undefined;
  /** Its images, identified from their bytes; undefined if that requires the whole tarball. */
  readonly identified: readonly IdentifiedImage[] | undefined;
}

export interface FindTools {
  readonly store: ArtifactReader;
  readonly log: Log;
  readonly runAttempt: number;
}

/**
 * Finds the newest artifact of that name, or the one with that id, and identifies its images.
 * @throws HandoverError `artifact-not-found` with the names that exist, `artifact-corrupt`, `transfer-failed`
 */
export async function findArtifact(wanted: string, { store, log, runAttempt }: FindTools): Promise<FoundArtifact> {
  const artifacts = await store.list();
  const found = artifacts.find((artifact) => isWanted(wanted, artifact));
  if (found === undefined) throw artifactNotFound([wanted], artifacts, runAttempt);
  return identified(await store.open(found), log);
}

/** Reads the record and identifies the images, which takes some kilobytes. */
async function identified(content: ArtifactContent, log: Log): Promise<FoundArtifact> {
  const { artifact } = content;
  log.info(
    `Artifact "${artifact.name}": id ${String(artifact.id)}, ${formatBytes(artifact.size)}, ${artifact.digest ?? 'no digest'}`,
  );
  const record = await readRecord(content);
  if (record === undefined)
    log.info(`It has no ${recordName}: its images are identified by the tarball's own manifest.`);
  const images = record === undefined ? undefined : await identifyByRange(content, record);
  return { origin: 'artifact', content, record, identified: images };
}

/**
 * Reads an artifact's record, which is a claim until its images are identified.
 * @returns undefined for an artifact without a record
 * @throws HandoverError `artifact-corrupt`, `transfer-failed`
 */
export async function readRecord(content: ArtifactContent): Promise<HandoverRecord | undefined> {
  const text = await content.text(recordName);
  return text === undefined ? undefined : parseRecord(text);
}

/** Explains why waiting ended without the artifact. */
export interface WaitTimeout {
  /** The time waited and the reason for the end, as a sentence. */
  readonly why: string;
  readonly hint: string;
}

/**
 * Returns the error for names, patterns or ids without an artifact. It lists the artifacts that exist.
 * @param runAttempt number of this attempt of the run
 */
export function artifactNotFound(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
  runAttempt: number,
  timeout?: WaitTimeout,
): HandoverError {
  const withId = wanted.some(isId);
  const there = [...new Set(artifacts.map(({ name, id }) => (withId ? `"${name}" (id:${String(id)})` : `"${name}"`)))];
  return new HandoverError(
    'artifact-not-found',
    `This run has no artifact ${wanted.map((name) => `"${name}"`).join(' and no ')}; it has ${there.length === 0 ? 'none' : there.slice(0, 30).join(', ')}.${timeout === undefined ? '' : ` ${timeout.why}`}`,
    (timeout?.hint ??
      'Check `artifact-name` or `artifact-ids`, and that this job has `needs:` the job that exports the image and that it uploaded it.') +
      (runAttempt > 1
        ? ` This is attempt ${String(runAttempt)}: an earlier attempt's artifact may have expired (\`retention-days\` of export-image), ` +
          'or a step with `remove: true` has removed it. Re-run all jobs.'
        : ''),
  );
}

const opensAtOnce = 8;

/**
 * Finds the newest artifact of each name that is wanted, and identifies its images from some kilobytes each. Skips an artifact that
 * contains only the mapping of an earlier step, unless it is named.
 * @param wanted names, patterns and ids
 * @throws HandoverError `artifact-not-found` with the names that have no artifact, and those that exist
 */
export async function findArtifacts(
  wanted: readonly string[],
  { store, log, runAttempt }: FindTools,
): Promise<readonly Outcome<FoundArtifact>[]> {
  const artifacts = await store.list();
  const { selected, missing } = selectArtifacts(wanted, artifacts);
  if (missing.length > 0) throw artifactNotFound(missing, artifacts, runAttempt);
  const found = selected.map((artifact) => ({ name: artifact.name, ok: true as const, value: artifact }));
  const opened = await sideBySide(found, opensAtOnce, async (artifact) => {
    const content = await store.open(artifact);
    const isMapping = content.files.length === 1 && content.files[0]?.name === digestsFileName;
    const isExact = wanted.some((one) => !isPattern(one) && isWanted(one, artifact));
    return isMapping && !isExact ? undefined : await identified(content, log);
  });
  const all = opened.flatMap((outcome): readonly Outcome<FoundArtifact>[] => {
    if (!outcome.ok) return [outcome];
    return outcome.value === undefined ? [] : [{ ...outcome, value: outcome.value }];
  });
  if (all.length === 0) throw artifactNotFound(wanted, artifacts, runAttempt);
  return all;
}

/**
 * Selects the newest artifact of each name that is wanted, and those with a wanted id.
 * @param artifacts newest first
 * @returns the artifacts sorted by name, and the names, patterns and ids without one
 */
export function selectArtifacts(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
): { readonly selected: readonly Artifact[]; readonly missing: readonly string[] } {
  const newest = new Map<string, Artifact>();
  for (const artifact of artifacts) if (!newest.has(artifact.name)) newest.set(artifact.name, artifact);
  const counts = (artifact: Artifact, one: string): boolean =>
    isWanted(one, artifact) && (isId(one) || newest.get(artifact.name) === artifact);
  const all = artifacts.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  return {
    selected: all.filter((artifact) => wanted.some((one) => counts(artifact, one))),
    missing: wanted.filter((one) => !artifacts.some((artifact) => counts(artifact, one))),
  };
}
