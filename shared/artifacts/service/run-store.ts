import { setTimeout as sleep } from 'node:timers/promises';
import type { Proxies } from '../../http/proxies.ts';
import { asError, HandoverError, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { type TempDirs, tempDirs } from '../../bytes/files.ts';
import { lockKey } from '../../bytes/locks.ts';
import { openArtifact } from '../zip/artifact-content.ts';
import { uploadBlob, type UploadedBlob } from '../blob/blob-upload.ts';
import { fallbackStore } from './fallback-store.ts';
import { HttpError } from '../../http/answer.ts';
import { type Http, httpClient } from '../../http/client.ts';
import { officialStore } from './official-store.ts';
import {
  isOwnedBy,
  type ListedArtifact,
  type ResultsService,
  resultsService,
  UnknownAnswer,
} from './results-service.ts';
import { type ServiceCredentials, serviceCredentials } from './service-credentials.ts';
import { maskedUrl } from '../blob/signed-url.ts';
import type { Artifact, ArtifactContent, ArtifactStore, UploadRequest } from '../store.ts';
import { blobReader } from '../blob/whole-blob.ts';
import { storedZip } from '../zip/zip-writer.ts';

export interface RunStoreOptions {
  /** `ACTIONS_RUNTIME_TOKEN` and `ACTIONS_RESULTS_URL`, empty when not set. */
  readonly runtimeToken: string;
  readonly resultsUrl: string;
  readonly proxies: Proxies;
  /** Told of each request that is made again, in one line. */
  readonly onRetry: (message: string) => void;
  /** Told when the official client takes over. */
  readonly onNotice: (message: string) => void;
  readonly progress: Log['progress'];
  /** Where whole artifacts may lie: for the official client, and when a server gives no parts of them. */
  readonly tempRoot: string;
  /** Keeps the signature of a signed URL out of the log. */
  readonly maskSecret: (secret: string) => void;
  readonly signal: AbortSignal;
}

const dayMs = 24 * 60 * 60 * 1000;
// A cancelled step is killed after 7.5 s. Until then the answer to a reservation is waited for, then what it reserved is removed.
const answerMs = 2000;
const cleanupMs = 4500;
const latePauseMs = 500;

/**
 * The artifacts of the workflow run that this job belongs to.
 * @throws HandoverError `unsupported-host` outside a runner
 */
export function runStore(options: RunStoreOptions): ArtifactStore {
  return fallbackStore(ownStore(options), explained(options), options.onNotice);
}

/** The official client tells what went wrong in its messages, and a missing artifact by its error's name, alone. */
function explained(options: RunStoreOptions): ArtifactStore {
  const official = officialStore(options.tempRoot);
  const or = async <T>(what: string, name: string, work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (error instanceof Error && error.name === 'ArtifactNotFoundError') throw notFound(name, error);
      throw transferFailed(`${what} by way of the official client`, error);
    }
  };
  return {
    list: () => or('list the artifacts of this run', '', official.list()),
    open: (artifact) => or(`read the artifact "${artifact.name}"`, artifact.name, official.open(artifact)),
    upload: (request) =>
      or(`upload the artifact "${request.name}"`, request.name, officialUpload(official, options, request)),
    remove: (artifact) => or(`delete the artifact "${artifact.name}"`, artifact.name, official.remove(artifact)),
    [Symbol.asyncDispose]: () => official[Symbol.asyncDispose](),
  };
}

async function officialUpload(
  official: ArtifactStore,
  options: RunStoreOptions,
  request: UploadRequest,
): Promise<Artifact> {
  const { name } = request;
  const credentials = serviceCredentials(options.runtimeToken, options.resultsUrl);
  await using lock = await lockName(credentials, name);
  try {
    return await official.upload(request);
  } catch (error) {
    // Its own reservation, it may be: it tries again when an answer got lost.
    const wasOurs = lock !== undefined && (await removeUnfinished(credentials, options, name, { unlessListed: true }));
    if (!wasOurs && messageOf(error).includes('(409)')) throw nameTaken(name, error);
    throw error;
  }
}

// Steps of one job that run side by side have the same ids: one must not take the other's reservation for a dead one.
function lockName(
  { origin, runBackendId, jobBackendId }: ServiceCredentials,
  name: string,
): Promise<AsyncDisposable | undefined> {
  return lockKey(JSON.stringify([origin, runBackendId, jobBackendId, name]), 'taken');
}

