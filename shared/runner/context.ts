import { accessSync, constants, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { HandoverError, messageOf } from '../base/errors.ts';
import { parseJson, stringMapOf } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { proxiesOf } from '../http/proxies.ts';
import { readSmallFileSync } from '../bytes/files.ts';
import { quoteForeign } from '../base/text.ts';
import type { WorkflowHost } from '../image/host.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Facts about this job from the runner. */
export type JobContext = Readonly<ReturnType<typeof jobContext>>;

/** Reads the runner's environment, except for the inputs. */
export function jobContext(env: Environment = process.env) {
  const variable = (name: string): string => env[name] ?? '';
  const runtimeToken = variable('ACTIONS_RUNTIME_TOKEN');
  const resultsUrl = variable('ACTIONS_RESULTS_URL');
  const retention = Number.parseInt(variable('GITHUB_RETENTION_DAYS'), 10);
  const repository = variable('GITHUB_REPOSITORY');
  const dockerConfigFolder = variable('DOCKER_CONFIG') || join(variable('HOME') || homedir(), '.docker');
  const runId = variable('GITHUB_RUN_ID');
  const repositoryUrl = repository === '' ? '' : `${variable('GITHUB_SERVER_URL')}/${repository}`;
  return {
    /** A folder that the runner empties after the job. */
    tempRoot: variable('RUNNER_TEMP') || tmpdir(),
    runtimeToken,
    resultsUrl,
    /** Whether BuildKit's `gha` cache has a service. */
    hasCacheService: runtimeToken !== '' && (variable('ACTIONS_CACHE_URL') !== '' || resultsUrl !== ''),
    /** Whether BuildKit's `gha` cache uses `resultsUrl`, as buildx reads it (util/buildflags/cache.go, with Go's strconv.ParseBool). */
    usesCacheV2:
      runtimeToken !== '' &&
      resultsUrl !== '' &&
      ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(variable('ACTIONS_CACHE_SERVICE_V2')),
    /** The job's permission for the Actions cache (`cache-mode` in the workflow), such as `read`; empty if the runner doesn't set it. */
    cacheMode: variable('ACTIONS_CACHE_MODE'),
    noDefaultAttestations: /^(?:1|t|true)$/i.test(variable('BUILDX_NO_DEFAULT_ATTESTATIONS')),
    proxies: proxiesOf(variable),
    producer: {
      repository,
      runId,
      runAttempt: Number.parseInt(variable('GITHUB_RUN_ATTEMPT'), 10) || 1,
      commit: variable('GITHUB_SHA'),
    },
    /** Identifies the job in its run, the same in each attempt. Legs of a matrix may share it; calls of a reusable workflow don't. */
    jobPath: jobPath(variable('ACTIONS_ORCHESTRATION_ID')) ?? variable('GITHUB_JOB'),
    runUrl: repositoryUrl === '' || runId === '' ? '' : `${repositoryUrl}/actions/runs/${runId}`,
    /** Web address of the repository; empty outside of a workflow. */
    repositoryUrl,
    /** Base URL of the REST API without a trailing slash; on GitHub Enterprise it has a path. */
    apiUrl: (variable('GITHUB_API_URL') || 'https://api.github.com').replace(/\/+$/, ''),
    host: workflowHost(variable),
    /** The repository's maximum retention in days, if the runner sets it. */
    maxRetentionDays: Number.isFinite(retention) && retention > 0 ? retention : undefined,
    runner: { os: variable('RUNNER_OS'), architecture: variable('RUNNER_ARCH') },
    runnerName: variable('RUNNER_NAME'),
    event: {
      name: variable('GITHUB_EVENT_NAME'),
      payload: readPayload(variable('GITHUB_EVENT_PATH')),
      ref: variable('GITHUB_REF'),
      refName: variable('GITHUB_REF_NAME'),
      refType: variable('GITHUB_REF_TYPE'),
      sha: variable('GITHUB_SHA'),
      headRef: variable('GITHUB_HEAD_REF'),
    },
    /** Docker's configuration, with the logins of earlier steps. */
    dockerConfigFolder,
    /** Buildx's configuration, with the logins for single repositories. */
    buildxConfigFolder: variable('BUILDX_CONFIG') || join(dockerConfigFolder, 'buildx'),
    /** Docker's logins in the environment, as JSON; may be empty. */
    dockerAuthConfig: variable('DOCKER_AUTH_CONFIG'),
    dockerVariables: variablesOf(env, 'DOCKER_'),
    /** The variables that docker/metadata-action has set. */
    metadata: variablesOf(env, 'DOCKER_METADATA_OUTPUT_'),
  };
}

// Gitea's runner sets the first (gitea.com/gitea/act_runner, internal/app/run/runner.go). Forgejo's sets both (code.forgejo.org/forgejo/runner).
// Both contain act, which sets the last (nektos/act, pkg/runner/run_context.go). The names of GitHub's hosts are those that its own clients
// accept (actions/toolkit, artifact, config.ts).
function workflowHost(variable: (name: string) => string): WorkflowHost {
  if (variable('FORGEJO_ACTIONS') === 'true') return 'Forgejo';
  if (variable('GITEA_ACTIONS') === 'true') return 'Gitea';
  if (variable('ACT') === 'true') return 'act';
  return /^https:\/\/(?:github\.com|[^/]+\.ghe\.com)(?:\/|$)/i.test(
    variable('GITHUB_SERVER_URL') || 'https://github.com',
  )
    ? 'GitHub'
    : 'GitHub Enterprise Server';
}

// The runner sets it to `<id of the attempt's plan>.<job, with the jobs that call it>.<leg>`, a leg without a matrix being `__default`
// (seen on hosted runners). GITHUB_JOB is the same for all calls of a workflow.
function jobPath(orchestration: string): string | undefined {
  return /^[0-9a-f-]{36}\.(.+?)(?:\.__default)?$/i.exec(orchestration)?.[1];
}

/** Checks that the step can set outputs and write temporary files. Throws `unsupported-host`. */
export function requireRunnerFiles(env: Environment = process.env): void {
  const { GITHUB_OUTPUT: output = '', RUNNER_TEMP: temp = '', GITHUB_ACTIONS: isRunner } = env;
  if (output !== '') requirePath('GITHUB_OUTPUT', output, 'file');
  else if (isRunner === 'true')
    throw unfit("GITHUB_OUTPUT isn't set, so the outputs of this step would be lost.", 'GITHUB_OUTPUT');
  if (temp !== '') requirePath('RUNNER_TEMP', temp, 'folder');
}

function requirePath(variable: string, path: string, kind: 'file' | 'folder'): void {
  const expected = `${variable} is "${quoteForeign(path)}"; expected a ${kind} that this step can write to`;
  try {
    const found = statSync(path);
    if (!(kind === 'file' ? found.isFile() : found.isDirectory())) throw new Error(`it is not a ${kind}`);
    accessSync(path, constants.W_OK);
  } catch (error) {
    throw unfit(`${expected}: ${messageOf(error)}.`, variable, error);
  }
}

function unfit(message: string, variable: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'unsupported-host',
    message,
    `The runner sets ${variable} for each step. Pass it on unchanged if a script or a container calls the action, and ` +
      'check the owner of that path.',
    cause,
  );
}

function variablesOf(env: Environment, start: string): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(stringMapOf(env)).filter(([name]) => name.startsWith(start)));
}

/** Reads the event's payload; undefined if it can't be read. */
function readPayload(path: string): unknown {
  try {
    return path === '' ? undefined : parseJson(readSmallFileSync(path, limits.eventBytes).toString());
  } catch {
    return undefined;
  }
}
