import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobStore } from './blobs.ts';
import type { Faults } from './faults.ts';
import type { UrlSigner } from './signed-url.ts';
import type { JobIdentity, TokenMint } from './token.ts';

export interface StoredArtifact {
  readonly id: number;
  readonly name: string;
  readonly blob: string;
  readonly job: JobIdentity;
  readonly createdAt: string;
  readonly expiresAt: string;
  size: number;
  digest: string | undefined;
  finalised: boolean;
}

export interface ControlPlaneParts {
  readonly artifacts: StoredArtifact[];
  readonly blobs: BlobStore;
  readonly signer: UrlSigner;
  readonly tokens: TokenMint;
  readonly faults: Faults;
  readonly lifetimeMs: number;
  readonly blobOrigin: () => string;
}

/** A twirp error: an HTTP status with `code` and `msg`. */
class TwirpError extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

type Body = Readonly<Record<string, unknown>>;

const forbidden = /[":<>|*?\r\n\\/]/;

/** Answers github.actions.results.api.v1.ArtifactService in JSON. */
export async function serveControlPlane(
  parts: ControlPlaneParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const method = (request.url ?? '').split('/').at(-1) ?? '';
  const fault = parts.faults.strike(method);
  if (fault?.kind === 'status') {
    request.resume();
    response.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
    response.end(fault.body ?? JSON.stringify({ code: 'unavailable', msg: 'try again' }));
    return;
  }
  if (fault?.kind === 'reset') return void request.socket.resetAndDestroy();
  if (fault?.kind === 'hang') await sleep(fault.ms, undefined, { ref: false });
  const answer = await text(request)
    .then((body) => handle(parts, method, request, body))
    .catch((error: unknown) => {
      if (!(error instanceof TwirpError)) throw error;
      return { status: error.status, body: { code: error.code, msg: error.message } };
    });
  if (fault?.kind === 'late') await sleep(fault.ms, undefined, { ref: false });
  if (fault?.kind === 'lost-answer') return void request.socket.resetAndDestroy();
  response.writeHead(answer.status, { 'content-type': 'application/json' });
  const isUnknown = fault?.kind === 'unknown-answer' && answer.status === 200;
  response.end(isUnknown ? fault.body : JSON.stringify(answer.body));
}

function handle(
  parts: ControlPlaneParts,
  method: string,
  request: IncomingMessage,
  text: string,
): { status: number; body: unknown } {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const job = parts.tokens.verify(token);
  if (job === undefined) throw new TwirpError(401, 'unauthenticated', 'invalid token');
  const body = snakeCase(JSON.parse(text));
  requireOwnRun(parts, method, job, body);
  const handler = handlers[method];
  if (handler === undefined) throw new TwirpError(404, 'bad_route', `no handler for ${method}`);
  return { status: 200, body: handler(parts, job, body) };
}

// Every call names a run's and a job's backend ids. To write, they are the token's own; to list, the run is. What reads or
// deletes an artifact names the ids that the list gave for it, which may be those of an earlier attempt of the same run.
function requireOwnRun(parts: ControlPlaneParts, method: string, job: JobIdentity, body: Body): void {
  const named = str(body['workflow_run_backend_id']);
  const isOwn = named === job.runBackendId;
  const ofThisRun = isOwn || parts.artifacts.some(({ job: by }) => by.runBackendId === named && by.runId === job.runId);
  if (method === 'GetSignedArtifactURL' || method === 'DeleteArtifact' ? ofThisRun : isOwn) return;
  throw new TwirpError(403, 'permission_denied', 'the token is for another run');
}

// The official client sends camelCase or snake_case, depending on its version.
function snakeCase(value: unknown): Body {
  if (typeof value !== 'object' || value === null) throw new TwirpError(400, 'malformed', 'the body is not an object');
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), item]),
  );
}

