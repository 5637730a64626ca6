import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { abortedAfter } from '../../base/deadline.ts';
import { asError, HandoverError, messageOf } from '../../base/errors.ts';
import { lockKey } from '../../bytes/locks.ts';
import { hasStatus, HttpError } from '../../http/answer.ts';
import { type Http, httpClient } from '../../http/client.ts';
import { maskedUrl } from '../../http/twirp.ts';
import { retryHint, type WorkflowHost } from '../../image/host.ts';
import { uploadBlob } from '../blob/blob-upload.ts';
import type { StoreOptions } from '../store.ts';
import { type ResultsService, resultsService, type ServiceCredentials } from './results-service.ts';

// A reserved name is taken until the artifact is removed, even for the next attempt of the same step. So a failed or cancelled upload
// must remove its reservation.

export interface OwnStoreOptions extends StoreOptions {
  readonly credentials: ServiceCredentials;
}

// A cancelled step is killed after 7.5 s. Until then, it waits for the answer to a reservation, then removes the reservation.
const answerMs = 2000;
const cleanupMs = 4500;
const latePauseMs = 500;
// More than 24 hours, which Gitea counts as one day.
const claimMs = 25 * 60 * 60 * 1000;

/**
 * Locks a name among the simultaneous steps of one job. They have the same ids, and a step must not remove another step's reservation.
 * @returns undefined when another step has the lock
 */
export function lockName(
  { origin, runBackendId, jobBackendId }: ServiceCredentials,
  name: string,
): Promise<AsyncDisposable | undefined> {
  return lockKey(JSON.stringify([origin, runBackendId, jobBackendId, name]), 'taken');
}

/**
 * Reserves a name, and returns the URL for writing the blob.
 * @param expiresAt undefined means the repository's default
 * @param isAlone whether no other step of this job uploads under the name
 * @throws HandoverError `artifact-name-taken`; errors of the service. After any error, including a cancellation, the name isn't reserved.
 */
export async function reserveName(
  name: string,
  expiresAt: Date | undefined,
  options: OwnStoreOptions,
  isAlone: boolean,
): Promise<string> {
  const { signal } = options;
  await using client = connect(options, abortedAfter(signal, answerMs));
  const removeLeftover = async (lateMs: number): Promise<boolean> =>
    isAlone && (await removeUnfinished(name, options, { unlessListed: true, lateMs }));
  try {
    const url = await client.service.create(name, expiresAt).catch(async (error: unknown) => {
      // Possibly our own earlier reservation, made by a request whose answer was lost or by a killed step of this job.
      if (!hasStatus(error, 409) || !(await removeLeftover(0))) throw error;
      return client.service.create(name, expiresAt);
    });
    if (!signal.aborted) return url;
    await removeUnfinished(name, options);
    throw asError(signal.reason);
  } catch (error) {
    if (hasStatus(error, 409)) throw nameTaken(name, error);
    // A refused request reserves nothing. After any other error, or a success in an unknown form, the name may be reserved.
    if (!(error instanceof HttpError && error.status < 500)) await removeLeftover(answerMs);
    throw error;
  }
}

const claimStart = /^\.uploading-\d+-/;
const claimAttempts = 5;
const claimPauseMs = 100;

/** Returns whether an artifact with this name only shows that a job is uploading under another name. */
export function isClaim(name: string): boolean {
  return claimStart.test(name);
}

/**
 * Claims a name on Gitea, which doesn't refuse a name that is taken. A new upload replaces the artifact, and simultaneous uploads damage
 * each other. So this job stores a small artifact, the claim, and then checks for another job's claim or artifact. Each job stores its
 * claim before checking, so the later of two jobs sees the other's claim. If each sees the other's, both retry after a random pause.
 * Claims' names begin with a dot, so the usual patterns don't match them.
 * @param removed ids of artifacts that this step has removed, because Forgejo still lists them
 * @param isAlone whether no other step of this job uploads under the name
 * @returns the claim, to be disposed of when the artifact is complete
 * @throws HandoverError `artifact-name-taken`; errors of the service
 */
