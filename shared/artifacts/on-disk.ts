import { stat } from 'node:fs/promises';
import { copiedBytes } from '../bytes/chunks.ts';
import { fileChunks } from '../bytes/files.ts';
import type { RangedReader } from './blob/ranged-reader.ts';
import type { Artifact, ArtifactContent } from './store.ts';
import { openArtifact } from './zip/content.ts';

// Opens an artifact that is a file on this machine: downloaded as a whole, or made by this job.

const chunkBytes = 1024 * 1024;

/** @param downloaded number of bytes downloaded to get the file */
export async function openOnDisk(artifact: Artifact, path: string, downloaded: number): Promise<ArtifactContent> {
  return openArtifact(artifact, fileReader(path, (await stat(path)).size, downloaded));
}

/** Reads a blob that is a file on this machine; `size` and `downloaded` in bytes. */
function fileReader(path: string, size: number, downloaded: number): RangedReader {
  const stream = (start: number, end: number): AsyncIterable<Buffer> => fileChunks(path, chunkBytes, { start, end });
  return {
    size,
    downloaded: () => downloaded,
    read: (start, end) => copiedBytes(stream(start, end)),
    stream,
    lend: stream,
  };
}
