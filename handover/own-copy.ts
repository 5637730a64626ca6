import { createReadStream } from 'node:fs';
import type { ExportResult } from '../export-image/export-image.ts';
import type { ArtifactContent, ArtifactFile, ArtifactStore, UploadRequest } from '../shared/artifacts/store.ts';
import { countedChunks } from '../shared/counted-chunks.ts';

// For a job that is late: its image stays in this job, and is loaded from its own tarball.

/** A store that takes an artifact and keeps nothing of it: the tarball on this runner is what is left. */
export function storeOfNothing(): ArtifactStore {
  const none = (): never => {
    throw new RangeError('this store has no artifacts');
  };
  return {
    list: () => Promise.resolve([]),
    open: none,
    remove: none,
    upload: async ({ name, files }: UploadRequest) => {
      let size = 0;
      for await (const file of files) size += await drain(file);
      return { id: 0, name, size };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function drain(file: ArtifactFile): Promise<number> {
  let size = 0;
  for await (const chunk of file.chunks) size += chunk.length;
  return size;
}

/** The tarball of an export, as an artifact's content. */
export function ownContent({ artifact, record, tarballPath }: ExportResult): ArtifactContent {
  return {
    artifact,
    files: [{ name: record.tarballName, size: record.tarballSize }],
    text: () => Promise.resolve(undefined),
    read: (_name, onBytes) => countedChunks(createReadStream(tarballPath, { highWaterMark: 1024 * 1024 }), onBytes),
    ranges: () => Promise.resolve(undefined),
  };
}
