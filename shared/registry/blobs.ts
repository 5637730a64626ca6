import { HttpError } from '../http/answer.ts';
import type { HttpRequest } from '../http/client.ts';
import { again, isTransient, isTransientStatus } from '../http/retry.ts';
import { abortedAfter } from '../base/deadline.ts';
import { asError, HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type LentChunks, viewOf } from '../bytes/chunks.ts';
import { heldBack, verifiedChunks } from '../bytes/verified.ts';
import type { Digest } from '../image/digest.ts';
import { type RegistryAnswer, required } from './answers.ts';
import type { Conversation } from './conversation.ts';
import { mayUploadTo, pathOf, pulls, pushes, resolveLocation, withDigest, withoutSecrets } from './locations.ts';
import { isTaken } from './manifests.ts';

// Pushes blobs to a registry (distribution-spec 1.1, "Pushing Blobs"): a blob that isn't there is mounted, or else sent in one request.
// Each upload that was begun is finished or ended, because a registry would keep it for days.

export interface PushedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Returns its bytes from the start; called for each attempt. */
  readonly open: () => LentChunks;
}

export interface BlobPush {
  /** Repositories of the same registry that may have the blob. */
  readonly mountFrom: readonly string[];
  /** Whether to send the blob even if the registry reports it. */
  readonly anyway: boolean;
  /** Called with the number of sent bytes, and with the same number, negative, when they must be sent again. */
  readonly onBytes: (bytes: number) => void;
  /** Ends this push. */
  readonly signal: AbortSignal;
}

/** How the registry got a blob. */
export type BlobOrigin = 'there' | 'mounted' | 'pushed';

interface Job {
  readonly talk: Conversation;
  readonly repository: string;
  readonly blob: PushedBlob;
  readonly options: BlobPush;
  readonly scopes: readonly string[];
  readonly onRetry: (line: string) => void;
}

export async function pushBlob(
  talk: Conversation,
  repository: string,
  blob: PushedBlob,
  options: BlobPush,
  onRetry: (line: string) => void,
): Promise<BlobOrigin> {
  const job = { talk, repository, blob, options, scopes: [pushes(repository)], onRetry };
  if (!options.anyway && showsBlob(job, await head(job, isFinal))) return 'there';
  await using uploads = openUploads(job);
  if (!options.anyway && (await mount(job, uploads))) return 'mounted';
  return await upload(job, uploads);
}

const what = ({ blob }: Job): string => `The blob ${blob.digest}`;
const isFinal = (status: number): boolean => !isTransientStatus(status);

/** Whether an answer shows that the registry has the blob, as far as this login can see; a redirect's target decides. */
function showsBlob({ blob }: Job, { status, header, isElsewhere }: RegistryAnswer): boolean {
  if (status !== 200) return false;
  const size = header('content-length');
  return size === '' ? !isElsewhere : Number(size) === blob.size;
}

function head(
  job: Job,
  isAccepted: (status: number) => boolean,
  isRetryable?: (error: unknown) => boolean,
): Promise<RegistryAnswer> {
  const { talk, options, scopes } = job;
  const request = { method: 'HEAD', signal: options.signal } as const;
  return talk.call(what(job), scopes, pathIn(job), request, isAccepted, isRetryable);
}

function pathIn({ repository, blob }: Job): string {
  return `/v2/${pathOf(repository)}/blobs/${blob.digest}`;
}

/** The upload that was begun and not finished, if there is one; ended on dispose. */
interface Uploads extends AsyncDisposable {
  begun(place: URL): void;
  finished(): void;
  /** Returns the one to continue with. */
  readonly open: () => URL | undefined;
  /** Starts to end the open one. It has retries of its own, so no attempt waits for it. */
  end(): void;
}

function openUploads({ talk, scopes }: Job): Uploads {
  let open: URL | undefined;
  const endings: Promise<void>[] = [];
  const end = (): void => {
    if (open !== undefined) endings.push(talk.endUpload(scopes, open));
    open = undefined;
  };
  return {
    begun: (place) => void (open = place),
    finished: () => void (open = undefined),
    open: () => open,
    end,
    [Symbol.asyncDispose]: async () => {
      end();
      await Promise.all(endings);
    },
  };
}

// A cancelled step has seconds.
const graceMs = 2000;

/** Returns the request that begins an upload. It outlives a cancel for a moment: only its answer has the upload's address. */
function beginning(url: string, signal: AbortSignal): HttpRequest {
  const late = abortedAfter(signal, graceMs);
  return { method: 'POST', url, headers: { 'content-length': '0' }, signal: late, outlivesStep: true };
}

/**
 * Mounts the blob from another repository, and returns whether that worked. A refusal is no failure, and isn't retried. If the registry
 * begins an upload instead, that one is used.
 */
