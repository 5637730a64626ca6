import { HandoverError, invalidInput } from '../../base/errors.ts';
import { quoteForeign } from '../../base/text.ts';
import { isId, isPattern, isWanted } from '../../image/artifact-name.ts';
import type { RunArtifact, RunFilter, WorkflowRun, WorkflowRuns } from './workflow-runs.ts';

/** Selects the other run: by its id, or the latest matching run. */
export type RunChoice = { readonly runId: number } | RunFilter;

export interface RunSearch {
  readonly choice: RunChoice;
  /** Repository of the runs, `owner/name`. */
  readonly repository: string;
  /** Names, patterns and ids of artifacts. Each must match an artifact of the run. */
  readonly wanted: readonly string[];
  readonly allowForkRuns: boolean;
}

/** The chosen run, and its artifacts that can still be read, newest first. */
export interface ChosenRun {
  readonly run: WorkflowRun;
  readonly artifacts: readonly RunArtifact[];
}

// Maximum number of successful runs to search for the artifact, newest first.
const maxRuns = 20;

/**
 * Returns the run with the given id, or the newest matching run that has the artifact.
 * @param onSkip called with one log line for each skipped run
 * @throws HandoverError `run-not-found`, `artifact-not-found`, `artifact-expired`; `invalid-input` if the given id is a fork's run;
 *   HttpError
 */
export async function chooseRun(
  runs: WorkflowRuns,
  search: RunSearch,
  onSkip: (message: string) => void,
): Promise<ChosenRun> {
  const { choice } = search;
  if (!('runId' in choice)) return latestRun(runs, search, choice, onSkip);
  const run = await runs.get(choice.runId);
  if (run.isOfFork && !search.allowForkRuns) throw refused(run);
  const { artifacts, missing, expired } = look(search, await runs.artifacts(run.id));
  if (missing === undefined) return { run, artifacts };
  throw expired === undefined ? notInRun(missing, run, artifacts) : expiredIn(run, expired);
}

async function latestRun(
  runs: WorkflowRuns,
  search: RunSearch,
  filter: RunFilter,
  onSkip: (message: string) => void,
): Promise<ChosenRun> {
  const seen: WorkflowRun[] = [];
  let forks = 0;
  let newestExpired: HandoverError | undefined;
  for await (const run of runs.successful(filter)) {
    if (run.isOfFork && !search.allowForkRuns) {
      forks += 1;
      onSkip(`Skipping run ${String(run.id)}: it ran for the fork ${quoteForeign(run.headRepository) || '(deleted)'}.`);
      continue;
    }
    const { artifacts, missing, expired } = look(search, await runs.artifacts(run.id, onlyName(search.wanted)));
    if (missing === undefined) return { run, artifacts };
    if (expired !== undefined) newestExpired ??= expiredIn(run, expired);
    const why = expired === undefined ? 'never had' : 'no longer has';
    onSkip(`Skipping run ${String(run.id)} of ${run.createdAt}: it ${why} the artifact "${missing}".`);
    seen.push(run);
    if (seen.length === maxRuns) break;
  }
  const [newest] = seen;
  if (newest === undefined) throw noRun(search, forks);
  throw newestExpired ?? inNoRun(search, newest, seen.length);
}

interface Look {
  /** The artifacts that can still be read. */
  readonly artifacts: readonly RunArtifact[];
  /** The first name, pattern or id that matches none of `artifacts`. */
  readonly missing: string | undefined;
  /** An expired artifact that matches `missing`. */
  readonly expired: RunArtifact | undefined;
}

function look({ wanted }: RunSearch, all: readonly RunArtifact[]): Look {
  const artifacts = all.filter(({ expired }) => !expired);
  const missing = wanted.find((one) => !artifacts.some((artifact) => isWanted(one, artifact)));
  const expired = missing === undefined ? undefined : all.find((artifact) => isWanted(missing, artifact));
  return { artifacts, missing, expired };
}

/** Returns the only wanted name, which the REST API can filter by. */
function onlyName(wanted: readonly string[]): string | undefined {
  const [name, ...others] = wanted;
  return others.length > 0 || name === undefined || isPattern(name) || isId(name) ? undefined : name;
}

function refused(run: WorkflowRun): HandoverError {
  return invalidInput(
    `Run ${String(run.id)} (${run.url}) ran for the fork ${quoteForeign(run.headRepository) || '(deleted)'}: the author of ` +
      'that pull request decides what its artifact contains.',
    'Use a run of your own repository. Set `allow-fork-runs: true` only where the image gets no secret, no token that can ' +
      'write and no self-hosted runner.',
  );
}

function expiredIn(run: WorkflowRun, { name, expiresAt }: RunArtifact): HandoverError {
  return artifactExpired(
    `The artifact "${name}" of run ${String(run.id)} expired on ${expiresAt || 'an unknown date'} (${run.url}).`,
  );
}

export function artifactExpired(message: string, cause?: unknown): HandoverError {
  const hint =
    'Run that workflow again, raise `retention-days` of its export-image, or name a `fallback-image` to pull instead.';
  return new HandoverError('artifact-expired', message, hint, cause);
}

function notInRun(missing: string, run: WorkflowRun, artifacts: readonly RunArtifact[]): HandoverError {
  const there = [...new Set(artifacts.map(({ name }) => `"${quoteForeign(name)}"`))].slice(0, 30).join(', ');
  return new HandoverError(
    'artifact-not-found',
    `Run ${String(run.id)} (${run.url}) has no artifact "${missing}"; it has ${there || 'none'}.`,
    'Check `artifact-name` and `run-id`, and that the run has reached its export. A deleted artifact is no longer listed.',
  );
}

function inNoRun(search: RunSearch, newest: WorkflowRun, count: number): HandoverError {
  return new HandoverError(
    'artifact-not-found',
    `None of the ${String(count)} latest successful runs of ${describeSearch(search)} has an artifact ` +
      `${search.wanted.map((name) => `"${name}"`).join(' and ')}; the newest is ${newest.url}.`,
    'Check `artifact-name` and `workflow`, and that the job that exports the image runs for that branch and event.',
  );
}

function noRun(search: RunSearch, forks: number): HandoverError {
  const but = forks === 0 ? '' : `; ${String(forks)} runs of forks were skipped`;
  return new HandoverError(
    'run-not-found',
    `There is no successful run of ${describeSearch(search)}${but}.`,
    'Check `workflow` (the name of its file), `branch` and `event`, and that a run has succeeded there.' +
      (forks === 0 ? '' : ' `allow-fork-runs: true` also accepts runs of forks, whose artifacts may contain any code.'),
  );
}

/** Describes a run search: `run 7 in org/app`, or `workflow "ci.yml" on branch "main", event "push", in org/app`. */
export function describeSearch({ choice, repository }: RunSearch): string {
  if ('runId' in choice) return `run ${String(choice.runId)} in ${quoteForeign(repository)}`;
  const { workflow, branch, event } = choice;
  const on = event === undefined ? '' : `, event "${quoteForeign(event)}",`;
  return `workflow "${quoteForeign(workflow)}" on branch "${quoteForeign(branch)}"${on} in ${quoteForeign(repository)}`;
}
