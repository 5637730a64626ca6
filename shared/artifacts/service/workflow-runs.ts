import { isByteCount, isObject, type JsonObject, objectsOf, stringOr } from '../../base/json.ts';
import { parseDigest } from '../../image/digest.ts';
import { HttpError } from '../../http/answer.ts';
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
      const query = new URLSearchParams({
        branch,
        ...(event === undefined ? {} : { event }),
        status: 'success',
        exclude_pull_requests: 'true',
        per_page: String(runsPerPage),
      });
      const path = `${actions}/workflows/${encodeURIComponent(workflow)}/runs?${query.toString()}`;
      for await (const page of rest.pages(path)) yield* objectsOf(page['workflow_runs']).map(parseRun);
    },
    artifacts: async (runId, name) => {
      const query = new URLSearchParams({ per_page: '100', ...(name === undefined ? {} : { name }) });
      const found: RunArtifact[] = [];
      for await (const page of rest.pages(`${actions}/runs/${String(runId)}/artifacts?${query.toString()}`)) {
        found.push(...objectsOf(page['artifacts']).map(parseArtifact));
      }
      return found.sort((one, other) => other.id - one.id);
    },
    signDownload: (artifactId) => rest.redirect(`${actions}/artifacts/${String(artifactId)}/zip`),
  };
}

function parseRun(item: JsonObject): WorkflowRun {
  const { id } = item;
  const repository = fullName(item['repository']);
  const headRepository = fullName(item['head_repository']);
  if (!isByteCount(id) || repository === '') throw unknownForm('a workflow run without id or repository');
  return {
    id,
    url: stringOr(item['html_url'], ''),
    createdAt: stringOr(item['created_at'], ''),
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