function ownStore(options: RunStoreOptions): ArtifactStore {
  const credentials = serviceCredentials(options.runtimeToken, options.resultsUrl);
  const http = httpClient(options.proxies, options.signal);
  const service = resultsService(http, credentials, options.onRetry, options.signal);
  const folders = tempDirs(options.tempRoot);
  const known = new Map<number, ListedArtifact>();
  return {
    list: () =>
      explain('list the artifacts of this run', async () => {
        const artifacts = await service.list();
        for (const artifact of artifacts) known.set(artifact.id, artifact);
        return artifacts;
      }),
    open: (artifact) => open({ http, service, folders }, options, artifact, known.get(artifact.id)),
    upload: (request) => upload(http, service, credentials, options, request),
    remove: (artifact) =>
      explain(`delete the artifact "${artifact.name}"`, () => removeListed(service, known, artifact)),
    [Symbol.asyncDispose]: async () => {
      await http.close();
      await folders[Symbol.asyncDispose]();
    },
  };
}

async function open(
  { http, service, folders }: { readonly http: Http; readonly service: ResultsService; readonly folders: TempDirs },
  options: RunStoreOptions,
  artifact: Artifact,
  listed: ListedArtifact | undefined,
): Promise<ArtifactContent> {
  if (listed === undefined) throw new RangeError(`artifact ${String(artifact.id)} was not listed by this store`);
  const what = `read the artifact "${artifact.name}"`;
  let isOpen = false;
  const sign = (): Promise<string> =>
    explain(what, async () => maskedUrl(await service.signDownload(listed), options.maskSecret)).catch(
      (error: unknown) => {
        // Nobody can take over what is being read already.
        throw isOpen ? transferFailed(what, error) : asError(error);
      },
    );
  const { onRetry, progress, signal } = options;
  const content = await openArtifact(
    artifact,
    blobReader({ http, artifact, sign, onRetry, progress, folders, signal }),
  );
  isOpen = true;
  return content;
}

async function removeListed(
  service: ResultsService,
  known: ReadonlyMap<number, ListedArtifact>,
  { id, name }: Artifact,
): Promise<void> {
  const listed = known.get(id);
  if (listed === undefined) throw new RangeError(`artifact ${String(id)} was not listed by this store`);
  await service.remove(name, listed).catch((error: unknown) => {
    if (!(error instanceof HttpError) || error.status !== 404) throw error;
  });
}

async function upload(
  http: Http,
  service: ResultsService,
  credentials: ServiceCredentials,
  options: RunStoreOptions,
  request: UploadRequest,
): Promise<Artifact> {
  const { name } = request;
  await using lock = await lockName(credentials, name);
  const { retentionDays } = request;
  const expiresAt = retentionDays === 0 ? undefined : new Date(Date.now() + retentionDays * dayMs);
  const isAlone = lock !== undefined;
  const url = await explain(`create the artifact "${name}"`, () =>
    reserve(credentials, options, { name, expiresAt, isAlone }),
  );
  try {
    const zip = storedZip(request.files);
    const target = { http, url: maskedUrl(url, options.maskSecret), onRetry: options.onRetry, signal: options.signal };
    const blob = await uploadBlob(target, zip, request.onBytes);
    const id = await service
      .finalize(name, blob.size, blob.digest)
      .catch((error: unknown) => listedId(service, name, blob, error));
    return { id, name, ...blob };
  } catch (error) {
    await removeUnfinished(credentials, options, name);
    throw error instanceof HandoverError ? error : transferFailed(`upload the artifact "${name}"`, error);
  }
}

interface Reservation {
  readonly name: string;
  /** Undefined leaves it to the service, which takes the repository's default. */
  readonly expiresAt: Date | undefined;
  /** Whether no other step of this job is uploading under the name. */
  readonly isAlone: boolean;
}

/**
 * Reserves the name, and returns where to write the blob. Whatever goes wrong, a cancel included, no reservation of ours stays:
 * nobody could have the name any more, the next attempt of this step included.
 */
