import { hasStatus, HttpError } from '../http/answer.ts';
import type { HttpRequest } from '../http/client.ts';
import { again, isFinal, isTransient } from '../http/retry.ts';
import { abortedAfter } from '../base/deadline.ts';
import { asError, HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type LentChunks, pieces, watchedChunks } from '../bytes/chunks.ts';
import { heldBack, verifiedChunks } from '../bytes/verified.ts';
import type { Digest } from '../image/digest.ts';
import { isTaken, pathOf, pulls, type RegistryAnswer, required, uploadPlace, withoutSecrets } from './answers.ts';
import type { Conversation } from './conversation.ts';

// Pushes blobs to a registry (distribution-spec 1.1, "Pushing Blobs"): a missing blob is mounted, or else sent in one request.
// Each upload that was started is finished or cancelled, because a registry would keep it for days.

export interface PushedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Returns its bytes from the start. Called for each attempt. */
  readonly open: () => LentChunks;
}

export interface BlobPush {
  /** Repositories of the same registry that may have the blob. */
  readonly mountFrom: readonly string[];
  /** Whether to send the blob even if the registry reports that it has it. */
  readonly anyway: boolean;
  /** Called with the number of bytes sent, and with a negative number when bytes must be sent again. */
  readonly onBytes: (bytes: number) => void;
  /** Ends this push. */
  readonly signal: AbortSignal;
}

/** How the registry got a blob. */
export type BlobOrigin = 'there' | 'mounted' | 'pushed';

interface Job extends AsyncDisposable {
  readonly talk: Conversation;
  readonly blob: PushedBlob;
  readonly options: BlobPush;
  /** The upload that was started but not finished, if there is one. It is cancelled on dispose. */
  begun: URL | undefined;
  /** Starts to cancel it. This has its own retries, so no attempt waits for it. */
  end(): void;
}

export async function pushBlob(talk: Conversation, blob: PushedBlob, options: BlobPush): Promise<BlobOrigin> {
  await using job = newJob(talk, blob, options);
  if (options.anyway) return await upload(job);
  if (showsBlob(job, await head(job, isFinal))) return 'there';
  return (await mount(job)) ? 'mounted' : await upload(job);
}

function newJob(talk: Conversation, blob: PushedBlob, options: BlobPush): Job {
  const endings: Promise<void>[] = [];
  const job: Job = {
    ...{ talk, blob, options, begun: undefined },
    end: () => {
      if (job.begun !== undefined) endings.push(talk.endUpload(job.begun));
      job.begun = undefined;
    },
    [Symbol.asyncDispose]: async () => {
      job.end();
      await Promise.all(endings);
    },
  };
  return job;
}

const what = ({ blob }: Job): string => `The blob ${blob.digest}`;
const pathOfBlob = ({ blob }: Job): string => `blobs/${blob.digest}`;

/** Whether an answer shows that the registry has the blob, as far as this login can see. After a redirect, the target's answer counts. */
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
  const request = { method: 'HEAD', signal: job.options.signal } as const;
  return job.talk.call(what(job), pathOfBlob(job), request, isAccepted, isRetryable);
}

// A cancelled step has only seconds.
const graceMs = 2000;

/** Requests an upload. The request outlives a cancel for a moment, because only its answer has the upload's address. */
async function requestUpload(
  { talk, options }: Job,
  query = '',
  scopes: readonly string[] = [],
): Promise<RegistryAnswer> {
  const url = `${await talk.urlOf('blobs/uploads/')}${query}`;
  options.signal.throwIfAborted();
  const ends = { outlivesStep: true, signal: abortedAfter(options.signal, graceMs) } as const;
  return talk.ask(() => ({ method: 'POST', url, headers: { 'content-length': '0' }, ...ends }), scopes);
}

/**
 * Mounts the blob from another repository, and returns whether that worked. A refusal is not an error, and isn't retried. If the registry
 * starts an upload instead, that upload is used.
 */
async function mount(job: Job): Promise<boolean> {
  const { talk, blob, options } = job;
  for (const other of options.mountFrom.filter((one) => pathOf(one) !== pathOf(talk.repository))) {
    const query = new URLSearchParams({ mount: blob.digest, from: pathOf(other) });
    const answer = await requestUpload(job, `?${query.toString()}`, [pulls(other)]).catch((error: unknown) => {
      options.signal.throwIfAborted();
      // The token service may refuse a token for a repository that this login can't read.
      if (error instanceof HttpError || isTransient(error)) return undefined;
      throw asError(error);
    });
    if (answer?.status !== 201 && answer?.status !== 202) continue;
    job.end();
    if (answer.status === 201) return true;
    job.begun = uploadPlace(answer, await talk.origin());
  }
  return false;
}