const handlers: Readonly<Record<string, (parts: ControlPlaneParts, job: JobIdentity, body: Body) => unknown>> = {
  CreateArtifact: (parts, job, body) => {
    const name = str(body['name']);
    if (name === '' || forbidden.test(name))
      throw new TwirpError(400, 'invalid_argument', 'the artifact name is not valid');
    if (inAttempt(parts, job).some((artifact) => artifact.name === name)) {
      throw new TwirpError(409, 'already_exists', 'an artifact with this name already exists on the workflow run');
    }
    const blob = randomUUID();
    parts.blobs.reserve(blob);
    parts.artifacts.push({
      id: 1000 + parts.artifacts.length,
      name,
      blob,
      job,
      createdAt: new Date().toISOString(),
      expiresAt: str(body['expires_at'], new Date(Date.now() + 90 * 86_400_000).toISOString()),
      size: 0,
      digest: undefined,
      finalised: false,
    });
    return {
      ok: true,
      signed_upload_url: parts.signer.sign(parts.blobOrigin(), blob, 'cw', parts.lifetimeMs, `${name}.zip`),
    };
  },
  FinalizeArtifact: (parts, job, body) => {
    const artifact = parts.artifacts.find((item) => isOf(job, item) && item.name === body['name'] && !item.finalised);
    if (artifact === undefined) throw new TwirpError(404, 'not_found', 'artifact not found');
    const size = parts.blobs.size(artifact.blob);
    if (size === undefined || String(size) !== str(body['size'])) {
      throw new TwirpError(
        400,
        'invalid_argument',
        `size ${str(body['size'])} does not match the blob's ${String(size)}`,
      );
    }
    artifact.size = size;
    artifact.digest = body['hash'] === undefined ? undefined : str(body['hash']);
    artifact.finalised = true;
    return { ok: true, artifact_id: String(artifact.id) };
  },
  ListArtifacts: (parts, job, body) => {
    const found = inRun(parts, job)
      .filter((item) => item.finalised && Date.parse(item.expiresAt) > Date.now())
      .filter((item) => body['name_filter'] === undefined || item.name === body['name_filter'])
      .filter((item) => body['id_filter'] === undefined || String(item.id) === str(body['id_filter']));
    return { artifacts: found.map(listed) };
  },
  GetSignedArtifactURL: (parts, _, body) => {
    const artifact = named(parts, body).findLast(({ finalised }) => finalised);
    if (artifact === undefined) throw new TwirpError(404, 'not_found', 'artifact not found');
    return {
      signed_url: parts.signer.sign(parts.blobOrigin(), artifact.blob, 'r', parts.lifetimeMs, `${artifact.name}.zip`),
    };
  },
  DeleteArtifact: (parts, _, body) => {
    const artifact = named(parts, body)[0];
    if (artifact === undefined) throw new TwirpError(404, 'not_found', 'artifact not found');
    // The entry stays under a name that nobody can ask for, so that ids keep growing.
    Object.assign(artifact, { name: `\u0000deleted`, finalised: false });
    return { ok: true, artifact_id: String(artifact.id) };
  },
};

// Numbers come as strings or numbers, depending on the client.
function str(value: unknown, otherwise = ''): string {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : otherwise;
}

// A listing spans the attempts of a run; a name is taken within one attempt, by whichever job.
function inRun(parts: ControlPlaneParts, job: JobIdentity): readonly StoredArtifact[] {
  return parts.artifacts.filter((artifact) => artifact.job.runId === job.runId);
}

function inAttempt(parts: ControlPlaneParts, job: JobIdentity): readonly StoredArtifact[] {
  return parts.artifacts.filter((artifact) => artifact.job.runBackendId === job.runBackendId);
}

function isOf({ runBackendId, jobBackendId }: JobIdentity, { job }: StoredArtifact): boolean {
  return job.runBackendId === runBackendId && job.jobBackendId === jobBackendId;
}

/** The artifacts of the job whose ids a request names. */
function named({ artifacts }: ControlPlaneParts, body: Body): readonly StoredArtifact[] {
  const [run, job] = [str(body['workflow_run_backend_id']), str(body['workflow_job_run_backend_id'])];
  return artifacts.filter(
    (item) => item.name === body['name'] && isOf({ ...item.job, runBackendId: run, jobBackendId: job }, item),
  );
}

function listed(artifact: StoredArtifact): unknown {
  return {
    workflow_run_backend_id: artifact.job.runBackendId,
    workflow_job_run_backend_id: artifact.job.jobBackendId,
    database_id: String(artifact.id),
    name: artifact.name,
    size: String(artifact.size),
    created_at: artifact.createdAt,
    ...(artifact.digest === undefined ? {} : { digest: artifact.digest }),
  };
}
