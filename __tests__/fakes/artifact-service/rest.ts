import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobStore } from './blobs.ts';
import type { StoredArtifact } from './control-plane.ts';
import type { Faults } from './faults.ts';
import type { UrlSigner } from './signed-url.ts';
import type { JobIdentity } from './token.ts';

/** A workflow run in the REST API. Default: a successful push to main of org/charon. */
export interface SeededRun {
  readonly id: number;
  /** File name in .github/workflows. */
  readonly workflow?: string;
  readonly branch?: string;
  readonly event?: string;
  /** `success`, `failure`, …; null while the run is in progress. */
  readonly conclusion?: string | null;
  readonly repository?: string;
  /** Null if the fork was deleted. */
  readonly headRepository?: string | null;
  readonly createdAt?: string;
  /** Jobs of all attempts. */
  readonly jobs?: readonly SeededJob[];
  /** Start times of the attempts in order. Default: one attempt at `createdAt`. */
  readonly attempts?: readonly string[];
  /** Artifacts in addition to those that its jobs upload. They have no content. */
  readonly artifacts?: readonly { readonly name: string; readonly expiresAt: string }[];
}

/** A job of a run. Default: in progress, in the first attempt. */
export interface SeededJob {
  readonly name: string;
  readonly attempt?: number;
  /** `queued`, `in_progress`, or the conclusion of a completed job: `success`, `failure`, `skipped` … */
  readonly state?: string;
  readonly runner?: string;
}

/** A request to the REST API. */
export interface RestRequest {
  readonly operation: string;
  readonly url: string;
  readonly token: string;
}

/** Controls the fake REST API. */
export interface RestApi {
  /** Base URL of the API. It has a path, as on GitHub Enterprise. */
  readonly url: () => string;
  readonly runs: SeededRun[];
  readonly requests: RestRequest[];
  /** A token with `actions: read`; `powerlessToken` lacks it. */
  readonly token: string;
  readonly powerlessToken: string;
  /** The host in the API's own links, if a proxy is in front of it. */
  linkOrigin?: string;
}

export interface RestParts {
  readonly api: RestApi;
  readonly artifacts: readonly StoredArtifact[];
  readonly blobs: BlobStore;
  readonly signer: UrlSigner;
  readonly faults: Faults;
  readonly lifetimeMs: number;
  readonly origin: () => string;
}

export const restPath = '/api/v3';

export function restApi(origin: () => string): RestApi {
  return {
    url: () => `${origin()}${restPath}`,
    runs: [],
    requests: [],
    token: `ghs_${randomUUID()}`,
    powerlessToken: `ghs_${randomUUID()}`,
  };
}

/** Returns the artifacts that are part of a seeded run. */
export function seededArtifacts(run: SeededRun, job: JobIdentity, firstId: number): readonly StoredArtifact[] {
  return (run.artifacts ?? []).map(({ name, expiresAt }, position) => ({
    id: firstId + position,
    name,
    blob: randomUUID(),
    job,
    createdAt: new Date(0).toISOString(),
    expiresAt,
    size: 1000,
    digest: `sha256:${'0'.repeat(64)}`,
    finalised: true,
  }));
}

interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Route {
  readonly operation: string;
  readonly pattern: RegExp;
  readonly answer: (parts: RestParts, url: URL, repository: string, id: string) => Answer;
}

// The routes for workflow runs, workflow jobs and artifacts (docs.github.com/rest/actions).
const routes: readonly Route[] = [
  { operation: 'ListWorkflowRuns', pattern: /^\/workflows\/([^/]+)\/runs$/, answer: listRuns },
  { operation: 'GetWorkflowRun', pattern: /^\/runs\/(\d+)$/, answer: getRun },
  { operation: 'GetRunAttempt', pattern: /^\/runs\/(\d+\/attempts\/\d+)$/, answer: getAttempt },
  { operation: 'ListAttemptJobs', pattern: /^\/runs\/(\d+\/attempts\/\d+)\/jobs$/, answer: listJobs },
  { operation: 'ListRunJobs', pattern: /^\/runs\/(\d+)\/jobs$/, answer: listRunJobs },
  { operation: 'ListRunArtifacts', pattern: /^\/runs\/(\d+)\/artifacts$/, answer: listArtifacts },
  { operation: 'DownloadArtifact', pattern: /^\/artifacts\/(\d+)\/zip$/, answer: download },
];

