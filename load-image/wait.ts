import { setTimeout as sleep } from 'node:timers/promises';
import type { RunJob, RunJobs } from '../shared/artifacts/service/workflow-runs.ts';
import type { Artifact, ArtifactReader } from '../shared/artifacts/store.ts';
import { messageOf } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import { formatDuration } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { artifactNotFound, selectArtifacts, type WaitTimeout } from '../shared/handed-over/find.ts';
import { backoff } from '../shared/http/retry.ts';
import { isPattern, matchesPattern } from '../shared/image/artifact-name.ts';
import type { WaitPlan } from './plan/plan.ts';

// Waits for an artifact that is still being built. The rest of the code only notices that listing the artifacts takes longer. The wait ends
// when all wanted artifacts exist, at the time limit, or when the jobs that may still create them have ended. The service doesn't show
// which job creates an artifact. So the user can name that job; otherwise, all other jobs are watched. This requires permission to read the
// run's jobs.
//
// A re-run still has the artifacts of its earlier attempts. An older artifact is accepted once its job has ended in this attempt. If only
// later jobs are re-run, that job has ended from the start.

interface WaitTools {
  /** Undefined if there is no token. */
  readonly jobs: RunJobs | undefined;
  /** Name of this job's runner; may be empty. */
  readonly runnerName: string;
  readonly runAttempt: number;
  readonly log: Log;
  readonly timeline: Timeline;
  readonly signal: AbortSignal;
  readonly pace?: WaitPace;
}

/** All times in ms. */
interface WaitPace {
  /** The first and the longest pause between two lookups of the artifacts. */
  readonly pause: readonly [number, number];
  /** Pause between two lookups of the jobs. Even with ten waiting jobs, this stays far below GitHub's hourly limit for a token. */
  readonly jobs: number;
  /** Pause between two log lines. */
  readonly tell: number;
}

const usualPace: WaitPace = { pause: [1000, 15_000], jobs: 30_000, tell: 60_000 };

/**
 * Returns the same reader, but `list` waits until all artifacts that the plan wants exist.
 * @throws HandoverError `artifact-not-found` from `list`, with the waiting time and the reason why the wait ended
 */
