import { isObject, type JsonObject, objectsOf, stringOr } from '../base/json.ts';
import type { Proxies } from '../base/proxies.ts';
import { httpClient } from './http.ts';
import { restClient } from './rest-client.ts';

/** A job of a workflow run, as the run's page shows it. */
export interface RunJob {
  /** Its `name:`, else its id in the workflow; with the values of a matrix behind it: `build (arm64)`. */
  readonly name: string;
  readonly url: string;
  /** Undefined until the job is completed: then `success`, `failure`, `cancelled`, `skipped`, `timed_out` … */
  readonly conclusion: string | undefined;
  /** The runner that has taken it; empty until then. */
  readonly runner: string;
}

/** The jobs of one attempt of this job's own run. Its methods throw `HttpError`. */
export interface RunJobs extends AsyncDisposable {
  /** All that there are by now: a job appears when those that it needs are done. */
  list(): Promise<readonly RunJob[]>;
  /** When the attempt began, in ms since the epoch. */
  startedAt(): Promise<number>;
}

export interface RunJobsOptions {
  /** Base of the REST API, without a slash at its end. */
  readonly apiUrl: string;
  /** Needs `actions: read`. */
  readonly token: string;
  /** `owner/name` */
  readonly repository: string;
  readonly runId: string;
  readonly runAttempt: number;
  readonly proxies: Proxies;
  /** Told of each request that is tried again. */
  readonly onRetry: (message: string) => void;
  readonly signal: AbortSignal;
}

/** Paths and fields: docs.github.com/rest/actions/workflow-jobs and docs.github.com/rest/actions/workflow-runs. */
export function runJobs(options: RunJobsOptions): RunJobs {
  const { repository, runId, runAttempt, proxies, signal } = options;
  const http = httpClient(proxies, signal);
  const rest = restClient({ ...options, http });
  const owner = repository.split('/').map(encodeURIComponent).join('/');
  const attempt = `/repos/${owner}/actions/runs/${encodeURIComponent(runId)}/attempts/${String(runAttempt)}`;
  return {
    list: async () => {
      const jobs: RunJob[] = [];
      for await (const page of rest.pages(`${attempt}/jobs?per_page=100`))
        jobs.push(...objectsOf(page['jobs']).map(parseJob));
      return jobs;
    },
    startedAt: async () => {
      const run = await rest.get(`${attempt}?exclude_pull_requests=true`);
      return Date.parse(isObject(run) ? stringOr(run['run_started_at'], '') : '');
    },
    [Symbol.asyncDispose]: () => http.close(),
  };
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