async function reserve(
  credentials: ServiceCredentials,
  options: RunStoreOptions,
  { name, expiresAt, isAlone }: Reservation,
): Promise<string> {
  const patient = later(options.signal, answerMs);
  const http = httpClient(options.proxies, patient);
  const service = resultsService(http, credentials, options.onRetry, patient);
  const isFree = async (lateMs: number): Promise<boolean> =>
    isAlone && (await removeUnfinished(credentials, options, name, { unlessListed: true, lateMs }));
  try {
    const url = await service.create(name, expiresAt).catch(async (error: unknown) => {
      // Taken by ourselves, it may be: by a request whose answer got lost, or by a step of this job that was killed.
      if (!isTaken(error) || !(await isFree(0))) throw error;
      return service.create(name, expiresAt);
    });
    if (!options.signal.aborted) return url;
    await removeUnfinished(credentials, options, name);
    throw asError(options.signal.reason);
  } catch (error) {
    if (isTaken(error)) throw nameTaken(name, error);
    // What was refused reserved nothing; of anything else, a success in unknown words included, that isn't known.
    if (!(error instanceof HttpError && error.status < 500)) await isFree(answerMs);
    throw error;
  } finally {
    await http.close();
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof HttpError && error.status === 409;
}

/** Aborted so many ms after another signal. */
function later(signal: AbortSignal, ms: number): AbortSignal {
  const controller = new AbortController();
  const begin = (): void => {
    setTimeout(() => {
      controller.abort(signal.reason);
    }, ms).unref();
  };
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return controller.signal;
}

/** The artifact's id where the service lists it as it was sent, although its answer to the end of the upload was lost or unknown. */
async function listedId(service: ResultsService, name: string, sent: UploadedBlob, error: unknown): Promise<number> {
  const artifacts = await service.list(name).catch(() => []);
  const found = artifacts.find(
    (artifact) => isOwnedBy(artifact, service.self) && artifact.size === sent.size && artifact.digest === sent.digest,
  );
  if (found === undefined) throw error;
  return found.id;
}

interface RemovalOptions {
  /** Whether an artifact that is listed stays: it is finished, and another step's of this job. */
  readonly unlessListed?: boolean;
  /** How long a reservation may still be on its way, in ms. */
  readonly lateMs?: number;
}

/**
 * Removes what this attempt of this job has reserved under a name. It has its own connection: ours may be cancelled.
 * @returns whether there was something
 */
async function removeUnfinished(
  credentials: ServiceCredentials,
  { proxies, onRetry }: RunStoreOptions,
  name: string,
  { unlessListed = false, lateMs = 0 }: RemovalOptions = {},
): Promise<boolean> {
  const giveUpAt = Date.now() + lateMs;
  const signal = AbortSignal.timeout(cleanupMs);
  const http = httpClient(proxies, signal);
  try {
    const service = resultsService(http, credentials, onRetry, signal);
    const isOurs = (artifact: ListedArtifact): boolean => isOwnedBy(artifact, service.self);
    if (unlessListed && (await service.list(name)).some(isOurs)) return false;
    for (;;) {
      const isGone = await service.remove(name, service.self).then(
        () => true,
        (error: unknown) => {
          if (error instanceof HttpError && error.status === 404) return false;
          throw error;
        },
      );
      if (isGone || Date.now() >= giveUpAt) return isGone;
      await sleep(latePauseMs, undefined, { signal });
    }
  } catch {
    // The error that led here is the one to report.
    return false;
  } finally {
    await http.close();
  }
}

async function explain<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UnknownAnswer) throw error;
    throw transferFailed(what, error);
  }
}

function notFound(name: string, error: unknown): HandoverError {
  return new HandoverError(
    'artifact-not-found',
    `The artifact service lists no artifact "${name}" any more: ${messageOf(error)}.`,
    'It was deleted meanwhile, or has expired. Re-run all jobs, so that the image is built and handed over again.',
    error,
  );
}

function nameTaken(name: string, error: unknown): HandoverError {
  return new HandoverError(
    'artifact-name-taken',
    `The artifact service refuses the name "${name}": ${messageOf(error)}. Another job or step of this run uses it, or is uploading to it now.`,
    `Give each job, and each step that hands over, its own \`artifact-name\`. In a matrix, add what varies: \`${name}-\${{ matrix.component }}\`.`,
    error,
  );
}

// actions/toolkit, artifact, shared/errors.ts: UsageError.
const quota = /insufficient usage|storage quota/i;

function transferFailed(what: string, error: unknown): Error {
  if (error instanceof HandoverError) return error;
  const authorization = error instanceof HttpError && (error.status === 401 || error.status === 403);
  return new HandoverError(
    'transfer-failed',
    `Could not ${what}: ${messageOf(error)}.`,
    quota.test(messageOf(error))
      ? 'The artifact storage of this account is used up; it is counted anew every 6 to 12 hours. Delete old artifacts, or lower `retention-days`.'
      : authorization
        ? "The job's token was refused: it is valid only while the job runs. Re-run the job."
        : 'Re-run the job. If it repeats, look at https://www.githubstatus.com and at the proxy of a self-hosted runner.',
    error,
  );
}