/** Serves the part of GitHub's REST API that covers workflow runs and their artifacts. */
export async function serveRest(parts: RestParts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume();
  const url = new URL(request.url ?? '/', parts.origin());
  const match = /^\/repos\/([^/]+\/[^/]+)\/actions(\/.*)$/.exec(url.pathname.slice(restPath.length));
  const [, repository = '', path = ''] = match ?? [];
  const route = routes.find(({ pattern }) => pattern.test(path));
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const operation = route?.operation ?? 'unknown';
  parts.api.requests.push({ operation, url: url.href, token });
  const fault = parts.faults.strike(operation);
  if (fault?.kind === 'hang') await sleep(fault.ms, undefined, { ref: false });
  if (fault?.kind === 'reset') return void request.socket.resetAndDestroy();
  const id = decodeURIComponent(route?.pattern.exec(path)?.[1] ?? '');
  const answer =
    fault?.kind === 'status'
      ? { status: fault.status, body: { message: fault.body ?? 'Server Error' }, headers: fault.headers ?? {} }
      : (refusal(parts, token, request) ?? route?.answer(parts, url, decodeURIComponent(repository), id) ?? notFound);
  response.writeHead(answer.status, { 'content-type': 'application/json; charset=utf-8', ...answer.headers });
  response.end(answer.body === undefined ? '' : JSON.stringify(answer.body));
}

const documentation = 'https://docs.github.com/rest';
const notFound: Answer = { status: 404, body: failure('Not Found', 404) };

function failure(message: string, status: number): unknown {
  return { message, documentation_url: documentation, status: String(status) };
}

function refusal({ api }: RestParts, token: string, request: IncomingMessage): Answer | undefined {
  if (request.headers['user-agent'] === undefined) return { status: 403, body: 'Request forbidden' };
  if (token === api.powerlessToken)
    return { status: 403, body: failure('Resource not accessible by integration', 403) };
  return token === api.token ? undefined : { status: 401, body: failure('Bad credentials', 401) };
}

const repositoryOf = (run: SeededRun): string => run.repository ?? 'org/charon';
const workflowOf = (run: SeededRun): string => run.workflow ?? 'ci.yml';

function conclusionOf(run: SeededRun): string | null {
  return run.conclusion === undefined ? 'success' : run.conclusion;
}

function runsOf(parts: RestParts, repository: string): readonly SeededRun[] {
  return parts.api.runs.filter((run) => repositoryOf(run).toLowerCase() === repository.toLowerCase());
}

function listRuns(parts: RestParts, url: URL, repository: string, workflow: string): Answer {
  const all = runsOf(parts, repository).filter((run) => workflowOf(run) === workflow);
  if (all.length === 0) return notFound; // no such workflow
  const matches = (name: string, value: string | null): boolean => [null, value].includes(url.searchParams.get(name));
  const found = all
    .filter((run) => matches('branch', run.branch ?? 'main') && matches('event', run.event ?? 'push'))
    .filter((run) => matches('status', conclusionOf(run) ?? 'in_progress'))
    .sort((one, other) => other.id - one.id);
  return paged(parts, url, found, (items) => ({
    total_count: found.length,
    workflow_runs: items.map((run) => runJson(run)),
  }));
}

function getRun(parts: RestParts, _url: URL, repository: string, id: string): Answer {
  const run = runsOf(parts, repository).find((candidate) => String(candidate.id) === id);
  return run === undefined ? notFound : { status: 200, body: runJson(run) };
}

