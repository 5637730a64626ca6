import { isByteCount, isObject, type JsonObject, objectsOf, stringOr } from '../../base/json.ts';
import { parseDigest } from '../../image/digest.ts';
import { HttpError } from '../../http/answer.ts';
import { isClaim } from './reservation.ts';
import type { RestClient } from './rest-client.ts';
import type { Artifact, RunLink } from '../store.ts';

/** A workflow run, with the facts for choosing one. */
export interface WorkflowRun extends RunLink {
  readonly createdAt: string;
  /** Repository of the commit that it ran on, `owner/name`; empty when that fork was deleted. */
  readonly headRepository: string;
  /** Whether that repository is not the run's own. */
  readonly isOfFork: boolean;
}

/** Selects runs. */
export interface RunFilter {
  /** File name of the workflow, or its id. */
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

/** Workflow runs and their artifacts in one repository. Its methods throw `HttpError`. */
export interface WorkflowRuns {
  get(runId: number): Promise<WorkflowRun>;
  /** Lists the successful runs, newest first, including runs of forks: a fork's branch may have the same name. */
  successful(filter: RunFilter): AsyncIterable<WorkflowRun>;
  /** Lists the artifacts of a run, newest first: all of them, or those of one name. */
  artifacts(runId: number, name?: string): Promise<readonly RunArtifact[]>;
  /** Returns an address that reads an artifact's blob, for about a minute. */
  signDownload(artifactId: number): Promise<string>;
}

// A run is about 20 kB of JSON.
const runsPerPage = 20;

/**
 * @param repository `owner/name`
 * Paths and fields: docs.github.com/rest/actions/workflow-runs and docs.github.com/rest/actions/artifacts.
 */
export function workflowRuns(rest: RestClient, repository: string): WorkflowRuns {
  const actions = `/repos/${repository.split('/').map(encodeURIComponent).join('/')}/actions`;
  return {
    get: async (runId) => parseRun(await rest.get(`${actions}/runs/${String(runId)}?exclude_pull_requests=true`)),
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
      for await (const page of rest.pages(`${actions}/${path}?${query.toString()}`))
        yield* objectsOf(page['workflow_runs']).filter(isOfWorkflow).map(parseRun);
    },
    artifacts: async (runId, name) => {
      const query = new URLSearchParams({ per_page: '100', ...(name === undefined ? {} : { name }) });
      const found: RunArtifact[] = [];
      // Gitea has no link to the next page here.
      for (let [page, isLast] = [1, false]; !isLast; page += 1) {
        query.set('page', String(page));
        const answer = await rest.get(`${actions}/runs/${String(runId)}/artifacts?${query.toString()}`);
        const items = objectsOf(answer['artifacts']);
        found.push(...items.map(parseArtifact));
        isLast = items.length === 0 || found.length >= Number(answer['total_count'] ?? 0);
      }
      // Gitea lists an artifact without a size while it is being replaced.
      const complete = found.filter(({ name: listed, size }) => size > 0 && !isClaim(listed));
      return complete.sort((one, other) => other.id - one.id);
    },
    signDownload: (artifactId) => rest.redirect(`${actions}/artifacts/${String(artifactId)}/zip`),
  };
}

function parseRun(item: JsonObject): WorkflowRun {
  const { id } = item;
  const repository = fullName(item['repository']);
  // Gitea has none. There, only a pull request can be of a fork (services/convert/convert.go, ToActionWorkflowRun).
  const isOwn = !('head_repository' in item) && !stringOr(item['event'], 'pull_request').startsWith('pull_request');
  const headRepository = isOwn ? repository : fullName(item['head_repository']);
  if (!isByteCount(id) || repository === '') throw unknownForm('a workflow run without id or repository');
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
    throw unknownForm('an artifact without id, size or name');
  }
  const digest = parseDigest(stringOr(item['digest'], ''));
  return {
    id,
    name,
    size,
    ...(digest === undefined ? {} : { digest }),
    createdAt: stringOr(item['created_at'], ''),
    expiresAt: stringOr(item['expires_at'], ''),
    expired: item['expired'] === true,
  };
}

function unknownForm(what: string): HttpError {
  return new HttpError(200, 'malformed', `the answer has ${what}`);
}
