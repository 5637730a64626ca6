import type { FileHandle } from 'node:fs/promises';

/** Writes a chunk to the end of what was written before; the chunk is used until then. Throws what the filesystem says. */
export async function writeAll(file: FileHandle, chunk: Buffer): Promise<void> {
  for (let written = 0; written < chunk.length;) {
    written += (await file.write(chunk, written)).bytesWritten;
  }
}