/** @param path `<run>/attempts/<number>` */
function attemptOf(parts: RestParts, repository: string, path: string): [SeededRun, number] | undefined {
  const [id = '', , number = ''] = path.split('/');
  const run = runsOf(parts, repository).find((candidate) => String(candidate.id) === id);
  const last = Math.max(run?.attempts?.length ?? 1, ...(run?.jobs ?? []).map(({ attempt = 1 }) => attempt));
  return run === undefined || Number(number) > last ? undefined : [run, Number(number)];
}

function getAttempt(parts: RestParts, _url: URL, repository: string, path: string): Answer {
  const [run, number = 1] = attemptOf(parts, repository, path) ?? [];
  if (run === undefined) return notFound;
  const startedAt = run.attempts?.[number - 1] ?? run.createdAt ?? '2026-01-01T00:00:00Z';
  return { status: 200, body: { ...runJson(run), run_attempt: number, run_started_at: startedAt } };
}

function listJobs(parts: RestParts, url: URL, repository: string, path: string): Answer {
  const [run, number = 1] = attemptOf(parts, repository, path) ?? [];
  if (run === undefined) return notFound;
  const found = (run.jobs ?? []).filter(({ attempt = 1 }) => attempt === number);
  return paged(parts, url, found, (items) => ({
    total_count: found.length,
    jobs: items.map((job) => jobJson(parts, run, job, found.indexOf(job) + 1)),
  }));
}

/** Lists the jobs of all attempts (`filter=all`) or of the last attempt. */
function listRunJobs(parts: RestParts, url: URL, repository: string, id: string): Answer {
  const run = runsOf(parts, repository).find((candidate) => String(candidate.id) === id);
  if (run === undefined) return notFound;
  const jobs = run.jobs ?? [];
  const last = Math.max(1, ...jobs.map(({ attempt = 1 }) => attempt));
  const isAll = url.searchParams.get('filter') === 'all';
  const found = jobs.filter(({ attempt = 1 }) => isAll || attempt === last);
  return paged(parts, url, found, (items) => ({
    total_count: found.length,
    jobs: items.map((job) => jobJson(parts, run, job, found.indexOf(job) + 1)),
  }));
}

function jobJson(parts: RestParts, run: SeededRun, job: SeededJob, id: number): unknown {
  const { name, attempt = 1, state = 'in_progress', runner = `GitHub Actions ${String(id)}` } = job;
  const isCompleted = !['queued', 'in_progress', 'waiting', 'pending'].includes(state);
  const api = `${parts.api.url()}/repos/${repositoryOf(run)}/actions`;
  const hasRunner = state !== 'queued' && state !== 'skipped';
  return {
    id,
    run_id: run.id,
    workflow_name: 'CI',
    head_branch: run.branch ?? 'main',
    run_url: `${api}/runs/${String(run.id)}`,
    run_attempt: attempt,
    head_sha: '0123456789abcdef0123456789abcdef01234567',
    url: `${api}/jobs/${String(id)}`,
    html_url: `${runUrl(repositoryOf(run), run.id)}/job/${String(id)}`,
    status: isCompleted ? 'completed' : state,
    conclusion: isCompleted ? state : null,
    created_at: '2026-01-01T00:00:00Z',
    started_at: '2026-01-01T00:00:00Z',
    completed_at: isCompleted ? '2026-01-01T00:01:00Z' : null,
    name,
    steps: [],
    labels: ['ubuntu-latest'],
    runner_id: hasRunner ? id : null,
    runner_name: hasRunner ? runner : null,
    runner_group_id: hasRunner ? 0 : null,
    runner_group_name: hasRunner ? 'GitHub Actions' : null,
  };
}

