import { isObject, type JsonObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { type Digest, parseDigest } from '../image/digest.ts';
import { again, type Http, readText } from './http.ts';
import type { ServiceCredentials } from './service-credentials.ts';

/** The service answered with success, but not with what we know: our client is older than the service. */
export class UnknownAnswer extends Error {
  override readonly name = 'UnknownAnswer';
}

export interface ListedArtifact {
  readonly id: number;
  readonly name: string;
  /** Bytes of the blob. */
  readonly size: number;
  readonly digest?: Digest;
  readonly createdAt?: string;
  readonly runBackendId: string;
  readonly jobBackendId: string;
}

/** The artifact service's calls that the official client doesn't offer on their own. */
export interface ResultsService {
  /** All artifacts of this run, or those of one name, newest first, over all its attempts. */
  list(name?: string): Promise<readonly ListedArtifact[]>;
  /** A URL that reads the blob, for some minutes. */
  signDownload(artifact: ListedArtifact): Promise<string>;
  /** Reserves a name and returns a URL to write the blob to. Throws `HttpError` 409 when the name is taken. */
  create(name: string, expiresAt: Date): Promise<string>;
  finalize(name: string, size: number, digest: Digest): Promise<number>;
  remove(name: string): Promise<void>;
}

const service = 'github.actions.results.api.v1.ArtifactService';
// 4 is the format of artifacts since v4 of the upload action; 7 is what its client has sent since raw artifacts exist.
const formatVersion = 7;

/** @param onRetry told of each call that is made again, in one line */
export function resultsService(
  http: Http,
  credentials: ServiceCredentials,
  onRetry: (line: string) => void,
  signal: AbortSignal,
): ResultsService {
  const ids = {
    workflow_run_backend_id: credentials.runBackendId,
    workflow_job_run_backend_id: credentials.jobBackendId,
  };
  const call = (method: string, body: JsonObject): Promise<JsonObject> =>
    again(() => post(http, credentials, method, { ...ids, ...body }), {
      what: () => method,
      attempts: 5,
      pauseMs: [1000, 15_000],
      onRetry,
      signal,
    });
  return {
    list: async (name) => {
      const answer = await call('ListArtifacts', name === undefined ? {} : { name_filter: name });
      return listed(answer).sort((one, other) => other.id - one.id);
    },
    signDownload: async (artifact) => {
      const owner = {
        workflow_run_backend_id: artifact.runBackendId,
        workflow_job_run_backend_id: artifact.jobBackendId,
      };
      const answer = await call('GetSignedArtifactURL', { ...owner, name: artifact.name });
      return url(field(answer, 'signed_url', 'signedUrl'), 'GetSignedArtifactURL');
    },
    create: async (name, expiresAt) => {
      const format = { mime_type: 'application/zip', version: formatVersion };
      const answer = await call('CreateArtifact', { name, ...format, expires_at: expiresAt.toISOString() });
      return url(field(answer, 'signed_upload_url', 'signedUploadUrl'), 'CreateArtifact');
    },
    finalize: async (name, size, digest) => {
      const answer = await call('FinalizeArtifact', { name, size: String(size), hash: digest });
      const id = Number(field(answer, 'artifact_id', 'artifactId'));
      if (answer['ok'] === true && Number.isSafeInteger(id)) return id;
      throw new UnknownAnswer('FinalizeArtifact: no artifact id');
    },
    remove: async (name) => {
      await call('DeleteArtifact', { name });
    },
  };
}

async function post(
  http: Http,
  credentials: ServiceCredentials,
  method: string,
  body: JsonObject,
): Promise<JsonObject> {
  const response = await http.send({
    method: 'POST',
    url: `${credentials.origin}/twirp/${service}/${method}`,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${credentials.token}` },
    body: JSON.stringify(body),
  });
  const value = parseJson(await readText(response));
  if (!isObject(value)) throw new UnknownAnswer(`${method}: the answer is not a JSON object`);
  return value;
}

// The service has answered in snake_case and in camelCase (protobuf JSON allows both).
function field(from: JsonObject, snake: string, camel: string): unknown {
  return from[snake] ?? from[camel];
}

function url(value: unknown, method: string): string {
  if (typeof value !== 'string' || !URL.canParse(value)) throw new UnknownAnswer(`${method}: no signed URL`);
  return value;
}

function listed(answer: JsonObject): ListedArtifact[] {
  const items = answer['artifacts'];
  // An empty list may be left out in protobuf's JSON; any other form is news to us.
  if (items !== undefined && !Array.isArray(items)) throw new UnknownAnswer('ListArtifacts: no list of artifacts');
  if (items === undefined && Object.keys(answer).length > 0) throw new UnknownAnswer('ListArtifacts: unknown fields');
  return objectsOf(items).map(listedArtifact);
}

function listedArtifact(item: JsonObject): ListedArtifact {
  const id = Number(field(item, 'database_id', 'databaseId'));
  const size = Number(item['size']);
  const name = stringOr(item['name'], '');
  if (!Number.isSafeInteger(id) || !Number.isSafeInteger(size) || name === '') {
    throw new UnknownAnswer('ListArtifacts: an artifact without id, size or name');
  }
  const digest = parseDigest(stringOr(item['digest'], ''));
  const createdAt = stringOr(field(item, 'created_at', 'createdAt'), undefined);
  return {
    id,
    name,
    size,
    ...(digest === undefined ? {} : { digest }),
    ...(createdAt === undefined ? {} : { createdAt }),
    runBackendId: stringOr(field(item, 'workflow_run_backend_id', 'workflowRunBackendId'), ''),
    jobBackendId: stringOr(field(item, 'workflow_job_run_backend_id', 'workflowJobRunBackendId'), ''),
  };
}
