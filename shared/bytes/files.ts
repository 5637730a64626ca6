import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { onForcedEnd } from '../base/forced-end.ts';
import { formatBytes } from '../base/text.ts';
import { type LentChunk, viewOf } from './chunks.ts';
import { isDead, livingName, livingNamePattern } from './locks.ts';
import { makeOwnFolder, removeOwn } from './own-folder.ts';

const chunkBytes = 1024 * 1024;

/**
 * Opens any file for reading. It never blocks, as opening a pipe does until a process writes to it: no signal would end that.
 * @throws Error when it is a pipe, a device, a folder or a socket; the system's errors
 */
export async function openFile(path: string): Promise<FileHandle> {
  // Checked before opening, because that alone starts some devices.
  requireFile(path, await stat(path));
  const file = await open(path, readFlags);
  try {
    requireFile(path, await file.stat());
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Reads any file as a whole. Throws as `openFile` does, and when it has more than `maxBytes`. */
export async function readSmallFile(path: string, maxBytes: number): Promise<Buffer> {
  // Its size may be wrong: for files in /proc it is 0.
  const bytes = await fileHead(path, maxBytes + 1);
  if (bytes.length > maxBytes) throw tooLarge(path, maxBytes);
  return bytes;
}

/** Returns the first bytes of any file, or all if it has fewer. Throws as `openFile` does. */
export function fileHead(path: string, bytes: number): Promise<Buffer> {
  return buffer(fileChunks(path, chunkBytes, { start: 0, end: bytes }));
}

/** Reads any small file synchronously, for a step that reads its inputs. */
export function readSmallFileSync(path: string, maxBytes: number): Buffer {
  requireFile(path, statSync(path));
  const file = openSync(path, readFlags);
  try {
    const found = fstatSync(file);
    requireFile(path, found);
    if (found.size > maxBytes) throw tooLarge(path, maxBytes);
    return readFileSync(file).subarray(0, maxBytes);
  } finally {
    closeSync(file);
  }
}

/** Reads a file in order, from `start` up to but not including `end`. Throws as `openFile` does. */
export async function* fileChunks(
  path: string,
  atMostBytes: number,
  { start, end }: { readonly start: number; readonly end: number } = { start: 0, end: Infinity },
): AsyncGenerator<Buffer> {
  const file = await openFile(path);
  // A stream reads one byte at least.
  if (start < end) yield* file.createReadStream({ highWaterMark: atMostBytes, start, end: end - 1 });
  else await file.close();
}

const readFlags = constants.O_RDONLY | constants.O_NONBLOCK;

function requireFile(path: string, found: Stats): void {
  if (!found.isFile()) throw new NotAFile(path, found);
}

/** A path leads to something other than a file. */
export class NotAFile extends Error {
  /** Whether opening it would wait for a writer. */
  readonly isPipe: boolean;

  constructor(path: string, found: Stats) {
    super(`${path} is ${kindOf(found)}, not a file`);
    this.isPipe = found.isFIFO();
  }
}

/** Names the kind of something that isn't a file. */
export function kindOf(found: Stats): string {
  if (found.isFIFO()) return 'a pipe';
  if (found.isDirectory()) return 'a folder';
  return found.isSocket() ? 'a socket' : 'a device';
}

function tooLarge(path: string, maxBytes: number): Error {
  return new Error(`${path} has more than ${formatBytes(maxBytes)}`);
}

/**
 * Reads a file in order, the next chunk while the current one is used, with two buffers.
 * @param source an open file, which is closed at the end, or a path, which is opened as by `openFile`
 * @param grows called at the end of the file, with the number of bytes that were read; returns whether to look for more
 */
export async function* transientFileChunks(
  source: string | FileHandle,
  grows: (bytes: number) => Promise<boolean> = () => Promise.resolve(false),
): AsyncGenerator<LentChunk> {
  const file = typeof source === 'string' ? await openFile(source) : source;
  let read = 0;
  let isLeft = false;
  const fill = async (buffer: Buffer): Promise<number> => {
    let length = 0;
    while (length < chunkBytes && !isLeft) {
      const { bytesRead } = await file.read(buffer, length, chunkBytes - length, null);
      length += bytesRead;
      read += bytesRead;
      if (bytesRead === 0 && !(await grows(read))) break;
    }
    return length;
  };
  let filling: Promise<number> | undefined;
  try {
    let [current, other] = [Buffer.allocUnsafeSlow(chunkBytes), Buffer.allocUnsafeSlow(chunkBytes)];
    filling = fill(current);
    for (;;) {
      const length = await filling;
      if (length === 0) return;
      filling = fill(other);
      filling.catch(() => undefined); // thrown when its turn comes
      yield current.subarray(0, length);
      [current, other] = [other, current];
    }
  } finally {
    isLeft = true;
    await filling?.catch(() => undefined);
    await file.close();
  }
}

/** Appends a chunk, and uses its memory until it is written. Throws the filesystem's errors. */
export async function writeAll(file: FileHandle, chunk: LentChunk): Promise<void> {
  const bytes = viewOf(chunk);
  for (let written = 0; written < bytes.length;) {
    written += (await file.write(bytes, written)).bytesWritten;
  }
}

/** Temporary folders that are removed at the end of their scope. */
export type TempDirs = ReturnType<typeof tempDirs>;

/** @param root where they are made */
export function tempDirs(root: string) {
  const made = new AsyncDisposableStack();
  return {
    /** Makes another one, and returns its path. */
    make: async (): Promise<string> => made.use(await makeTempDir(root)).path,
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  };
}

const isTempDir = new RegExp(`^image-handover-(${livingNamePattern})$`);

/**
 * Makes a new folder in `root` that only its owner can read, and that is removed at the end of its scope. Removes folders that killed steps
 * of this user left there. Throws the system's error when `root` can't be written.
 */
export async function makeTempDir(root: string): Promise<AsyncDisposable & { readonly path: string }> {
  await removeOwn(root, async (name, found) => {
    const owner = isTempDir.exec(name)?.[1];
    return owner !== undefined && found.isDirectory() && isDead(owner);
  });
  const own = await livingName();
  const path = join(root, `image-handover-${own.name}`);
  const folder = makeOwnFolder(path);
  const forget = onForcedEnd(folder.remove);
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      folder.remove();
      forget();
      await own[Symbol.asyncDispose]();
    },
  };
}
