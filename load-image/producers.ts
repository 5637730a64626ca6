import type { RunJob, RunJobs } from '../shared/artifacts/service/run-jobs.ts';
import { messageOf } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import { isPattern, matchesPattern } from '../shared/image/artifact-name.ts';

// Which jobs of the run may still make an artifact that is waited for. Nobody tells which job makes which artifact: so it is the one that
// the user names, else any other job than this one. They can be seen only with the permission to read the run's jobs.
//
// A run that is run again still has the artifacts of its earlier attempts. Those count once the job that makes them is done in this
// attempt, which it is from the beginning when only later jobs are run again.

export interface ProducersTools {
  /** Undefined without a token. */
  readonly jobs: RunJobs | undefined;
  /** Name of the runner that this job is on; empty where nobody says. */
  readonly runnerName: string;
  readonly runAttempt: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** What is known of them. */
export interface Producers {
  /** The jobs that have ended without making it; undefined while it can still come, and where nobody knows. */
  readonly over: readonly RunJob[] | undefined;
  /** Artifacts that are older than this, in ms since the epoch, are about to be replaced. */
  readonly since: number | undefined;
  /** Names of all jobs that are known. */
  readonly jobs: readonly string[];
}

const nothingKnown: Producers = { over: undefined, since: undefined, jobs: [] };

// So often a service that answers badly is asked before an artifact of an earlier attempt is taken without knowing whether it is replaced.
const triesBeforeOlder = 3;

/**
 * Asks for the jobs now and then, and answers with what was known last in between.
 * @param wanted the name of the job that makes it, or a pattern
 * @param everyMs between two looks at the jobs
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
        // What has just ended may start others, and what it has made may not be listed at once: that takes a second look.
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
          log.info(`The jobs of this run couldn't be read (${messageOf(error)}): trying again later.`);
        if (!isAgain || wanted === undefined || known !== nothingKnown) return known;
        if (failures === triesBeforeOlder) log.warning(mayBeOlder(runAttempt));
        if (failures >= triesBeforeOlder) return known;
        askedMs = -Infinity;
        return { ...nothingKnown, since: Infinity };
      }
      isReadable = false;
      log.info(
        `The jobs of this run can't be read (${messageOf(error)}): that the build has failed is noticed at the limit only. ` +
          'The job’s own token may read them with `permissions: actions: read`.',
      );
      if (isAgain && wanted !== undefined && known === nothingKnown) log.warning(mayBeOlder(runAttempt));
      // What was known to be about to be replaced still is.
      known = { ...known, over: undefined };
    }
    return known;
  };
}

/**
 * The jobs that were to make what is wanted, once all of them have ended: those that `wanted` names, else all but this one.
 * @param runnerName of this job
 * @returns certain where one of them has failed or was left out, and it is known that nobody else is to make it
 * @internal
 */
export function whoHasEnded(
  jobs: readonly RunJob[],
  wanted: string | undefined,
  runnerName: string,
): { readonly ended: readonly RunJob[] | undefined; readonly isCertain: boolean } {
  // A runner has one job at a time.
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
 * The jobs of an attempt, with those of earlier ones that count in it. When only failed jobs are run again, the others may not be
 * listed in the new attempt (r-universe-org/help#607); a job that is yet to be run again isn't either, while it waits for another. But
 * those that it waits for are run again though they had succeeded.
 * @internal
 */
export function withCarriedOver(
  jobs: readonly RunJob[],
  earlier: readonly RunJob[],
  runnerName: string,
): readonly RunJob[] {
  const had = new Set(earlier.filter(({ conclusion }) => conclusion === 'success').map(({ name }) => name));
  const isAllAgain = jobs.some(({ name, runner }) => runner !== runnerName && had.has(name));
  const names = new Set(jobs.map(({ name }) => name));
  return isAllAgain ? jobs : [...jobs, ...earlier.filter(({ name }) => !names.has(name))];
}

/** Of a matrix, the job's own name stands for all of its legs: `build` for `build (arm64)`. */
function isNamed(name: string, wanted: string): boolean {
  if (isPattern(wanted)) return matchesPattern(wanted, name);
  return name === wanted || (name.startsWith(`${wanted} (`) && name.endsWith(')'));
}

function mayBeOlder(runAttempt: number): string {
  return (
    `This is attempt ${String(runAttempt)} of the run: an artifact of an earlier attempt is taken, even where it is being built again. ` +
    'With `wait-for-job` and `permissions: actions: read` the new one is waited for.'
  );
}
