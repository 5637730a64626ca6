import type { RunJob, RunJobs } from '../shared/artifacts/service/workflow-runs.ts';
import { messageOf } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import { isPattern, matchesPattern } from '../shared/image/artifact-name.ts';

// Watches the jobs of the run that may still create the expected artifact. The service doesn't show which job creates it. So it is the job
// that the user names, or any other job. This needs the permission to read the run's jobs.
//
// A re-run still has the artifacts of its earlier attempts. They count after their job has ended in this attempt. If only later jobs are
// re-run, it has ended from the beginning.

export interface ProducersTools {
  /** Undefined without a token. */
  readonly jobs: RunJobs | undefined;
  /** Name of this job's runner; may be empty. */
  readonly runnerName: string;
  readonly runAttempt: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface Producers {
  /** The jobs that have ended without it; undefined while it can still arrive, or if that is unknown. */
  readonly over: readonly RunJob[] | undefined;
  /** Older artifacts will be replaced. In ms since the epoch. */
  readonly since: number | undefined;
  /** Names of all known jobs. */
  readonly jobs: readonly string[];
}

const nothingKnown: Producers = { over: undefined, since: undefined, jobs: [] };

// Failed attempts to read the jobs before an older artifact is used.
const triesBeforeOlder = 3;

/**
 * Reads the jobs from time to time, and returns the last known facts.
 * @param wanted the name of the job that creates it, or a pattern
 * @param everyMs between two reads
 */
export function watchProducers(
  wanted: string | undefined,
  { jobs, runnerName, runAttempt, log, signal }: ProducersTools,
  everyMs: number,
): () => Promise<Producers> {
  const isAgain = runAttempt > 1;
  if (isAgain && (jobs === undefined || wanted === undefined)) log.warning(mayBeOlder(runAttempt));
  let known = nothingKnown;
  let earlier: readonly RunJob[] | undefined;
  let isReadable = jobs !== undefined;
  let askedMs = -Infinity;
  let wasOver = false;
  let failures = 0;
  return async () => {
    if (jobs === undefined || !isReadable || performance.now() - askedMs < everyMs) return known;
    askedMs = performance.now();
    try {
      const own = await jobs.list();
      const isUnlisted = wanted !== undefined && !own.some(({ name }) => isNamed(name, wanted));
      if (isAgain && isUnlisted) earlier ??= await jobs.earlier();
      const all = withCarriedOver(own, earlier ?? [], runnerName);
      const { ended, isCertain } = whoHasEnded(all, wanted, runnerName);
      const isRunAgain = isAgain && wanted !== undefined && ended === undefined;
      known = {
        // After the end of a job, others may start, and its artifact may be listed late. A second look is needed.
        over: isCertain || wasOver ? ended : undefined,
        since: isRunAgain ? (known.since ?? (await jobs.startedAt())) : undefined,
        jobs: all.map(({ name }) => name),
      };
      wasOver = ended !== undefined;
      failures = 0;
    } catch (error) {
      signal.throwIfAborted();
      if (!jobs.isRefusal(error)) {
        failures += 1;
        if (failures === 1)
          log.info(`The jobs of this run could not be read (${messageOf(error)}): trying again later.`);
        if (!isAgain || wanted === undefined || known !== nothingKnown) return known;
        if (failures === triesBeforeOlder) log.warning(mayBeOlder(runAttempt));
        if (failures >= triesBeforeOlder) return known;
        askedMs = -Infinity;
        return { ...nothingKnown, since: Infinity };
      }
      isReadable = false;
      log.info(
        `The jobs of this run can't be read (${messageOf(error)}): so a failed build is noticed only when the wait times out. ` +
          'The job’s own token may read them with `permissions: actions: read`.',
      );
      if (isAgain && wanted !== undefined && known === nothingKnown) log.warning(mayBeOlder(runAttempt));
      // The artifact that will be replaced is still known.
      known = { ...known, over: undefined };
    }
    return known;
  };
}

/**
 * Returns the jobs that could create the artifact, after all of them have ended: those that `wanted` names, or all others.
 * @param runnerName of this job
 * @returns certain if one of the named jobs has failed or was skipped
 */
function whoHasEnded(
  jobs: readonly RunJob[],
  wanted: string | undefined,
  runnerName: string,
): { readonly ended: readonly RunJob[] | undefined; readonly isCertain: boolean } {
  // A runner runs one job at a time.
  const own = jobs.find(({ conclusion, runner }) => conclusion === undefined && runner !== '' && runner === runnerName);
  const named = jobs.filter(({ name }) => wanted !== undefined && isNamed(name, wanted));
  const producers = wanted !== undefined ? named : own === undefined ? [] : jobs.filter((job) => job !== own);
  const isKnown = wanted !== undefined ? named.length > 0 : own !== undefined;
  const isOver = isKnown && producers.every(({ conclusion }) => conclusion !== undefined);
  return {
    ended: isOver ? producers : undefined,
    isCertain: isOver && wanted !== undefined && producers.some(({ conclusion }) => conclusion !== 'success'),
  };
}

/**
 * Returns the jobs of an attempt, with the earlier jobs that count in it. If only failed jobs are re-run, the others may be missing in the
 * new attempt (r-universe-org/help#607). A job that still waits for its re-run is also missing. But then the jobs that it waits for are
 * re-run, although they had succeeded.
 */
function withCarriedOver(jobs: readonly RunJob[], earlier: readonly RunJob[], runnerName: string): readonly RunJob[] {
  const had = new Set(earlier.filter(({ conclusion }) => conclusion === 'success').map(({ name }) => name));
  const isAllAgain = jobs.some(({ name, runner }) => runner !== runnerName && had.has(name));
  const names = new Set(jobs.map(({ name }) => name));
  return isAllAgain ? jobs : [...jobs, ...earlier.filter(({ name }) => !names.has(name))];
}

/** Returns whether a job has this name. The name of a matrix job matches all of its legs: `build` matches `build (arm64)`. */
function isNamed(name: string, wanted: string): boolean {
  if (isPattern(wanted)) return matchesPattern(wanted, name);
  return name === wanted || (name.startsWith(`${wanted} (`) && name.endsWith(')'));
}

function mayBeOlder(runAttempt: number): string {
  return (
    `This is attempt ${String(runAttempt)} of the run: an artifact of an earlier attempt is used, even if a new one is being built. ` +
    'With `wait-for-job` and `permissions: actions: read` the step waits for the new one.'
  );
}
