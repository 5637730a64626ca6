import { type JsonObject, objectsOf, stringOr } from '../../base/json.ts';
import type { Proxies } from '../../http/proxies.ts';
import { HttpError } from '../../http/answer.ts';
import { httpClient } from '../../http/client.ts';
import { rateLimited, restClient, type RestClientOptions } from './rest-client.ts';

export interface RunJob {
  /** Its `name:`, else its id in the workflow, followed by the values of a matrix: `build (arm64)`. */
  readonly name: string;
  readonly url: string;
  /** Undefined until the job is completed: then `success`, `failure`, `cancelled`, `skipped`, `timed_out` … */
  readonly conclusion: string | undefined;
  /** The runner that runs it; empty until there is one. */
  readonly runner: string;
}

/** The jobs of one attempt of this job's own run. Its methods throw `HttpError`. */
export interface RunJobs extends AsyncDisposable {
  /** Lists the jobs so far: a job appears when those that it needs are done. */
  list(): Promise<readonly RunJob[]>;
  /** Lists the last execution of each job in the attempts before this one. */
  earlier(): Promise<readonly RunJob[]>;
  /** Whether an error means that the token can't read the jobs, now or later. */
  isRefusal(error: unknown): boolean;
  /** Returns when the attempt began, in ms since the epoch. */
  startedAt(): Promise<number>;
}

interface RunJobsOptions extends Omit<RestClientOptions, 'http'> {
  /** `owner/name` */
  readonly repository: string;
  readonly runId: string;
  readonly runAttempt: number;
  readonly proxies: Proxies;
}

/** Paths and fields: docs.github.com/rest/actions/workflow-jobs and docs.github.com/rest/actions/workflow-runs. */
export function runJobs(options: RunJobsOptions): RunJobs {
  const { repository, runId, runAttempt, proxies, signal } = options;
  const http = httpClient(proxies, signal);
  const rest = restClient({ ...options, http });
  const owner = repository.split('/').map(encodeURIComponent).join('/');
  const run = `/repos/${owner}/actions/runs/${encodeURIComponent(runId)}`;
  // Gitea lists each job once, as it is now.
  const attempt = rest.isGitea ? run : `${run}/attempts/${String(runAttempt)}`;
  const jobsAt = async (path: string): Promise<readonly JsonObject[]> => {
    const jobs: JsonObject[] = [];
    for await (const page of rest.pages(path)) jobs.push(...objectsOf(page['jobs']));
    return jobs;
  };
  return {
    list: async () => (await jobsAt(`${attempt}/jobs?per_page=100`)).map(parseJob),
    earlier: async () => {
      const all = await jobsAt(`${run}/jobs?filter=all&per_page=100`);
      const before = all.filter((job) => attemptOf(job) < runAttempt);
      const latest = before.sort((one, other) => attemptOf(one) - attemptOf(other)).map(parseJob);
      return [...new Map(latest.map((job) => [job.name, job])).values()];
    },
    isRefusal: (error) =>
      error instanceof HttpError && [401, 403, 404].includes(error.status) && error.serviceCode !== rateLimited,
    startedAt: async () => {
      const { run_started_at: startedAt, started_at: onGitea } = await rest.get(
        `${attempt}?exclude_pull_requests=true`,
      );
      return Date.parse(stringOr(startedAt, stringOr(onGitea, '')));
    },
    [Symbol.asyncDispose]: () => http.close(),
  };
}

function attemptOf(job: JsonObject): number {
  return Number(job['run_attempt'] ?? 1);
}

function parseJob(item: JsonObject): RunJob {
  const isCompleted = item['status'] === 'completed';
  return {
    name: stringOr(item['name'], ''),
    url: stringOr(item['html_url'], ''),
    conclusion: isCompleted ? stringOr(item['conclusion'], 'unknown') : undefined,
    runner: stringOr(item['runner_name'], ''),
  };
}
