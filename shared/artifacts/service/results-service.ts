import { asError, HandoverError } from '../../base/errors.ts';
import { arrayOf, isByteCount, isObject, type JsonObject, parseJson, stringOr } from '../../base/json.ts';
import { type Digest, parseDigest } from '../../image/digest.ts';
import type { WorkflowHost } from '../../image/host.ts';
import { hasStatus } from '../../http/answer.ts';
import type { Http, HttpRequest } from '../../http/client.ts';
import { again, type AgainOptions, isTransient } from '../../http/retry.ts';
import { field, signedUrl, twirp, UnknownAnswer } from '../../http/twirp.ts';
import type { Artifact } from '../store.ts';

/** The service's ids of one attempt of a job. */
interface ArtifactOwner {
  readonly runBackendId: string;
  readonly jobBackendId: string;
}

export interface ListedArtifact extends Artifact, ArtifactOwner {}

/** Calls to the artifact service that the official client doesn't export. */
export interface ResultsService {
  /** Lists the artifacts of all attempts of this run, newest first: all of them, or only those with the given name. */
  list(name?: string): Promise<readonly ListedArtifact[]>;
  /** Returns a URL for reading the blob, valid for some minutes. */
  signDownload(artifact: ListedArtifact): Promise<string>;
  /** Reserves a name and returns a URL for writing the blob. Throws `HttpError` 409 when the name is taken. */
  create(name: string, expiresAt: Date | undefined): Promise<string>;
  finalize(name: string, size: number, digest: Digest): Promise<number>;
  /** Removes an artifact of this job or another owner by name, and returns whether it existed. */
  remove(name: string, owner?: ArtifactOwner): Promise<boolean>;
  /** Returns whether an artifact belongs to this attempt of this job. */
  readonly isOwn: (artifact: ArtifactOwner) => boolean;
}

const service = 'github.actions.results.api.v1.ArtifactService';
// The official client sends this since it supports raw artifacts (@actions/artifact, upload-artifact.ts).
const zipFormat = { mime_type: 'application/zip', version: 7 };
// The official client sent this before. Gitea before 1.26 and Forgejo answer 500 to a media type.
const giteaFormat = { version: 4 };

type EndOfUpload = Pick<HttpRequest, 'answerMs'> & Pick<AgainOptions, 'isRetryable'>;

// Gitea answers after copying all blocks into one file (artifacts_chunks.go, mergeChunksForArtifact). It first removes the list of
// blocks, so a second request fails, even if the first succeeded and its answer was lost.
const onGitea: EndOfUpload = {
  answerMs: 10 * 60_000,
  isRetryable: (error) => isTransient(error) && !hasStatus(error, 500),
};

/** @param onRetry called with one log line before each retry */
export function resultsService(
  http: Http,
  credentials: ServiceCredentials,
  onRetry: (line: string) => void,
  signal: AbortSignal,
): ResultsService {
  const idsOf = ({ runBackendId, jobBackendId }: ArtifactOwner): JsonObject => ({
    workflow_run_backend_id: runBackendId,
    workflow_job_run_backend_id: jobBackendId,
  });
  // Gitea before 1.26 and Forgejo answer 404 for a run without artifacts (routers/api/actions/artifactsv4.go).
  const noList = (error: unknown): JsonObject => {
    if (credentials.isGitea && hasStatus(error, 404)) return {};
    throw asError(error);
  };
  const post = twirp(http, { ...credentials, service });
  const call = (method: string, body: JsonObject, atEnd: EndOfUpload = {}): Promise<JsonObject> => {
    const retries = { what: method, onRetry, signal, ...atEnd };
    return again('call', () => post(method, { ...idsOf(credentials), ...body }, atEnd), retries);
  };
  const urlFrom = async (name: string, method: string, body: JsonObject): Promise<string> =>
    signedUrl(field(await call(method, body), name), method);
  return {
    isOwn: ({ runBackendId, jobBackendId }) =>
      runBackendId === credentials.runBackendId && jobBackendId === credentials.jobBackendId,
    list: async (name) => {
      const answer = await call('ListArtifacts', name === undefined ? {} : { name_filter: name }).catch(noList);
      // Gitea lists an artifact without a size while it is being replaced; Forgejo does so from the start of its upload.
      const complete = listed(answer).filter(({ size }) => size > 0);
      return complete.sort((one, other) => other.id - one.id);
    },
    signDownload: ({ name, ...owner }) => urlFrom('signed_url', 'GetSignedArtifactURL', { ...idsOf(owner), name }),
    create: (name, expiresAt) => {
      const format = credentials.isGitea ? giteaFormat : zipFormat;
      return urlFrom('signed_upload_url', 'CreateArtifact', { name, ...format, expires_at: expiresAt?.toISOString() });
    },
    finalize: async (name, size, digest) => {
      const body = { name, size: String(size), hash: digest };
      const answer = await call('FinalizeArtifact', body, credentials.isGitea ? onGitea : {});
      const id = wholeNumber(field(answer, 'artifact_id'));
      if (answer['ok'] === true && id !== undefined) return id;
      throw new UnknownAnswer('FinalizeArtifact: no artifact id');
    },
    remove: (name, owner = credentials) =>
      call('DeleteArtifact', { ...idsOf(owner), name }).then(
        () => true,
        (error: unknown) => {
          if (hasStatus(error, 404)) return false;
          throw asError(error);
        },
      ),
  };
}

