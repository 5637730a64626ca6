import { isByteCount, isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../../base/json.ts';
import { quoteForeign } from '../../base/text.ts';
import { type Answer, hasStatus, HttpError, readAnswer, refusal } from '../../http/answer.ts';
import { type Http, httpClient, type HttpResponse } from '../../http/client.ts';
import type { Proxies } from '../../http/proxies.ts';
import { again, isTransient, longestRetryAfterMs, type Retries } from '../../http/retry.ts';
import { parseDigest } from '../../image/digest.ts';
import type { Artifact, RunLink } from '../store.ts';
import { isClaim } from './reservation.ts';

// Requests to GitHub's REST API, or to the subset that Gitea and Forgejo have (routers/api/v1 of Gitea). The subset has fewer paths and
// fields, and no links to the next page. Requests throw `HttpError` unless they succeed.

/** A workflow run, with the details for choosing a run. */
export interface WorkflowRun extends RunLink {
  readonly createdAt: string;
  /** Repository of the commit that the run used, `owner/name`; empty when that fork was deleted. */
  readonly headRepository: string;
  /** Whether `headRepository` differs from the run's own repository. */
  readonly isOfFork: boolean;
}

/** Selects runs. */
export interface RunFilter {
  /** File name or id of the workflow. */
  readonly workflow: string;
  readonly branch: string;
  /** Undefined selects runs of any event. */
  readonly event: string | undefined;
}

/** An artifact of a run, which may have expired. */
export interface RunArtifact extends Artifact {
  readonly expiresAt: string;
  readonly expired: boolean;
}

/** Workflow runs and their artifacts in one repository. */
export interface WorkflowRuns {
  get(runId: number): Promise<WorkflowRun>;
  /** Lists the successful runs, newest first, including runs of forks: a fork's branch may have the same name. */
  successful(filter: RunFilter): AsyncIterable<WorkflowRun>;
  /** Lists the artifacts of a run, newest first: all of them, or only those with the given name. */
  artifacts(runId: number, name?: string): Promise<readonly RunArtifact[]>;
  /** Returns a URL for reading an artifact's blob, valid for about a minute. */
  signDownload(artifactId: number): Promise<string>;
}

export interface RestOptions extends Retries {
  readonly http: Http;
  /** No trailing slash: `https://api.github.com`, `https://host/api/v3` on GitHub Enterprise, or `https://host/api/v1` on Gitea. */
  readonly apiUrl: string;
  /** `owner/name` */
  readonly repository: string;
  /** Needs `actions: read` in the repository. */
  readonly token: string;
}

// A run is about 20 kB of JSON.
const runsPerPage = 20;

/** Paths and fields: docs.github.com/rest/actions/workflow-runs and docs.github.com/rest/actions/artifacts. */
export function workflowRuns(options: RestOptions): WorkflowRuns {
  const rest = restClient(options);
  return {
    get: async (runId) => parseRun(await rest.get(`/runs/${String(runId)}?exclude_pull_requests=true`)),
    successful: async function* ({ workflow, branch, event }) {
      const isOfWorkflow = ({ path }: JsonObject): boolean =>
        !rest.isGitea || stringOr(path, '').startsWith(`${workflow}@`);
      const query = new URLSearchParams({
        branch,
        ...(event === undefined ? {} : { event }),
        status: 'success',
        exclude_pull_requests: 'true',
        per_page: String(runsPerPage),
      });
      const path = rest.isGitea ? 'runs' : `workflows/${encodeURIComponent(workflow)}/runs`;
      for await (const runs of rest.pages(`/${path}?${query.toString()}`, 'workflow_runs'))
        yield* runs.filter(isOfWorkflow).map(parseRun);
    },
    artifacts: async (runId, name) => {
      const query = new URLSearchParams({ per_page: '100', ...(name === undefined ? {} : { name }) });
      const found: RunArtifact[] = [];
      // Gitea sends no link to the next page here.
      for (let [page, isLast] = [1, false]; !isLast; page += 1) {
        query.set('page', String(page));
        const answer = await rest.get(`/runs/${String(runId)}/artifacts?${query.toString()}`);
        const items = objectsOf(answer['artifacts']);
        found.push(...items.map(parseArtifact));
        isLast = items.length === 0 || found.length >= Number(answer['total_count'] ?? 0);
      }
      // Gitea lists an artifact without a size while it is being replaced.
      const complete = found.filter(({ name: listed, size }) => size > 0 && !isClaim(listed));
      return complete.sort((one, other) => other.id - one.id);
    },
    signDownload: (artifactId) => rest.redirect(`/artifacts/${String(artifactId)}/zip`),
  };
}

function parseRun(item: JsonObject): WorkflowRun {
  const { id } = item;
  const repository = fullName(item['repository']);
  // Gitea omits `head_repository`. There, only pull requests can come from forks (services/convert/convert.go, ToActionWorkflowRun).
  const isOwn = !('head_repository' in item) && !stringOr(item['event'], 'pull_request').startsWith('pull_request');
  const headRepository = isOwn ? repository : fullName(item['head_repository']);
  if (!isByteCount(id) || repository === '') throw malformed(200, 'has a workflow run without id or repository');
  return {
    id,
    url: stringOr(item['html_url'], ''),
    createdAt: stringOr(item['created_at'], stringOr(item['started_at'], '')),
    headRepository,
    isOfFork: headRepository.toLowerCase() !== repository.toLowerCase(),
  };
}

function fullName(repository: unknown): string {
  return isObject(repository) ? stringOr(repository['full_name'], '') : '';
}

function parseArtifact(item: JsonObject): RunArtifact {
  const { id, name, size_in_bytes: size } = item;
  if (!isByteCount(id) || !isByteCount(size) || typeof name !== 'string') {
    throw malformed(200, 'has an artifact without id, size or name');
  }
  return {
    id,
    name,
    size,
    digest: parseDigest(stringOr(item['digest'], '')),
    createdAt: stringOr(item['created_at'], ''),
    expiresAt: stringOr(item['expires_at'], ''),
    expired: item['expired'] === true,
  };
}

export interface RunJob {
  /** The job's `name:`, else its id in the workflow, followed by any matrix values: `build (arm64)`. */
  readonly name: string;
  readonly url: string;
  /** Undefined until the job is completed, then `success`, `failure`, `cancelled`, `skipped`, `timed_out` … */
  readonly conclusion: string | undefined;
  /** Name of the job's runner; empty until a runner is assigned. */
  readonly runner: string;
}

/** The jobs of one attempt of this job's own run. */
export interface RunJobs extends AsyncDisposable {
  /** Lists the jobs so far. A job appears once the jobs that it needs are done. */
  list(): Promise<readonly RunJob[]>;
  /** Lists the last execution of each job in the attempts before this attempt. */
  earlier(): Promise<readonly RunJob[]>;
  /** Returns whether an error means that the token can't read the jobs, now or later. */
  isRefusal(error: unknown): boolean;
  /** Returns when the attempt began, in ms since the epoch. */
  startedAt(): Promise<number>;
}

interface RunJobsOptions extends Omit<RestOptions, 'http'> {
  readonly runId: string;
  readonly runAttempt: number;
  readonly proxies: Proxies;
}

/** Paths and fields: docs.github.com/rest/actions/workflow-jobs and docs.github.com/rest/actions/workflow-runs. */
export function runJobs(options: RunJobsOptions): RunJobs {
  const { runId, runAttempt, proxies, signal } = options;
  const http = httpClient(proxies, signal);
  const rest = restClient({ ...options, http });
  const run = `/runs/${encodeURIComponent(runId)}`;
  // Gitea lists each job once, in its current state.
  const attempt = rest.isGitea ? run : `${run}/attempts/${String(runAttempt)}`;
  const jobsAt = async (path: string): Promise<readonly JsonObject[]> => {
    const jobs: JsonObject[] = [];
    for await (const page of rest.pages(path, 'jobs')) jobs.push(...page);
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
    isRefusal,
    startedAt: async () => {
      const run = await rest.get(`${attempt}?exclude_pull_requests=true`);
      return Date.parse(stringOr(run['run_started_at'], stringOr(run['started_at'], '')));
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

/** Reads one repository's part of the Actions API. Paths begin after `/actions`. */
interface RestClient {
  readonly isGitea: boolean;
  get(path: string): Promise<JsonObject>;
  /** Reads the pages of a list, each after the previous page has been consumed. `key` is the field with a page's items. */
  pages(path: string, key: string): AsyncIterable<readonly JsonObject[]>;
  /** Returns the target of a redirect. The target URL contains its own authorization, and must not get the token. */
  redirect(path: string): Promise<string>;
}

function restClient(options: RestOptions): RestClient {
  const { apiUrl, repository } = options;
  const actions = `${apiUrl}/repos/${repository.split('/').map(encodeURIComponent).join('/')}/actions`;
  const get = async (url: string): Promise<readonly [JsonObject, next: string | undefined]> => {
    const { status, header, text } = await readAnswer(await send(options, url));
    const body = parseJson(text);
    if (isObject(body)) return [body, nextPage(header('link'), apiUrl)];
    throw malformed(status, 'is not a JSON object');
  };
  return {
    isGitea: apiUrl.endsWith('/api/v1'),
    get: async (path) => (await get(actions + path))[0],
    pages: async function* (path, key) {
      for (let url: string | undefined = actions + path; url !== undefined;) {
        const [body, next] = await get(url);
        yield objectsOf(body[key]);
        url = next;
      }
    },
    redirect: async (path) => {
      const { statusCode, headers, body } = await send(options, actions + path);
      await body.dump();
      const location = headers['location'];
      if (statusCode >= 300 && typeof location === 'string' && URL.canParse(location)) return location;
      throw malformed(statusCode, 'is not a redirect');
    },
  };
}

function malformed(status: number, why: string): HttpError {
  return new HttpError(status, 'malformed', `the answer ${why}`);
}

/** Sends a request with retries, and returns a success or a redirect. */
function send(options: RestOptions, url: string): Promise<HttpResponse> {
  const attempt = async (): Promise<HttpResponse> => {
    const response = await sendOnce(options, url);
    if (response.statusCode < 400) return response;
    throw restError(await readAnswer(response));
  };
  return again('call', attempt, {
    ...options,
    what: 'The REST API',
    // Users decide whether a longer wait is worthwhile.
    isRetryable: (error) =>
      isRateLimit(error) ? (error.retryAfterMs ?? 0) <= longestRetryAfterMs : isTransient(error),
  });
}

// For a renamed repository, the API answers 301 or 307 with the new address in the same API. A 302 isn't followed here, so its target
// doesn't get the token: the caller uses the target.
async function sendOnce(options: RestOptions, url: string, hops = 3): Promise<HttpResponse> {
  // docs.github.com/rest: "Getting started with the REST API", headers.
  const headers = {
    accept: 'application/vnd.github+json',
    authorization: `Bearer ${options.token}`,
    'user-agent': 'image-handover',
    'x-github-api-version': '2022-11-28',
  };
  const response = await options.http.send({ method: 'GET', url, headers });
  const target = URL.parse(String(response.headers['location'] ?? ''), url);
  const isMoved = [301, 307, 308].includes(response.statusCode) && target?.origin === new URL(url).origin;
  if (!isMoved || hops === 0) return response;
  await response.body.dump();
  return sendOnce(options, target.href, hops - 1);
}

const rateLimited = 'rate-limited';

function isRateLimit(error: unknown): error is HttpError {
  return error instanceof HttpError && error.serviceCode === rateLimited;
}

/** Returns whether an error means that the token can't read something, now or later. */
export function isRefusal(error: unknown): boolean {
  return hasStatus(error, 401, 403, 404) && !isRateLimit(error);
}

function restError(answer: Answer): HttpError {
  const { status, text } = answer;
  const body = parseJson(text);
  const words = quoteForeign(isObject(body) ? stringOr(body['message'], '') : '', 200);
  const message = `HTTP ${String(status)}${words === '' ? '' : ` (${words})`}`;
  const error = refusal(answer, '', message);
  const waitMs = status === 403 || status === 429 ? (error.retryAfterMs ?? rateLimitMs(answer, words)) : undefined;
  if (waitMs === undefined) return error;
  const seconds = (waitMs / 1000).toFixed(0);
  return new HttpError(status, rateLimited, `${message}: a rate limit, for another ${seconds} s`, waitMs);
}

/**
 * Returns how long a rate limit without `Retry-After` lasts, in ms; undefined when the answer isn't about a rate limit. The primary
 * limit has `x-ratelimit-remaining: 0`. A secondary limit is named only in the message, and lasts at least a minute
 * (docs.github.com/rest: "Rate limits for the REST API").
 */
function rateLimitMs({ status, header }: Answer, words: string): number | undefined {
  const reset = Number(header('x-ratelimit-reset'));
  if (header('x-ratelimit-remaining') === '0' && reset > 0) return Math.max(1000, reset * 1000 - Date.now());
  return status === 429 || /rate limit/i.test(words) ? 60_000 : undefined;
}

/**
 * Returns the `next` URL of a Link header (RFC 8288), moved to the API's own host. No other host may get the token, and a server
 * behind a proxy may use another name for itself.
 */
function nextPage(header: string, apiUrl: string): string | undefined {
  const link = /<([^>]*)>\s*;\s*rel="next"/.exec(header)?.[1];
  const url = link === undefined ? null : URL.parse(link, apiUrl);
  return url === null ? undefined : `${new URL(apiUrl).origin}${url.pathname}${url.search}`;
}
