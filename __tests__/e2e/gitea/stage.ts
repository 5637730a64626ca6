import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse, stringify } from 'yaml';
import { type Gitea, startGitea } from '../../../dev/gitea.ts';
import { asError } from '../../../shared/base/errors.ts';
import { isObject, type JsonObject, objectsOf, parseJson, stringMapOf, stringOr } from '../../../shared/base/json.ts';
import type { WorkflowRun } from '../act.ts';
import { type AnyStage, engineOf, runInAct, type RunOptions, type Stage } from '../stage.ts';
import { registerRunner, type Result, type Runner, type Task } from './runner.ts';

/** The environment of a scenario on a real Gitea: it starts the runs, and its runner executes each job in act. */
export interface GiteaStage extends AnyStage {
  readonly gitea: Gitea;
  /** Pushes a workflow to main. Returns its run when all its jobs have ended. */
  workflow(text: string, options?: GiteaRunOptions): Promise<WorkflowRun>;
  /** Pushes a workflow to main. Returns the ID of its run. Gitea cancels earlier runs. */
  push(text: string, options?: GiteaRunOptions): Promise<number>;
  /** Returns the latest result of each job of a run when all have ended. */
  finished(runId: number): Promise<WorkflowRun>;
}

export interface GiteaRunOptions extends Pick<RunOptions, 'builderJobs' | 'repository'> {
  /** Address of the artifact service for the jobs. Default: Gitea's. */
  readonly resultsUrl?: string;
}

/** Runs the work with a new Gitea. */
export async function onGitea(
  { world, recipe, folders }: Stage,
  work: (stage: GiteaStage) => Promise<void>,
): Promise<void> {
  const gitea = await startGitea();
  const runner = await registerRunner(gitea);
  let first: string | undefined;
  let options: GiteaRunOptions = {};
  const executor = startExecutor(runner, (task) => execute({ gitea, runner, world, folders, options }, task));
  const stage: GiteaStage = {
    gitea,
    world,
    recipe,
    push: (text, given = {}) => {
      first ??= given.repository ?? world.repository();
      options = { repository: first, ...given };
      return push(gitea, options.repository ?? first, text);
    },
    finished: async (runId) => {
      for (;;) {
        const isOver = await hasEnded(gitea, runId);
        const parts = executor.ended(runId);
        if (isOver && parts !== undefined) return latestOf(parts);
        await sleep(200);
      }
    },
    workflow: async (text, given) => stage.finished(await stage.push(text, given)),
  };
  try {
    await work(stage);
  } finally {
    await executor.stop();
    await gitea.stop();
  }
}

/** Returns whether all jobs have ended. The status of a run with a failed job ignores jobs that are still blocked by others. */
async function hasEnded(gitea: Gitea, runId: number): Promise<boolean> {
  const answer = await gitea.api('GET', `/repos/${gitea.repository}/actions/runs/${String(runId)}/jobs`);
  const jobs = objectsOf(isObject(answer) ? answer['jobs'] : []);
  return jobs.length > 0 && jobs.every(({ status }) => status === 'completed');
}

/** Returns a run with the last result of each job. */
function latestOf(parts: readonly WorkflowRun[]): WorkflowRun {
  const keyed = parts.flatMap(({ jobs }) => jobs.map((job) => [JSON.stringify([job.id, job.matrix]), job] as const));
  const jobs = [...new Map(keyed).values()];
  const succeeded = jobs.every(({ result }) => result === undefined || result === 'success');
  return { succeeded, jobs, log: parts.map(({ log }) => log).join('\n') };
}

interface Executor {
  /** Returns the parts of a run that have ended, in order; undefined while any part is running. */
  ended(runId: number): readonly WorkflowRun[] | undefined;
  stop(): Promise<void>;
}

/** Executes all tasks that the runner gets, each as soon as it arrives. */
function startExecutor(runner: Runner, work: (task: Task) => Promise<WorkflowRun>): Executor {
  const running = new Map<Task, Promise<void>>();
  const ended: { readonly runId: number; readonly run: WorkflowRun }[] = [];
  const stopped = new AbortController();
  let broken: unknown;
  const runOf = (task: Task): number => Number(task.context['run_id']);
  const start = (task: Task): void => {
    const executed = work(task)
      .then(
        (run) => void ended.push({ runId: runOf(task), run }),
        (error: unknown) => (broken = error),
      )
      .then(() => void running.delete(task));
    running.set(task, executed);
  };
  const loop = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      const task = await runner.fetch();
      if (task === undefined) await sleep(200);
      else start(task);
    }
  };
  const looping = loop().catch((error: unknown) => (broken = error));
  return {
    ended: (runId) => {
      if (broken !== undefined) throw asError(broken);
      if ([...running.keys()].some((task) => runOf(task) === runId)) return undefined;
      return ended.filter((item) => item.runId === runId).map(({ run }) => run);
    },
    stop: async () => {
      stopped.abort();
      await looping;
      await Promise.all(running.values());
    },
  };
}