export function waitingReader(reader: ArtifactReader, plan: WaitPlan, tools: WaitTools): ArtifactReader {
  let waited: Promise<readonly Artifact[]> | undefined;
  return {
    list: () => (waited ??= untilThere(reader, plan, tools)),
    open: (artifact) => reader.open(artifact),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

async function untilThere(reader: ArtifactReader, plan: WaitPlan, tools: WaitTools): Promise<readonly Artifact[]> {
  const { runAttempt, log, timeline, signal, pace = usualPace } = tools;
  const producers = watchProducers(plan.job, tools, pace.jobs);
  const began = performance.now();
  const limitMs = plan.minutes * 60_000;
  /** Returns the artifacts, and the wanted names that have none yet. Throws if the wait ends without them. */
  const look = async () => {
    // The jobs are read first. So if a job has ended, its artifact is in the list.
    const state = await producers();
    const all = await reader.list();
    // Leaves out artifacts of an earlier attempt that are being created again.
    const artifacts = all.filter(
      ({ createdAt }) => createdAt === undefined || state.since === undefined || Date.parse(createdAt) >= state.since,
    );
    const { missing } = selectArtifacts(plan.wanted, artifacts);
    const waitedMs = performance.now() - began;
    if (missing.length > 0 && (state.over !== undefined || waitedMs >= limitMs))
      throw artifactNotFound(missing, all, runAttempt, waitTimeout(state, waitedMs));
    return { artifacts, missing, waitedMs };
  };
  const first = await look();
  if (first.missing.length === 0) return first.artifacts;
  return timeline.measure('Wait for the artifact', async () => {
    log.info(`Waiting for ${listed(first.missing)}, for ${formatDuration(limitMs)} at most.`);
    const pauseMs = backoff(...pace.pause);
    let toldMs = 0;
    for (let looks = 1; ; looks += 1) {
      const leftMs = limitMs - (performance.now() - began);
      await sleep(Math.min(pauseMs(looks), Math.max(0, leftMs)), undefined, { signal });
      const { artifacts, missing, waitedMs } = await look();
      if (missing.length === 0) {
        log.info(`Artifact ${listed(plan.wanted)} appeared after ${formatDuration(waitedMs)}.`);
        return artifacts;
      }
      if (waitedMs - toldMs < pace.tell) continue;
      log.info(`Still waiting for ${listed(missing)}, after ${formatDuration(waitedMs)}.`);
      toldMs = waitedMs;
    }
  });
}

function waitTimeout({ over, jobs }: Producers, waitedMs: number): WaitTimeout {
  const gaveUp = `Gave up after ${formatDuration(waitedMs)} (\`wait-minutes\`)`;
  if (over !== undefined)
    return {
      why: `${gaveUp}: ${described(over)}.`,
      hint: 'Check the log of that job. If another job creates the artifact, set `wait-for-job` to its name.',
    };
  const there = jobs.length === 0 ? '' : ` The run’s jobs: ${jobs.slice(0, 30).join(', ')}.`;
  return {
    why: `${gaveUp}.`,
    hint: `Raise \`wait-minutes\` if the image takes longer to build. Otherwise check \`artifact-name\`, and whether its job ran at all.${there}`,
  };
}

function described(ended: readonly RunJob[]): string {
  const failed = ended.filter(({ conclusion }) => conclusion !== 'success');
  const shown = (failed.length > 0 ? failed : ended).slice(0, 5);
  if (shown.length === 0) return 'no other job of this run can still make it';
  const words = shown.map(({ name, conclusion, url }) => `"${name}" (${conclusion ?? ''}, ${url})`).join(', ');
  return `${shown.length === 1 ? 'the job' : 'the jobs'} ${words} ended without it`;
}

function listed(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(', ');
}

interface Producers {
  /** The jobs that have ended without the artifact; undefined while it can still appear, or if that is unknown. */
  readonly over: readonly RunJob[] | undefined;
  /** Artifacts created before this time will be replaced. In ms since the epoch. */
  readonly since: number | undefined;
  /** Names of all known jobs. */
  readonly jobs: readonly string[];
}

const nothingKnown: Producers = { over: undefined, since: undefined, jobs: [] };

// Number of failed attempts to read the jobs, after which an older artifact is used.
const triesBeforeOlder = 3;

/**
 * Watches the jobs of the run that may still create the artifact. The returned function reads them from time to time, and returns the
 * latest known facts.
 * @param wanted the name of the job that creates the artifact, or a pattern
 * @param everyMs ms between two reads
 * @internal
 */
export function watchProducers(
  wanted: string | undefined,
  { jobs, runnerName, runAttempt, log, signal }: WaitTools,
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
        // After a job has ended, others may start, and its artifact may be listed late. So a second check is needed.
        over: isCertain || wasOver ? ended : undefined,
        since: isRunAgain ? (known.since ?? (await jobs.startedAt())) : undefined,
        jobs: all.map(({ name }) => name),
      };
      wasOver = ended !== undefined;
      failures = 0;
    } catch (error) {
      signal.throwIfAborted();
      // So far, nothing shows that an older artifact will be replaced.
      const mayUseOlder = isAgain && wanted !== undefined && known === nothingKnown;
      if (!jobs.isRefusal(error)) {
        failures += 1;
        if (failures === 1)
          log.info(`The jobs of this run could not be read (${messageOf(error)}): trying again later.`);
        if (mayUseOlder && failures === triesBeforeOlder) log.warning(mayBeOlder(runAttempt));
        if (!mayUseOlder || failures >= triesBeforeOlder) return known;
        askedMs = -Infinity;
        return { ...nothingKnown, since: Infinity };
      }
      isReadable = false;
      log.info(
        `The jobs of this run can't be read (${messageOf(error)}), so a failed build is noticed only when the wait times out. ` +
          'The job’s own token may read them with `permissions: actions: read`.',
      );
      if (mayUseOlder) log.warning(mayBeOlder(runAttempt));
      // It is still known which artifacts will be replaced.
      known = { ...known, over: undefined };
    }
    return known;
  };
}

/**
 * Returns the jobs that could create the artifact, if all of them have ended: those that `wanted` names, or all other jobs.
 * @param runnerName the name of this job's runner
 * @returns `isCertain` is true if one of the named jobs has failed or was skipped
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
 * Returns the jobs of an attempt, and the earlier jobs that still count. If only failed jobs are re-run, the new attempt may not list the
 * others (r-universe-org/help#607). A job that still waits for its re-run isn't listed either. But in that case, the jobs that it waits for
 * are re-run although they had succeeded.
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
    'With `wait-for-job` and `permissions: actions: read`, the step waits for the new one.'
  );
}
