import { type FileHandle, open, stat } from 'node:fs/promises';
import { transientFileChunks } from '../file-chunks.ts';
import { invalidLayout } from './layout-error.ts';
import { looksLikeJson } from './manifest.ts';
import { tarBlock } from './tar-header.ts';
import { untilWritten } from './until-written.ts';

const lookEveryMs = 10;

/** A layer's file that is still written to, at its end only, and renamed when it is whole. */
export interface GrowingFile {
  readonly path: string;
  readonly wholePath: string;
  /** Bytes, of the whole. */
  readonly size: number;
}

/** The size of a layer's file in bytes; undefined for a config or a manifest, which are JSON objects. */
export async function wholeLayerSize(path: string): Promise<number | undefined> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(tarBlock), 0, tarBlock, 0);
    return looksLikeJson(buffer) ? undefined : (await file.stat()).size;
  } finally {
    await file.close();
  }
}

/**
 * @returns chunks of at most 1 MiB, each valid until the next is asked for
 * @throws HandoverError `tarball-invalid` when the file has another size by now
 */
export async function* wholeFileChunks(path: string, size: number): AsyncGenerator<Buffer> {
  yield* exactly(size, path, transientFileChunks(path));
}

/**
 * The bytes of a file while they are written to it.
 * @param written settles when nobody writes any more
 * @returns as wholeFileChunks
 * @throws HandoverError `tarball-invalid` when another file is under its name in the end, or none; what `written` throws
 */
export async function* growingFileChunks(growing: GrowingFile, written: Promise<unknown>): AsyncGenerator<Buffer> {
  const { path, wholePath, size } = growing;
  const file = await open(path).catch(() => open(wholePath));
  const look = untilWritten(written, lookEveryMs);
  const grows = async (bytes: number): Promise<boolean> => {
    if (bytes < size) return look();
    // What was read is right only if this very file got the name: whoever wrote it has checked its digest then.
    if (await becomes(file, wholePath, written)) return false;
    throw invalidLayout(`${wholePath} isn't the file that was read while it was written.`);
  };
  yield* exactly(size, wholePath, transientFileChunks(file, grows));
}

async function becomes(file: FileHandle, wholePath: string, written: Promise<unknown>): Promise<boolean> {
  const own = await file.stat({ bigint: true });
  const look = untilWritten(written, lookEveryMs);
  while (await look()) {
    const whole = await stat(wholePath, { bigint: true }).catch(() => undefined);
    if (whole !== undefined) return whole.ino === own.ino && whole.dev === own.dev;
  }
  return false;
}

async function* exactly(size: number, path: string, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let read = 0;
  for await (const chunk of chunks) {
    read += chunk.length;
    if (read > size) break;
    yield chunk;
  }
  if (read !== size)
    throw invalidLayout(`${path} changed while it was read: ${String(read)} bytes instead of ${String(size)}.`);
}