/** Pushes a commit with a workflow to main. Returns the ID of its run. */
async function push(gitea: Gitea, repository: string, text: string): Promise<number> {
  const { user, password } = gitea.admin;
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', repository, '-c', 'user.name=test', '-c', 'user.email=test@example.org', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    }).trim();
  mkdirSync(join(repository, '.gitea', 'workflows'), { recursive: true });
  writeFileSync(join(repository, '.gitea', 'workflows', 'ci.yml'), text);
  git('add', '--all');
  git('commit', '--quiet', '--allow-empty', '--message', 'A workflow to be run');
  const address = new URL(`/${gitea.repository}.git`, gitea.url);
  Object.assign(address, { username: user, password });
  git('push', '--quiet', '--force', address.href, 'HEAD:refs/heads/main');
  const commit = git('rev-parse', 'HEAD');
  for (let tries = 0; tries < 600; tries += 1) {
    const answer = await gitea.api('GET', `/repos/${gitea.repository}/actions/runs?head_sha=${commit}`);
    const [run] = objectsOf(isObject(answer) ? answer['workflow_runs'] : []);
    if (run !== undefined) return Number(run['id']);
    await sleep(100);
  }
  throw new Error('Gitea started no run for the push');
}

interface Execution {
  readonly gitea: Gitea;
  readonly runner: Runner;
  readonly world: Stage['world'];
  readonly folders: Stage['folders'];
  readonly options: GiteaRunOptions;
}

/** Executes one job. Returns a run with only that job. */
async function execute({ gitea, runner, world, folders, options }: Execution, task: Task): Promise<WorkflowRun> {
  const { context } = task;
  const folder = join(folders.own, `task-${task.id}`);
  mkdirSync(folder, { recursive: true });
  const outputs = join(folder, 'outputs');
  const { jobId, text } = workflowOf(task, outputs);
  const fact = (name: string): string => stringOr(context[name], '');
  const cancelled = new AbortController();
  const watch = setInterval(() => {
    void runner.isCancelled(task).then((is) => is && cancelled.abort());
  }, 500);
  const run = await runInAct({
    ...{ world, text, folder, env: {}, args: [], signal: cancelled.signal, repository: options.repository ?? '' },
    cacheFolder: join(folders.own, 'cache', jobId),
    event: { name: fact('event_name'), ref: fact('ref'), payload: context['event'] },
    // The variables of Gitea's runner (gitea.com/gitea/act_runner, internal/app/run/runner.go, and its copy of act).
    github: {
      GITHUB_REPOSITORY: fact('repository'),
      GITHUB_REPOSITORY_OWNER: fact('repository_owner'),
      GITHUB_RUN_ID: fact('run_id'),
      GITHUB_RUN_ATTEMPT: fact('run_attempt'),
      GITHUB_SERVER_URL: gitea.url,
      GITHUB_API_URL: `${gitea.url}/api/v1`,
    },
    token: fact('token'),
    variables: () => ({
      GITEA_ACTIONS: 'true',
      ACTIONS_RUNTIME_TOKEN: fact('gitea_runtime_token'),
      ACTIONS_RESULTS_URL: options.resultsUrl ?? gitea.url,
    }),
    engine: (id) => engineOf(id, options),
    logFile: join(folders.logs, `${basename(folders.own)}-${task.id}-${jobId}.log`),
  }).finally(() => clearInterval(watch));
  const jobs = run.jobs.filter(({ id }) => id === jobId);
  await runner.finish(task, resultOf(jobs[0]?.result, cancelled.signal), readOutputs(outputs));
  return { ...run, jobs };
}

function resultOf(result: string | undefined, { aborted }: AbortSignal): Result {
  if (aborted) return 'cancelled';
  if (result === undefined) return 'skipped';
  return result === 'success' ? 'success' : 'failure';
}

/**
 * Returns a task's workflow for act: jobs with the known results and outputs replace those that it needs, and another job writes
 * its outputs to a file.
 */
function workflowOf(task: Task, outputsFile: string): { readonly jobId: string; readonly text: string } {
  const workflow: unknown = parse(task.workflow);
  assert.ok(isObject(workflow) && isObject(workflow['jobs']));
  const [[jobId, job] = ['', {}]] = Object.entries(workflow['jobs']);
  assert.ok(isObject(job));
  const label = { 'runs-on': 'ubuntu-latest' };
  const needed = Object.entries(task.needs).map(([id, { result, outputs }]): [string, JsonObject] => [
    id,
    {
      ...{ ...label, outputs, if: result === 'skipped' ? 'false' : 'true' },
      steps: [{ run: result === 'success' ? 'true' : 'false' }],
    },
  ]);
  const report = {
    ...{ ...label, needs: [jobId], if: 'always()' },
    steps: [
      { run: `printf %s "$OUTPUTS" > '${outputsFile}'`, env: { OUTPUTS: `\${{ toJSON(needs['${jobId}'].outputs) }}` } },
    ],
  };
  const jobs = {
    ...Object.fromEntries(needed),
    [jobId]: { ...job, needs: Object.keys(task.needs) },
    'report-outputs': report,
  };
  return { jobId, text: stringify({ ...workflow, jobs }) };
}

function readOutputs(file: string): Readonly<Record<string, string>> {
  return existsSync(file) ? stringMapOf(parseJson(readFileSync(file, 'utf8'))) : {};
}