export async function claimOnGitea(
  name: string,
  removed: ReadonlySet<number>,
  options: OwnStoreOptions,
  isAlone: boolean,
): Promise<AsyncDisposable> {
  if (!isAlone) throw nameTaken(name, new Error('another step of this job uploads to it'));
  const { signal, credentials } = options;
  // A re-run of this job uses the same name, so it finds the claim of an attempt that was killed.
  const claim = `.uploading-${credentials.jobBackendId}-${name}`;
  const release = (): Promise<void> => removeClaim(claim, options);
  await using client = connect(options, signal);
  const { http, service } = client;
  for (let attempt = 1; ; attempt += 1) {
    const url = maskedUrl(await service.create(claim, new Date(Date.now() + claimMs)), options.maskSecret);
    const target = { http, url, onRetry: options.log.info, signal };
    const { size, digest } = await uploadBlob(target, Readable.from([Buffer.from(name)]), () => undefined);
    await service.finalize(claim, size, digest).catch(async (error: unknown) => {
      // The claim may be complete, and only the answer lost.
      if ((await service.list(claim)).length === 0) throw error;
    });
    const found = (await service.list()).find(
      (other) => other.name !== claim && other.name.replace(claimStart, '') === name && !removed.has(other.id),
    );
    if (found === undefined) return { [Symbol.asyncDispose]: release };
    await release();
    if (!isClaim(found.name) || attempt === claimAttempts)
      throw nameTaken(name, new Error(`the artifact "${found.name}" (id ${String(found.id)}) is there`));
    await sleep(Math.random() * claimPauseMs * 2 ** attempt, undefined, { signal });
  }
}

async function removeClaim(claim: string, options: OwnStoreOptions): Promise<void> {
  await using client = connect(options, AbortSignal.timeout(cleanupMs));
  try {
    await client.service.remove(claim);
    // Forgejo and Gitea before 1.26 list deleted artifacts, but without a size while they are being replaced.
    await client.service.create(claim, undefined);
  } catch {
    // A cancelled job has no valid token. The claim then remains until it expires.
  }
}

interface RemovalOptions {
  /** Whether to keep a listed artifact: it is complete, and belongs to another step of this job. */
  readonly unlessListed?: boolean;
  /** How long an earlier reservation may take to reach the service, in ms. */
  readonly lateMs?: number;
}

/**
 * Removes the reservation or artifact of this attempt of this job under a name. Uses its own connection, because the step may be
 * cancelled.
 * @returns whether there was a reservation or an artifact
 */
export async function removeUnfinished(
  name: string,
  options: OwnStoreOptions,
  { unlessListed = false, lateMs = 0 }: RemovalOptions = {},
): Promise<boolean> {
  // Gitea has no reservations. A removal would remove the artifact of the job that has the name now.
  if (options.credentials.isGitea) return false;
  const giveUpAt = Date.now() + lateMs;
  const signal = AbortSignal.timeout(cleanupMs);
  await using client = connect(options, signal);
  const { service } = client;
  try {
    if (unlessListed && (await service.list(name)).some(service.isOwn)) return false;
    for (;;) {
      const isGone = await service.remove(name);
      if (isGone || Date.now() >= giveUpAt) return isGone;
      await sleep(latePauseMs, undefined, { signal });
    }
  } catch {
    // The caller reports the error that led to this removal.
    return false;
  }
}

export interface ServiceClient extends AsyncDisposable {
  readonly http: Http;
  readonly service: ResultsService;
}

export function connect({ credentials, proxies, log }: OwnStoreOptions, signal: AbortSignal): ServiceClient {
  const http = httpClient(proxies, signal);
  return {
    http,
    service: resultsService(http, credentials, log.info, signal),
    [Symbol.asyncDispose]: () => http.close(),
  };
}

export function nameTaken(name: string, error: unknown): HandoverError {
  return new HandoverError(
    'artifact-name-taken',
    `The artifact service refuses the name "${name}": ${messageOf(error)}. Another job or step of this run uses it, or is uploading to it now.`,
    `Give each job, and each step that hands over, its own \`artifact-name\`. In a matrix, add what varies: \`${name}-\${{ matrix.component }}\`.`,
    error,
  );
}

// actions/toolkit, artifact, shared/errors.ts: UsageError.
const quota = /insufficient usage|storage quota/i;

/** @param what the action that failed, as an imperative phrase */
export function transferFailed(host: WorkflowHost, what: string, error: unknown): Error {
  if (error instanceof HandoverError) return error;
  return new HandoverError(
    'transfer-failed',
    `Could not ${what}: ${messageOf(error)}.`,
    quota.test(messageOf(error))
      ? 'The artifact storage of this account is used up; its use is calculated every 6 to 12 hours. Delete artifacts of earlier runs, and ' +
          'let the last job remove this one: `remove: true` of load-image.'
      : hasStatus(error, 401, 403)
        ? "The job's token was refused: it is valid only while the job runs. Re-run the job."
        : retryHint(host),
    error,
  );
}