// A registry may move a large blob before it answers.
const commitMs = 5 * 60_000;
const pieceBytes = 256 * 1024;

async function upload(job: Job): Promise<BlobOrigin> {
  const attempt = async (): Promise<number | undefined> => {
    job.begun ??= await begin(job);
    if (job.begun === undefined) return undefined;
    try {
      const { status } = await send(job, job.begun);
      job.begun = undefined;
      return status;
    } catch (error) {
      job.end();
      throw asError(error);
    }
  };
  // A restarted registry, or another replica, doesn't know the upload (distribution-spec, "Error Codes").
  const isLostUpload = (error: unknown): boolean =>
    error instanceof HttpError && /^BLOB_UPLOAD_(?:UNKNOWN|INVALID)/.test(error.serviceCode);
  const status = await again('part', attempt, {
    ...job.talk.retries,
    what: what(job),
    signal: job.options.signal,
    isRetryable: (error) => isTransient(error) || isLostUpload(error),
  });
  if (status === undefined) return 'there';
  if (status === 201) return 'pushed';
  // It is accepted, but perhaps not yet stored. A push-only login can't check, and a registry may not support HEAD.
  const isAccepted = (found: number): boolean => [200, 401, 403, 405, 501].includes(found);
  await head(job, isAccepted, (error) => isTransient(error) || hasStatus(error, 404));
  return 'pushed';
}

/** Starts an upload. Returns its address; undefined when the registry answers that it already has the blob. */
async function begin(job: Job): Promise<URL | undefined> {
  const { talk, options } = job;
  // The specification requires 202. containerd also accepts the others, and crane accepts 201.
  const begun = required(await requestUpload(job), isTaken);
  if (begun.status === 201) {
    const look = { method: 'HEAD', url: await talk.urlOf(pathOfBlob(job)), signal: options.signal } as const;
    if (showsBlob(job, required(await talk.ask(() => look), isFinal))) return undefined;
  }
  const place = begun.status === 201 ? undefined : uploadPlace(begun, await talk.origin());
  if (place !== undefined) return place;
  const to = quoteForeign(withoutSecrets(begun.header('location')));
  throw new HandoverError(
    'registry-failed',
    `The registry began an upload with HTTP ${String(begun.status)} at "${to}"; an address with https:// was expected.`,
    'Look at the configuration of the registry, or of the proxy before it.',
  );
}

/** Adds the blob's digest to the address of its upload, and keeps the query unchanged, because it may be signed. */
function withDigest(place: URL, digest: string): string {
  const address = place.href.replace(/\?$/, '');
  return `${address}${place.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
}

async function send({ talk, blob, options }: Job, place: URL): Promise<RegistryAnswer> {
  const { size, digest } = blob;
  let sent = 0;
  let failure: unknown;
  const revoke = (): void => {
    options.onBytes(-sent);
    sent = 0;
  };
  async function* chunks(): AsyncGenerator<Buffer> {
    const copies = pieces(blob.open(), pieceBytes, []);
    // The last piece follows when all bytes are verified.
    const verified = heldBack(
      verifiedChunks(copies, blob, (found) => otherBlob(blob, found)),
      1,
    );
    for await (const piece of watchedChunks(verified, (error) => (failure = error))) {
      yield piece;
      sent += piece.length;
      options.onBytes(piece.length);
    }
  }
  const request = (): HttpRequest => {
    revoke();
    const headers = { 'content-type': 'application/octet-stream' };
    const body = { size, chunks: chunks() };
    return { method: 'PUT', url: withDigest(place, digest), headers, body, answerMs: commitMs, signal: options.signal };
  };
  try {
    return required(await talk.ask(request), isTaken);
  } catch (error) {
    revoke();
    throw asError(failure ?? error);
  }
}

function otherBlob({ digest, size }: PushedBlob, found: { size: number; digest?: string | undefined }): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `A layer of the artifact has the digest ${found.digest ?? 'none'} and ${String(found.size)} bytes; its manifest lists ${digest} and ${String(size)}.`,
    'Nothing was published. Run the job that exports the image again.',
  );
}