async function mount(job: Job, uploads: Uploads): Promise<boolean> {
  const { talk, repository, blob, options, scopes } = job;
  const asked = new URL(`/v2/${pathOf(repository)}/blobs/uploads/`, await talk.origin()).href;
  for (const other of options.mountFrom.filter((one) => pathOf(one) !== pathOf(repository))) {
    const url = `${asked}?${new URLSearchParams({ mount: blob.digest, from: pathOf(other) }).toString()}`;
    options.signal.throwIfAborted();
    const request = beginning(url, options.signal);
    const answer = await talk
      .ask([...scopes, pulls(other)], () => request)
      .catch((error: unknown) => {
        // The token service may refuse a token for a repository that this login can't read.
        if (error instanceof HttpError || isTransient(error)) return undefined;
        throw asError(error);
      });
    if (answer?.status !== 201 && answer?.status !== 202) continue;
    uploads.end();
    if (answer.status === 201) return true;
    const own = await talk.origin();
    const place = resolveLocation(answer.header('location'), answer.url, own);
    if (place !== undefined && mayUploadTo(place, own)) uploads.begun(place);
  }
  return false;
}

// A registry may move a large blob before it answers.
const commitMs = 5 * 60_000;

async function upload(job: Job, uploads: Uploads): Promise<BlobOrigin> {
  const { options, onRetry } = job;
  const attempt = async (): Promise<number | undefined> => {
    const place = uploads.open() ?? (await begin(job));
    if (place === undefined) return undefined;
    uploads.begun(place);
    try {
      const { status } = await send(job, place);
      uploads.finished();
      return status;
    } catch (error) {
      uploads.end();
      throw asError(error);
    }
  };
  const isRetryable = (error: unknown): boolean => isTransient(error) || isLostUpload(error);
  const status = await again('part', attempt, { what: () => what(job), onRetry, signal: options.signal, isRetryable });
  if (status === undefined) return 'there';
  if (status === 201) return 'pushed';
  // Accepted, perhaps not yet stored. A push-only login can't look, and a registry may not support HEAD.
  const isAccepted = (found: number): boolean => [200, 401, 403, 405, 501].includes(found);
  await head(job, isAccepted, (error) => isTransient(error) || (error instanceof HttpError && error.status === 404));
  return 'pushed';
}

// distribution-spec, "Error Codes": a restarted registry, or another replica, doesn't know the upload.
function isLostUpload(error: unknown): boolean {
  return error instanceof HttpError && /^BLOB_UPLOAD_(?:UNKNOWN|INVALID)/.test(error.serviceCode);
}

/** Begins an upload. Returns its address; undefined when the registry answers that it has the blob already. */
async function begin(job: Job): Promise<URL | undefined> {
  const { talk, repository, options, scopes } = job;
  const own = await talk.origin();
  options.signal.throwIfAborted();
  const request = beginning(new URL(`/v2/${pathOf(repository)}/blobs/uploads/`, own).href, options.signal);
  // 202 is the specification's; containerd accepts the others, crane 201.
  const begun = required(await talk.ask(scopes, () => request), isTaken);
  if (begun.status === 201) {
    const look = { method: 'HEAD', url: new URL(pathIn(job), own).href, signal: options.signal } as const;
    if (showsBlob(job, required(await talk.ask(scopes, () => look), isFinal))) return undefined;
  }
  const location = begun.header('location');
  const place = begun.status === 201 ? undefined : resolveLocation(location, begun.url, own);
  if (place !== undefined && mayUploadTo(place, own)) return place;
  const to = quoteForeign(withoutSecrets(location));
  throw new HandoverError(
    'registry-failed',
    `The registry began an upload with HTTP ${String(begun.status)} at "${to}"; an address with https:// was expected.`,
    'Look at the configuration of the registry, or of the proxy before it.',
  );
}

async function send({ talk, blob, options, scopes }: Job, place: URL): Promise<RegistryAnswer> {
  const { size, digest } = blob;
  let sent = 0;
  let failure: unknown;
  const revoke = (): void => {
    options.onBytes(-sent);
    sent = 0;
  };
  async function* chunks(): AsyncGenerator<Buffer> {
    try {
      for await (const piece of verifiedPieces(blob)) {
        yield piece;
        sent += piece.length;
        options.onBytes(piece.length);
      }
    } catch (error) {
      failure = error;
      throw error;
    }
  }
  const request = (): HttpRequest => {
    revoke();
    const headers = { 'content-type': 'application/octet-stream' };
    const body = { size, chunks: chunks() };
    return { method: 'PUT', url: withDigest(place, digest), headers, body, answerMs: commitMs, signal: options.signal };
  };
  try {
    return required(await talk.ask(scopes, request), isTaken);
  } catch (error) {
    revoke();
    throw asError(failure ?? error);
  }
}

const pieceBytes = 256 * 1024;

/** Returns a blob's bytes, copied in pieces. The last piece follows when all are verified. */
function verifiedPieces(blob: PushedBlob): AsyncIterable<Buffer> {
  const verified = verifiedChunks(copied(blob.open()), blob, (found) => otherBlob(blob, found));
  return heldBack(verified, 1);
}

async function* copied(chunks: LentChunks): AsyncGenerator<Buffer> {
  for await (const chunk of chunks)
    for (let at = 0; at < chunk.length; at += pieceBytes)
      yield Buffer.from(viewOf(chunk.subarray(at, Math.min(at + pieceBytes, chunk.length))));
}

function otherBlob({ digest, size }: PushedBlob, found: { size: number; digest?: string | undefined }): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `A layer of the artifact has the digest ${found.digest ?? 'none'} and ${String(found.size)} bytes; its manifest lists ${digest} and ${String(size)}.`,
    'Nothing was published. Run the job that exports the image again.',
  );
}