/** Parses a number from protobuf's JSON, where 64-bit numbers are strings. */
function wholeNumber(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : value;
  return isByteCount(number) ? number : undefined;
}

function listed(answer: JsonObject): ListedArtifact[] {
  const items = answer['artifacts'];
  // Protobuf's JSON may omit an empty list; any other form is unknown.
  if (items !== undefined && !Array.isArray(items)) throw new UnknownAnswer('ListArtifacts: no list of artifacts');
  if (items === undefined && Object.keys(answer).length > 0) throw new UnknownAnswer('ListArtifacts: unknown fields');
  return arrayOf(items).map(listedArtifact);
}

function listedArtifact(item: unknown): ListedArtifact {
  if (!isObject(item)) throw new UnknownAnswer('ListArtifacts: an artifact that is no object');
  const id = wholeNumber(field(item, 'database_id'));
  // Protobuf's JSON omits zeros.
  const size = wholeNumber(item['size'] ?? 0);
  const name = stringOr(item['name'], '');
  if (id === undefined || size === undefined || name === '') {
    throw new UnknownAnswer('ListArtifacts: an artifact without id, size or name');
  }
  return {
    id,
    name,
    size,
    digest: parseDigest(stringOr(item['digest'], '')),
    createdAt: stringOr(field(item, 'created_at'), undefined),
    runBackendId: stringOr(field(item, 'workflow_run_backend_id'), ''),
    jobBackendId: stringOr(field(item, 'workflow_job_run_backend_id'), ''),
  };
}

/** The credentials that the runner gives an action for the artifact service. */
export interface ServiceCredentials extends ArtifactOwner {
  readonly token: string;
  /** Origin of the results service. */
  readonly origin: string;
  /**
   * Whether the service is Gitea's or Forgejo's. It doesn't refuse names that are taken, and lists every artifact with the requesting
   * job's ids. Gitea 1.26 lists no digests (routers/api/actions/artifactsv4.go).
   */
  readonly isGitea: boolean;
}

/**
 * @param token `ACTIONS_RUNTIME_TOKEN`; its claim `scp` contains `Actions.Results:<run>:<job>` (actions/toolkit, artifact, util.ts)
 * @param url `ACTIONS_RESULTS_URL`
 * @throws HandoverError `unsupported-host` when either is missing or malformed, or when the service is act's own
 */
export function serviceCredentials(token: string, url: string, host: WorkflowHost): ServiceCredentials {
  const unsupported = (why: string): HandoverError => unsupportedHost(host, why);
  if (token === '') throw unsupported('ACTIONS_RUNTIME_TOKEN is not set');
  if (url === '') throw unsupported('ACTIONS_RESULTS_URL is not set');
  if (!URL.canParse(url)) throw unsupported('ACTIONS_RESULTS_URL is not a URL');
  const payload = parseJson(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  const scopes = isObject(payload) ? stringOr(payload['scp'], '') : '';
  const match = /(?:^|\s)Actions\.Results:([^:\s]+):([^:\s]+)(?:\s|$)/.exec(scopes);
  const [, runBackendId, jobBackendId] = match ?? [];
  if (runBackendId === undefined || jobBackendId === undefined) {
    throw unsupported('ACTIONS_RUNTIME_TOKEN has no scope for the artifact service');
  }
  // GitHub's ids are UUIDs. Gitea's are numbers (services/actions/auth.go), and act copied this.
  const isGitea = /^\d+$/.test(runBackendId);
  if (host === 'act' && isGitea)
    throw unsupported(
      'this is act’s own artifact server, which ends the connection while there is no artifact, and lists the sizes of folders',
    );
  return { token, origin: new URL(url).origin, runBackendId, jobBackendId, isGitea };
}

const supported = 'github.com, GHE.com, or Gitea 1.26 or newer';
const otherWay = 'Or pass the image on by a registry.';

const nextSteps: Readonly<Record<WorkflowHost, string>> = {
  GitHub: `Run this as a \`uses:\` step of a workflow on ${supported}.`,
  'GitHub Enterprise Server': `It lacks this artifact service: run the workflow on ${supported}. ${otherWay}`,
  Gitea: `Update Gitea to 1.26 or newer, and its runner to a current version. ${otherWay}`,
  Forgejo: `Forgejo’s artifact service is only supported as far as it is that of Gitea 1.26. ${otherWay}`,
  act: `Run the workflow on ${supported}. act can set ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN to the service of one of these.`,
};

/** Returns the error for an artifact service that this action can't use. */
export function unsupportedHost(host: WorkflowHost, why: string, cause?: unknown): HandoverError {
  const where = host === 'GitHub' ? 'The artifact service' : `The artifact service of ${host}`;
  return new HandoverError('unsupported-host', `${where} can't be used: ${why}.`, nextSteps[host], cause);
}
