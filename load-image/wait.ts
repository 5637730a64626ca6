import { setTimeout as sleep } from 'node:timers/promises';
import type { RunJob } from '../shared/artifacts/run-jobs.ts';
import type { Artifact, ArtifactReader } from '../shared/artifacts/store.ts';
import { backoff } from '../shared/base/retry.ts';
import { formatDuration } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { artifactNotFound, selectArtifacts, type WaitTimeout } from '../shared/handed-over/find.ts';
import type { WaitPlan } from './plan/wait-plan.ts';
import { type Producers, type ProducersTools, watchProducers } from './producers.ts';

// A load that begins before the image is built. To the rest of the story it is a run whose artifacts take their time to be
// listed: the wait is behind `list()`. It ends when all that is wanted is there; at the limit; and before that when the job that
// makes it has ended without it, as far as the run's jobs may be read (producers.ts).

export interface WaitTools extends ProducersTools {
  readonly timeline: Timeline;
  readonly pace?: WaitPace;
}

/** In ms. */
interface WaitPace {
  /** The first pause between two looks at the artifacts, and the longest one. */
  readonly pause: readonly [number, number];
  /** Between two looks at the jobs: with ten jobs that wait, they stay far below what GitHub lets a token ask in an hour. */
  readonly jobs: number;
  /** Between two lines in the log. */
  readonly tell: number;
}

const usualPace: WaitPace = { pause: [1000, 15_000], jobs: 30_000, tell: 60_000 };

/**
 * The same artifacts, whose list waits until all that the plan wants are there.
 * @throws HandoverError `artifact-not-found` from `list`, saying how long was waited and why not longer
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
  const look = async (): Promise<Look> => {
    // First the jobs: what one of them has made before it ended is then listed.
    const state = await producers();
    const all = await reader.list();
    const artifacts = all.filter(({ createdAt }) => counts(createdAt, state));
    return { state, all, artifacts, missing: selectArtifacts(plan.wanted, artifacts).missing };
  };
  /** What the look has found, if that ends the wait. */
  const found = ({ state, all, artifacts, missing }: Look): readonly Artifact[] | undefined => {
    if (missing.length === 0) return artifacts;
    const waitedMs = performance.now() - began;
    if (state.over === undefined && waitedMs < limitMs) return undefined;
    throw artifactNotFound(missing, all, runAttempt, inVain(state, waitedMs));
  };
  const first = await look();
  const there = found(first);
  if (there !== undefined) return there;
  return timeline.measure('Wait for the artifact', async () => {
    log.info(`Waiting for ${listed(first.missing)}, for ${formatDuration(limitMs)} at most.`);
    const pauseMs = backoff(...pace.pause);
    let toldMs = 0;
    for (let looks = 1; ; looks += 1) {
      const leftMs = limitMs - (performance.now() - began);
      await sleep(Math.min(pauseMs(looks), Math.max(0, leftMs)), undefined, { signal });
      const now = await look();
      const artifacts = found(now);
      const waitedMs = performance.now() - began;
      if (artifacts !== undefined) {
        log.info(`There after ${formatDuration(waitedMs)}: ${listed(plan.wanted)}`);
        return artifacts;
      }
      if (waitedMs - toldMs < pace.tell) continue;
      log.info(`Still waiting for ${listed(now.missing)}, after ${formatDuration(waitedMs)}.`);
      toldMs = waitedMs;
    }
  });
}

function inVain(state: Producers, waitedMs: number): WaitTimeout {
  const waited = `It was waited for, for ${formatDuration(waitedMs)} (\`wait-minutes\`)`;
  return state.over === undefined
    ? { why: `${waited}.`, hint: lateHint(state) }
    : { why: `${waited}, and no longer: ${described(state.over)}.`, hint: endedHint };
}

interface Look {
  readonly state: Producers;
  readonly all: readonly Artifact[];
  /** Those that count. */
  readonly artifacts: readonly Artifact[];
  readonly missing: readonly string[];
}

function counts(createdAt: string | undefined, { since }: Producers): boolean {
  return since === undefined || createdAt === undefined || Date.parse(createdAt) >= since;
}

function described(ended: readonly RunJob[]): string {
  const failed = ended.filter(({ conclusion }) => conclusion !== 'success');
  const shown = (failed.length > 0 ? failed : ended).slice(0, 5);
  if (shown.length === 0) return 'no other job of this run is left that could make it';
  const words = shown.map(({ name, conclusion, url }) => `"${name}" (${conclusion ?? ''}, ${url})`).join(', ');
  return `${shown.length === 1 ? 'the job' : 'the jobs'} ${words} ended without it`;
}

const endedHint = 'Look at the log of that job. If it is another one that makes the image, name it: `wait-for-job`.';

function lateHint({ jobs }: Producers): string {
  const there = jobs.length === 0 ? '' : ` The run’s jobs: ${jobs.slice(0, 30).join(', ')}.`;
  return `Raise \`wait-minutes\` if the image takes longer to build; else check \`artifact-name\`, and whether its job ran at all.${there}`;
}

function listed(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(', ');
}
