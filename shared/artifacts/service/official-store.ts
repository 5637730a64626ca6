import { createWriteStream } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ArtifactClient } from '@actions/artifact';
import { corruptArtifact, HandoverError, messageOf } from '../../base/errors.ts';
import { streamableChunks } from '../../bytes/chunks.ts';
import { tempDirs } from '../../bytes/files.ts';
import { parseDigest } from '../../image/digest.ts';
import { UnknownAnswer } from '../../http/twirp.ts';
import { openOnDisk } from '../on-disk.ts';
import { type Artifact, type ArtifactContent, type ArtifactStore, type UploadRequest } from '../store.ts';
import { lockName, nameTaken, removeUnfinished, type OwnStoreOptions, transferFailed } from './reservation.ts';
import { unsupportedHost } from './results-service.ts';

/**
 * Uses `own` until the service answers in an unknown form, and from then on the official client. The client is slower and needs disk
 * space, but is kept up to date with the service.
 */
export function withOfficialClient(own: ArtifactStore, options: OwnStoreOptions): ArtifactStore {
  let official: ArtifactStore | undefined;
  const withFallback = async <T>(work: (store: ArtifactStore) => Promise<T>): Promise<T> => {
    if (official !== undefined) return work(official);
    try {
      return await work(own);
    } catch (error) {
      if (!(error instanceof UnknownAnswer)) throw error;
      // The official client refuses every host except GitHub's (actions/toolkit, artifact, config.ts: isGhes).
      if (options.credentials.isGitea)
        throw unsupportedHost(options.host, `it answered in an unknown way (${error.message})`, error);
      options.log.notice(
        `The artifact service answered in an unknown way (${error.message}): using the official client instead.`,
      );
      official ??= officialStore(options);
      return work(official);
    }
  };
  return {
    list: () => withFallback((store) => store.list()),
    open: (artifact) => withFallback((store) => store.open(artifact)),
    upload: (request) => withFallback((store) => store.upload(request)),
    remove: (artifact) => withFallback((store) => store.remove(artifact)),
    [Symbol.asyncDispose]: async () => {
      await own[Symbol.asyncDispose]();
      await official?.[Symbol.asyncDispose]();
    },
  };
}

function officialStore(options: OwnStoreOptions): ArtifactStore {
  const folders = tempDirs(options.tempRoot);
  const inFolder = <T>(verb: string, name: string, work: (path: string) => Promise<T>): Promise<T> =>
    folders
      .make()
      .then(work)
      .catch(explained(`${verb} the artifact "${name}"`, name));
  return {
    list: () => list().catch(explained('list the artifacts of this run', '')),
    open: (artifact) => inFolder('read', artifact.name, (path) => open(artifact, path)),
    upload: (request) => inFolder('upload', request.name, (path) => uploadLocked(request, path, options)),
    remove: async ({ name }) => {
      const deleted = client().then((official) => official.deleteArtifact(name));
      await deleted.catch(explained(`delete the artifact "${name}"`, name));
    },
    [Symbol.asyncDispose]: () => folders[Symbol.asyncDispose](),
  };
}

/** Explains the client's errors, which have only a message, or a specific `name` when an artifact is missing. */
function explained(what: string, name: string): (error: unknown) => never {
  return (error) => {
    if (error instanceof Error && error.name === 'ArtifactNotFoundError')
      throw new HandoverError(
        'artifact-not-found',
        `The artifact service lists no artifact "${name}" any more: ${messageOf(error)}.`,
        'It was deleted meanwhile, or has expired. Re-run all jobs, so that the image is built and handed over again.',
        error,
      );
    // The client refuses every host except GitHub's.
    throw transferFailed('GitHub', `${what} by way of the official client`, error);
  };
}

// All bundles share one bundle of the client, at the same relative path as here. So the bundler must keep this import unchanged.
async function client(): Promise<ArtifactClient> {
  const { DefaultArtifactClient } = await import(/* webpackIgnore: true */ '../official-client/index.ts');
  return new DefaultArtifactClient();
}

async function list(): Promise<readonly Artifact[]> {
  const { artifacts } = await (await client()).listArtifacts();
  return artifacts
    .map(({ createdAt, digest = '', ...listed }) => ({
      ...listed,
      digest: parseDigest(digest),
      createdAt: createdAt?.toISOString(),
    }))
    .sort((one, other) => other.id - one.id);
}

async function open(artifact: Artifact, folder: string): Promise<ArtifactContent> {
  const { digest } = artifact;
  const options = { path: folder, skipDecompress: true, ...(digest === undefined ? {} : { expectedHash: digest }) };
  const { digestMismatch } = await (await client()).downloadArtifact(artifact.id, options);
  if (digestMismatch === true)
    throw corruptArtifact(
      `The artifact "${artifact.name}" arrived with another digest than the artifact service lists (${digest ?? 'none'}).`,
    );
  const [file = ''] = await readdir(folder);
  return openOnDisk(artifact, join(folder, file), artifact.size);
}

async function uploadLocked(request: UploadRequest, folder: string, options: OwnStoreOptions): Promise<Artifact> {
  const { name } = request;
  await using lock = await lockName(options.credentials, name);
  try {
    return await upload(request, folder);
  } catch (error) {
    // Possibly the client's own reservation: it retries when an answer was lost.
    const wasOurs = lock !== undefined && (await removeUnfinished(name, options, { unlessListed: true }));
    if (!wasOurs && messageOf(error).includes('(409)')) throw nameTaken(name, error);
    throw error;
  }
}

async function upload(request: UploadRequest, folder: string): Promise<Artifact> {
  const { name, retentionDays } = request;
  const paths: string[] = [];
  for await (const file of request.files) {
    const path = join(folder, file.name);
    await pipeline(streamableChunks(file.chunks), createWriteStream(path));
    paths.push(path);
    request.onBytes((await stat(path)).size);
  }
  const options = { compressionLevel: 0, retentionDays };
  const { id, size = 0, digest = '' } = await (await client()).uploadArtifact(name, paths, folder, options);
  await Promise.all(paths.map((path) => rm(path)));
  if (id !== undefined) return { id, name, size, digest: parseDigest(digest) };
  throw new HandoverError(
    'transfer-failed',
    'The official client uploaded the artifact, but got no id for it.',
    'Re-run the job.',
  );
}
