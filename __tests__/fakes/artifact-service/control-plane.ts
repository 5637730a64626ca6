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

/** A twirp error: an HTTP status, `code` and `msg`. */
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

/** Serves github.actions.results.api.v1.ArtifactService in JSON. */
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

// Every call contains the backend IDs of a run and a job. Writes need both IDs from the token; a listing needs only its run ID.
// Reads and deletes use the IDs from the listing, which may be those of an earlier attempt of the run.
function requireOwnRun(parts: ControlPlaneParts, method: string, job: JobIdentity, body: Body): void {
  const namedRun = toText(body['workflow_run_backend_id']);
  const isOwn = namedRun === job.runBackendId;
  const ofThisRun =
    isOwn || parts.artifacts.some(({ job: by }) => by.runBackendId === namedRun && by.runId === job.runId);
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
    const name = toText(body['name']);
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
      expiresAt: toText(body['expires_at'], new Date(Date.now() + 90 * 86_400_000).toISOString()),
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
    if (size === undefined || String(size) !== toText(body['size'])) {
      throw new TwirpError(
        400,
        'invalid_argument',
        `size ${toText(body['size'])} does not match the blob's ${String(size)}`,
      );
    }
    artifact.size = size;
    artifact.digest = body['hash'] === undefined ? undefined : toText(body['hash']);
    artifact.finalised = true;
    return { ok: true, artifact_id: String(artifact.id) };
  },
  ListArtifacts: (parts, job, body) => {
    const found = inRun(parts, job)
      .filter((item) => item.finalised && Date.parse(item.expiresAt) > Date.now())
      .filter((item) => body['name_filter'] === undefined || item.name === body['name_filter'])
      .filter((item) => body['id_filter'] === undefined || String(item.id) === toText(body['id_filter']));
    return { artifacts: found.map(listing) };
  },
  GetSignedArtifactURL: (parts, _, body) => {
    const artifact = artifactsOfJob(parts, body).findLast(({ finalised }) => finalised);
    if (artifact === undefined) throw new TwirpError(404, 'not_found', 'artifact not found');
    return {
      signed_url: parts.signer.sign(parts.blobOrigin(), artifact.blob, 'r', parts.lifetimeMs, `${artifact.name}.zip`),
    };
  },
  DeleteArtifact: (parts, _, body) => {
    const artifact = artifactsOfJob(parts, body)[0];
    if (artifact === undefined) throw new TwirpError(404, 'not_found', 'artifact not found');
    // Kept under an unreachable name, so that IDs keep growing.
    Object.assign(artifact, { name: `\u0000deleted`, finalised: false });
    return { ok: true, artifact_id: String(artifact.id) };
  },
};

// Some clients send numbers as strings.
function toText(value: unknown, fallback = ''): string {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : fallback;
}

// A listing spans all attempts of a run. A name is unique within one attempt, across jobs.
function inRun(parts: ControlPlaneParts, job: JobIdentity): readonly StoredArtifact[] {
  return parts.artifacts.filter((artifact) => artifact.job.runId === job.runId);
}

function inAttempt(parts: ControlPlaneParts, job: JobIdentity): readonly StoredArtifact[] {
  return parts.artifacts.filter((artifact) => artifact.job.runBackendId === job.runBackendId);
}

function isOf({ runBackendId, jobBackendId }: JobIdentity, { job }: StoredArtifact): boolean {
  return job.runBackendId === runBackendId && job.jobBackendId === jobBackendId;
}

/** Returns the artifacts of the job whose IDs are in the request. */
function artifactsOfJob({ artifacts }: ControlPlaneParts, body: Body): readonly StoredArtifact[] {
  const [run, job] = [toText(body['workflow_run_backend_id']), toText(body['workflow_job_run_backend_id'])];
  return artifacts.filter(
    (item) => item.name === body['name'] && isOf({ ...item.job, runBackendId: run, jobBackendId: job }, item),
  );
}

function listing(artifact: StoredArtifact): unknown {
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
