import type { Artifact, ArtifactContent, ArtifactReader } from '../artifacts/store.ts';
import { HandoverError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatBytes } from '../base/text.ts';
import { matchesPattern } from '../image/artifact-name.ts';
import { type HandoverRecord, parseRecord, recordName } from '../image/record.ts';
import { identifyByRange, type KnownImage } from './identity.ts';
import { type Outcome, sideBySide } from './side-by-side.ts';

/** The file that holds the mapping in its artifact. */
export const digestsFileName = 'docker-image-digests.json';

/** An artifact that was found, or what this job has made and keeps, and what is known of its images. */
export interface Handover {
  readonly origin: 'artifact' | 'build';
  readonly content: ArtifactContent;
  /** What it says of itself. */
  readonly record: HandoverRecord | undefined;
  /** Its images, read from the bytes; undefined where it takes all of the tarball to know them. */
  readonly known: readonly KnownImage[] | undefined;
}

export interface FindTools {
  readonly store: ArtifactReader;
  readonly log: Log;
  readonly runAttempt: number;
}

/**
 * Opens the newest artifact of that name in the store's run.
 * @throws HandoverError `artifact-not-found` listing what is there, `artifact-corrupt`, `transfer-failed`
 */
export async function findHandover(name: string, { store, log, runAttempt }: FindTools): Promise<Handover> {
  const artifacts = await store.list();
  const found = artifacts.find((artifact) => artifact.name === name);
  if (found === undefined) throw artifactNotFound([name], artifacts, runAttempt);
  return openHandover(await store.open(found), log);
}

/** Reads what it says of itself, and who its images are: some kilobytes. */
async function openHandover(content: ArtifactContent, log: Log): Promise<Handover> {
  const { artifact } = content;
  log.info(
    `Artifact "${artifact.name}": id ${String(artifact.id)}, ${formatBytes(artifact.size)}, ${artifact.digest ?? 'no digest'}`,
  );
  const text = await content.text(recordName);
  if (text === undefined) {
    log.info(`It has no ${recordName}: its images are known by the tarball's own manifest.`);
    return { origin: 'artifact', content, record: undefined, known: undefined };
  }
  const record = parseRecord(text);
  return { origin: 'artifact', content, record, known: await identifyByRange(content, record) };
}

/** What to say of a wait in vain. */
export interface VainWait {
  /** How long it was waited, and why not longer: a sentence. */
  readonly why: string;
  readonly hint: string;
}

/**
 * What to say of names, or patterns, that stand for no artifact: it lists what is there.
 * @param runAttempt which attempt of the run this is
 */
export function artifactNotFound(
  wanted: readonly string[],
  artifacts: readonly Artifact[],
  runAttempt: number,
  vain?: VainWait,
): HandoverError {
  const there = [...new Set(artifacts.map((artifact) => artifact.name))].map((other) => `"${other}"`);
  return new HandoverError(
    'artifact-not-found',
    `This run has no artifact ${wanted.map((name) => `"${name}"`).join(' and no ')}; it has ${there.length === 0 ? 'none' : there.slice(0, 30).join(', ')}.${vain === undefined ? '' : ` ${vain.why}`}`,
    (vain?.hint ??
      'Check `artifact-name`, and that this job has `needs:` the job that exports the image and that it uploaded it.') +
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
  { store, log, runAttempt }: FindTools,
): Promise<readonly Outcome<Handover>[]> {
  const artifacts = await store.list();
  const { selected, missing } = selectArtifacts(wanted, artifacts);
  if (missing.length > 0) throw artifactNotFound(missing, artifacts, runAttempt);
  const found = selected.map((artifact) => ({ name: artifact.name, ok: true as const, value: artifact }));
  const opened = await sideBySide(found, opensAtOnce, async (artifact) => {
    const content = await store.open(artifact);
    const isMapping = content.files.length === 1 && content.files[0]?.name === digestsFileName;
    return isMapping && !wanted.includes(artifact.name) ? undefined : await openHandover(content, log);
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
