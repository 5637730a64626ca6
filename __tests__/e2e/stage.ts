import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type ArtifactService, type Job, startArtifactService } from '../fakes/artifact-service/service.ts';
import type { CacheAccess } from '../fakes/artifact-service/token.ts';
import type { Login } from '../../dev/docker-registry.ts';
import { isObject } from '../../shared/base/json.ts';
import { type JobRun, runAct, type WorkflowRun } from './act.ts';
import { recipeText } from './recipes.ts';
import { type EngineName, runnerPath, type World } from './world.ts';

/** Workflows to run, and checks of their results. */
export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** Recipes in the documentation that it runs (`file#heading`). */
  readonly recipes: readonly string[];
  /** Runs the workflows. Throws if a result is wrong. */
  readonly run: (stage: Stage) => Promise<void>;
  /** If set, it runs only when a filter names this host, because it needs a Go part that takes long to build. */
  readonly host?: 'gitea';
}

export interface RunOptions {
  /** Jobs whose runner has the builder's engine. Default: those named `build…`. */
  readonly builderJobs?: readonly string[];
  readonly attempt?: number;
  /** ID of the run. Attempts of a run share it. */
  readonly runId?: string;
  readonly event?: { readonly name: string; readonly ref: string; readonly payload: unknown };
  /** A clone of the repository to run in. Default: the clone of the scenario's first run. */
  readonly repository?: string;
  /** Access of the jobs' tokens to the fake cache service. Default: act's own cache server is used. */
  readonly cache?: CacheAccess;
  /** Additional environment of all jobs. */
  readonly env?: Readonly<Record<string, string>>;
  /** If set, act's own artifact server is used, with these settings. */
  readonly artifactServer?: Readonly<Record<'path' | 'addr' | 'port', string>>;
}

/** The environment of a scenario that runs on any host: two engines without images, and workflows. */
export interface AnyStage {
  readonly world: World;
  /** Returns a YAML snippet below a heading of the scenario. Default: the first one. */
  recipe(id: string, index?: number): string;
  /** Runs a workflow. */
  workflow(text: string, options?: RunOptions): Promise<WorkflowRun>;
}

/** The environment of a scenario on this project's fake of GitHub: its artifact service and cache. */
export interface Stage extends AnyStage {
  readonly service: ArtifactService;
  /** Registry login of jobs: `github.actor`, which act sets, and the job's token. */
  readonly login: Login;
  /** The scenario's own folder, which is kept until all scenarios have ended, and the folder for workflow logs. */
  readonly folders: { readonly own: string; readonly logs: string };
}

const standIns = join(import.meta.dirname, 'actions');