function listArtifacts(parts: RestParts, url: URL, repository: string, id: string): Answer {
  if (getRun(parts, url, repository, id).status === 404) return notFound;
  const name = url.searchParams.get('name');
  const found = parts.artifacts
    .filter((artifact) => artifact.finalised && artifact.job.runId === id)
    .filter((artifact) => name === null || artifact.name === name);
  return paged(parts, url, found, (items) => ({
    total_count: found.length,
    artifacts: items.map((artifact) => artifactJson(parts, artifact, repository, id)),
  }));
}

function download(parts: RestParts, _url: URL, _repository: string, id: string): Answer {
  const artifact = parts.artifacts.find((candidate) => String(candidate.id) === id && candidate.finalised);
  if (artifact === undefined) return notFound;
  if (isExpired(artifact)) return { status: 410, body: failure('Artifact has expired', 410) };
  const { signer, lifetimeMs, origin } = parts;
  const location = signer.sign(origin(), artifact.blob, 'r', lifetimeMs, `${artifact.name}.zip`);
  return { status: 302, headers: { location } };
}

/** Returns one page of a list, with a Link header for the others. */
function paged<T>(parts: RestParts, url: URL, items: readonly T[], body: (items: readonly T[]) => unknown): Answer {
  const size = Math.min(100, Number(url.searchParams.get('per_page') ?? 30));
  const page = Number(url.searchParams.get('page') ?? 1);
  const last = Math.max(1, Math.ceil(items.length / size));
  const link = (to: number, rel: string): string => {
    const target = new URL(url.pathname + url.search, parts.api.linkOrigin ?? parts.origin());
    target.searchParams.set('page', String(to));
    return `<${target.href}>; rel="${rel}"`;
  };
  const links = [
    ...(page > 1 ? [link(page - 1, 'prev'), link(1, 'first')] : []),
    ...(page < last ? [link(page + 1, 'next'), link(last, 'last')] : []),
  ];
  const headers = links.length === 0 ? {} : { link: links.join(', ') };
  return { status: 200, headers, body: body(items.slice((page - 1) * size, page * size)) };
}

function runJson(run: SeededRun): Readonly<Record<string, unknown>> {
  const repository = repositoryOf(run);
  const head = run.headRepository === undefined ? repository : run.headRepository;
  const createdAt = run.createdAt ?? '2026-01-01T00:00:00Z';
  const conclusion = conclusionOf(run);
  return {
    id: run.id,
    name: 'CI',
    head_branch: run.branch ?? 'main',
    head_sha: '0123456789abcdef0123456789abcdef01234567',
    path: `.github/workflows/${workflowOf(run)}`,
    display_title: 'Add a feature',
    run_number: 7,
    event: run.event ?? 'push',
    status: conclusion === null ? 'in_progress' : 'completed',
    conclusion,
    html_url: runUrl(repository, run.id),
    pull_requests: [],
    created_at: createdAt,
    updated_at: createdAt,
    run_attempt: 1,
    run_started_at: createdAt,
    repository: { id: 42, full_name: repository, private: false, fork: false },
    head_repository: head === null ? null : { id: 43, full_name: head, private: false, fork: head !== repository },
  };
}

function runUrl(repository: string, id: number | string): string {
  return `https://github.com/${repository}/actions/runs/${String(id)}`;
}

function artifactJson(parts: RestParts, artifact: StoredArtifact, repository: string, runId: string): unknown {
  const url = `${parts.api.url()}/repos/${repository}/actions/artifacts/${String(artifact.id)}`;
  return {
    id: artifact.id,
    name: artifact.name,
    size_in_bytes: artifact.size,
    url,
    archive_download_url: `${url}/zip`,
    expired: isExpired(artifact),
    digest: artifact.digest ?? null,
    created_at: artifact.createdAt,
    updated_at: artifact.createdAt,
    expires_at: artifact.expiresAt,
    workflow_run: { id: Number(runId), repository_id: 42, head_repository_id: 42, head_branch: 'main' },
  };
}

function isExpired(artifact: StoredArtifact): boolean {
  return Date.parse(artifact.expiresAt) <= Date.now();
}
