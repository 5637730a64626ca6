import { createReadStream, createWriteStream } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ArtifactClient } from '@actions/artifact';
import { HandoverError } from '../../base/errors.ts';
import { countedChunks, streamableChunks } from '../../bytes/chunks.ts';
import { tempDirs } from '../../bytes/files.ts';
import { parseDigest } from '../../image/digest.ts';
import type { Artifact, ArtifactContent, ArtifactStore, UploadRequest } from '../store.ts';

/** The same store through the official client: slower and by way of the disk, but kept in step with the service. */
export function officialStore(tempRoot: string): ArtifactStore {
  const folders = tempDirs(tempRoot);
  return {
    list,
    open: async (artifact) => open(artifact, await folders.make()),
    upload: async (request) => upload(request, await folders.make()),
    remove: async ({ name }) => {
      await (await client()).deleteArtifact(name);
    },
    [Symbol.asyncDispose]: () => folders[Symbol.asyncDispose](),
  };
}

// All bundles share one of the client, which lies beside them as it lies here: the bundler leaves the import as it is.
async function client(): Promise<ArtifactClient> {
  const { DefaultArtifactClient } = await import(/* webpackIgnore: true */ '../official-client/index.ts');
  return new DefaultArtifactClient();
}

async function list(): Promise<readonly Artifact[]> {
  const { artifacts } = await (await client()).listArtifacts();
  return artifacts
    .map(({ id, name, size, createdAt, digest: text }) => {
      const digest = text === undefined ? undefined : parseDigest(text);
      return {
        id,
        name,
        size,
        ...(digest === undefined ? {} : { digest }),
        ...(createdAt === undefined ? {} : { createdAt: createdAt.toISOString() }),
      };
    })
    .sort((one, other) => other.id - one.id);
}

async function open(artifact: Artifact, path: string): Promise<ArtifactContent> {
  const expectedHash = artifact.digest;
  const options = { path, ...(expectedHash === undefined ? {} : { expectedHash }) };
  const { digestMismatch } = await (await client()).downloadArtifact(artifact.id, options);
  if (digestMismatch === true) {
    throw new HandoverError(
      'artifact-corrupt',
      `The artifact "${artifact.name}" arrived with another digest than the artifact service lists (${expectedHash ?? 'none'}).`,
      'Run the job that exports the image again.',
    );
  }
  const names = await readdir(path);
  const files = await Promise.all(names.map(async (name) => ({ name, size: (await stat(join(path, name))).size })));
  return {
    artifact,
    downloaded: () => artifact.size,
    files,
    text: async (name) => (names.includes(name) ? readFile(join(path, name), 'utf8') : undefined),
    read: (name, onBytes) => countedChunks(createReadStream(join(path, name), { highWaterMark: 1024 * 1024 }), onBytes),
    ranges: () => Promise.resolve(undefined),
  };
}

async function upload(request: UploadRequest, folder: string): Promise<Artifact> {
  const paths: string[] = [];
  for await (const file of request.files) {
    const path = join(folder, file.name);
    await pipeline(streamableChunks(file.chunks), createWriteStream(path));
    paths.push(path);
    request.onBytes((await stat(path)).size);
  }
  const options = { compressionLevel: 0, retentionDays: request.retentionDays };
  const { id, size = 0, digest: text } = await (await client()).uploadArtifact(request.name, paths, folder, options);
  await Promise.all(paths.map((path) => rm(path)));
  if (id === undefined) {
    throw new HandoverError(
      'transfer-failed',
      'The official client uploaded the artifact, but got no id for it.',
      'Re-run the job.',
    );
  }
  const digest = text === undefined ? undefined : parseDigest(text);
  return { id, name: request.name, size, ...(digest === undefined ? {} : { digest }) };
}
