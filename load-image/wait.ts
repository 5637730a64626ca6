import { setTimeout as sleep } from 'node:timers/promises';
import type { RunJob } from '../shared/artifacts/service/workflow-runs.ts';
import type { Artifact, ArtifactReader } from '../shared/artifacts/store.ts';
import { backoff } from '../shared/http/retry.ts';
import { formatDuration } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { artifactNotFound, selectArtifacts, type WaitTimeout } from '../shared/handed-over/find.ts';
import type { WaitPlan } from './plan/wait-plan.ts';
import { type Producers, type ProducersTools, watchProducers } from './producers.ts';

// Waits for an artifact that is still being built. The rest of the code only sees a list of artifacts that takes long. The wait ends when
// all wanted artifacts exist, at the time limit, or when the job that should make them has ended (producers.ts).

export interface WaitTools extends ProducersTools {
  readonly timeline: Timeline;
  readonly pace?: WaitPace;
}

/** In ms. */
interface WaitPace {
  /** The first pause between two lists of the artifacts, and the longest one. */
  readonly pause: readonly [number, number];
  /** Pause between two lists of the jobs. Even with ten waiting jobs that is far below GitHub's hourly limit for a token. */
  readonly jobs: number;
  /** Pause between two lines in the log. */
  readonly tell: number;
}

const usualPace: WaitPace = { pause: [1000, 15_000], jobs: 30_000, tell: 60_000 };

/**
 * Returns the same reader, but `list` waits until all artifacts that the plan wants exist.
 * @throws HandoverError `artifact-not-found` from `list`, with the time waited and the reason for the end
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
    // The jobs come first: an artifact that a job made before it ended is then listed.
    const state = await producers();
    const all = await reader.list();
    const artifacts = all.filter(({ createdAt }) => counts(createdAt, state));
    return { state, all, artifacts, missing: selectArtifacts(plan.wanted, artifacts).missing };
  };
  /** Returns the artifacts if all exist. Throws when the wait is over without them. */
  const found = ({ state, all, artifacts, missing }: Look): readonly Artifact[] | undefined => {
    if (missing.length === 0) return artifacts;
    const waitedMs = performance.now() - began;
    if (state.over === undefined && waitedMs < limitMs) return undefined;
    throw artifactNotFound(missing, all, runAttempt, waitTimeout(state, waitedMs));
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
        log.info(`Artifact ${listed(plan.wanted)} appeared after ${formatDuration(waitedMs)}.`);
        return artifacts;
      }
      if (waitedMs - toldMs < pace.tell) continue;
      log.info(`Still waiting for ${listed(now.missing)}, after ${formatDuration(waitedMs)}.`);
      toldMs = waitedMs;
    }
  });
}

function waitTimeout(state: Producers, waitedMs: number): WaitTimeout {
  const gaveUp = `Gave up after ${formatDuration(waitedMs)} (\`wait-minutes\`)`;
  return state.over === undefined
    ? { why: `${gaveUp}.`, hint: lateHint(state) }
    : { why: `${gaveUp}: ${described(state.over)}.`, hint: endedHint };
}

interface Look {
  readonly state: Producers;
  readonly all: readonly Artifact[];
  /** Without those of an earlier attempt that are being made again. */
  readonly artifacts: readonly Artifact[];
  readonly missing: readonly string[];
}

function counts(createdAt: string | undefined, { since }: Producers): boolean {
  return since === undefined || createdAt === undefined || Date.parse(createdAt) >= since;
}

function described(ended: readonly RunJob[]): string {
  const failed = ended.filter(({ conclusion }) => conclusion !== 'success');
  const shown = (failed.length > 0 ? failed : ended).slice(0, 5);
  if (shown.length === 0) return 'no other job of this run can still make it';
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