/** Returns the replacements of actions that can't be fetched here, with their descriptions. */
export function standInTable(): readonly (readonly [string, string])[] {
  const folders = readdirSync(standIns, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.map(({ name }) => {
    const yaml: unknown = parse(readFileSync(join(standIns, name, 'action.yml'), 'utf8'));
    const description = isObject(yaml) ? String(yaml['description']) : '';
    return [name.replace('-', '/'), description] as const;
  });
}

/** Runs a scenario with its own artifact service. */
export async function runScenario(scenario: Scenario, world: World, logs: string): Promise<void> {
  const service = await startArtifactService();
  const folder = join(world.directory, scenario.name);
  mkdirSync(folder, { recursive: true });
  let runs = 0;
  let repository: string | undefined;
  try {
    world.clearEngines();
    await scenario.run({
      world,
      service,
      folders: { own: folder, logs },
      login: { user: 'nektos/act', password: service.rest.token },
      recipe: (id, index = 0) => {
        assert.ok(scenario.recipes.includes(id), `${id} is not in the recipes of ${scenario.name}`);
        return recipeText(id, index);
      },
      workflow: (text, options = {}) => {
        const number = (runs += 1);
        repository = options.repository ?? repository ?? world.repository();
        const logFile = join(logs, `${scenario.name}-${String(number)}.log`);
        return runWorkflow({ world, service, folder, repository, text, options, number, logFile });
      },
    });
  } finally {
    await service.close();
    // All runners of this machine share the default path of the tarball.
    rmSync('/tmp/charon.tar', { force: true });
  }
}

interface Call {
  readonly world: World;
  readonly service: ArtifactService;
  readonly folder: string;
  readonly repository: string;
  readonly text: string;
  readonly options: RunOptions;
  readonly number: number;
  readonly logFile: string;
}

function runWorkflow({
  world,
  service,
  folder,
  repository,
  text,
  options,
  number,
  logFile,
}: Call): Promise<WorkflowRun> {
  const { runId = '1', attempt = 1, event } = options;
  const ref = event?.ref ?? 'refs/heads/main';
  const payload = { ref, repository: { full_name: 'org/charon', default_branch: 'main', fork: false } };
  return runInAct({
    ...{ world, repository, text, logFile, env: options.env ?? {} },
    folder: join(folder, String(number)),
    cacheFolder: join(folder, 'cache'),
    event: event ?? { name: 'push', ref, payload },
    github: {
      GITHUB_RUN_ID: runId,
      GITHUB_RUN_ATTEMPT: String(attempt),
      GITHUB_SERVER_URL: world.gitUrl,
      GITHUB_API_URL: service.env()['GITHUB_API_URL'] ?? '',
    },
    token: service.rest.token,
    variables: (jobId) => jobVariables(service, { runId, jobId, attempt }, options),
    args: Object.entries(options.artifactServer ?? {}).flatMap(([name, value]) => [`--artifact-server-${name}`, value]),
    engine: (jobId) => engineOf(jobId, options),
  });
}

/** A workflow of org/charon to run in act. */
export interface ActRun {
  readonly world: World;
  /** A clone of the repository, at the commit of the run. */
  readonly repository: string;
  readonly text: string;
  readonly event: { readonly name: string; readonly ref: string; readonly payload: unknown };
  /** Variables of the runner that describe the run. */
  readonly github: Readonly<Record<string, string>>;
  /** The job's token: `github.token`. */
  readonly token: string;
  /** Returns additional variables for the actions of a job. Its `run:` steps don't get them. */
  readonly variables: (jobId: string) => Readonly<Record<string, string>>;
  readonly engine: (jobId: string) => EngineName;
  /** Additional arguments of act. */
  readonly args: readonly string[];
  /** Additional environment of all jobs. */
  readonly env: Readonly<Record<string, string>>;
  /** A folder that only this run uses. */
  readonly folder: string;
  /** The folder of act's cache server. */
  readonly cacheFolder: string;
  readonly logFile: string;
  readonly signal?: AbortSignal;
}

export function runInAct(run: ActRun): Promise<WorkflowRun> {
  const { world, folder, repository, text, event, logFile, signal } = run;
  const jobs = join(folder, 'jobs');
  const cache = join(folder, 'actions');
  for (const path of [jobs, cache, join(folder, 'home')]) mkdirSync(path, { recursive: true });
  const workflow = join(folder, 'workflow.yml');
  writeFileSync(workflow, text);
  for (const id of jobIds(text)) writeJob(join(jobs, id), run.variables(id), run.engine(id));
  const payload = join(folder, 'event.json');
  writeFileSync(payload, JSON.stringify(event.payload));
  const github = {
    GITHUB_REPOSITORY: 'org/charon',
    GITHUB_REPOSITORY_OWNER: 'org',
    GITHUB_REF: event.ref,
    ...run.github,
  };
  const args = [
    ...[event.name, '--directory', repository, '--workflows', workflow, '--eventpath', payload],
    ...[
      '--platform',
      'ubuntu-latest=-self-hosted',
      '--platform',
      'self-hosted=-self-hosted',
      '--no-skip-checkout',
      '--container-daemon-socket',
      '-',
    ],
    ...['--action-cache-path', cache, '--cache-server-addr', '127.0.0.1'],
    ...['--cache-server-path', run.cacheFolder, '--secret', `GITHUB_TOKEN=${run.token}`],
    ...Object.entries(github).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ...localRepositories(text, world).flatMap((mapping) => ['--local-repository', mapping]),
    ...run.args,
  ];
  const env = { PATH: runnerPath(world), HOME: join(folder, 'home'), LANG: 'C.UTF-8', E2E_JOBS: jobs, ...run.env };
  return runAct({ args, env, cwd: repository, logFile, ...(signal === undefined ? {} : { signal }) });
}

function jobVariables(
  service: ArtifactService,
  job: Job,
  { cache, artifactServer }: RunOptions,
): Readonly<Record<string, string>> {
  if (artifactServer !== undefined) return {};
  const { ACTIONS_RUNTIME_TOKEN = '', ACTIONS_RESULTS_URL = '' } = service.env(
    cache === undefined ? job : { ...job, cache },
  );
  const variables = { ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL };
  return cache === undefined ? variables : { ...variables, ACTIONS_CACHE_SERVICE_V2: 'true' };
}

function writeJob(folder: string, variables: Readonly<Record<string, string>>, engine: EngineName): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'engine'), engine);
  const lines = Object.entries(variables).map(([name, value]) => `export ${name}='${value}'\n`);
  writeFileSync(join(folder, 'variables'), lines.join(''));
}

export function engineOf(job: string, { builderJobs }: Pick<RunOptions, 'builderJobs'>): EngineName {
  return (builderJobs?.includes(job) ?? job.startsWith('build')) ? 'builder' : 'tester';
}

function jobIds(workflow: string): readonly string[] {
  const yaml: unknown = parse(workflow);
  const jobs = isObject(yaml) ? yaml['jobs'] : undefined;
  return isObject(jobs) ? Object.keys(jobs) : [];
}

/** Maps the actions of a workflow to folders: `owner/name@ref=folder`. */
function localRepositories(workflow: string, world: World): readonly string[] {
  const used = new Set(
    [...workflow.matchAll(/uses:\s*([\w.-]+\/[\w.-]+)(?:\/[\w./-]+)?@(\S+)/g)].map(
      ([, name, ref]) => `${String(name)}@${String(ref)}`,
    ),
  );
  return [...used].map((reference) => {
    const name = reference.split('@')[0] ?? '';
    if (name === 'org/image-handover') return `${reference}=${world.actions}`;
    assert.ok(
      standInTable().some(([supported]) => supported === name),
      `${name} can't be fetched here, and has no replacement in __tests__/e2e/actions/`,
    );
    return `${reference}=${join(world.standIns, name.replace('/', '-'))}`;
  });
}

/** Returns the job with that ID, or its leg with that value. */
export function jobOf(run: WorkflowRun, id: string, leg?: string): JobRun {
  const found = run.jobs.filter(
    (job) => job.id === id && (leg === undefined || Object.values(job.matrix).includes(leg)),
  );
  const [job] = found;
  assert.ok(
    job !== undefined && found.length === 1,
    `${String(found.length)} jobs match ${id} ${leg ?? ''}; expected 1`,
  );
  return job;
}

/** Returns the result of each job that ran: `name: result`, sorted. */
export function results(run: WorkflowRun): readonly string[] {
  const name = ({ id, matrix }: JobRun): string => [id, ...Object.values(matrix)].join(' ');
  return run.jobs.flatMap((job) => (job.result === undefined ? [] : [`${name(job)}: ${job.result}`])).sort();
}
