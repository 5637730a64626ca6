import { rmSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { onForcedEnd } from '../base/forced-end.ts';
import { type LentChunk, viewOf } from './chunks.ts';
import { isDead, livingName, livingNamePattern } from './locks.ts';

const chunkBytes = 1024 * 1024;

/**
 * A file's bytes in order, the next chunk being read while this one is used: two buffers take turns.
 * @param source is closed at the end, if it is a file that was opened before
 * @param grows asked at the end of the file, with what was read of it in bytes, whether to look for more
 */
export async function* transientFileChunks(
  source: string | FileHandle,
  grows: (bytes: number) => Promise<boolean> = () => Promise.resolve(false),
): AsyncGenerator<LentChunk> {
  const file = typeof source === 'string' ? await open(source) : source;
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
      filling.catch(() => undefined); // reported when its turn comes
      yield current.subarray(0, length);
      [current, other] = [other, current];
    }
  } finally {
    isLeft = true;
    await filling?.catch(() => undefined);
    await file.close();
  }
}

/** Writes a chunk to the end of what was written before; the chunk is used until then. Throws what the filesystem says. */
export async function writeAll(file: FileHandle, chunk: LentChunk): Promise<void> {
  const bytes = viewOf(chunk);
  for (let written = 0; written < bytes.length;) {
    written += (await file.write(bytes, written)).bytesWritten;
  }
}

/** A folder that is gone when its scope ends, however it ends: `await using dir = await makeTempDir(root)`. */
export interface TempDir extends AsyncDisposable {
  readonly path: string;
}

/** Temporary folders that are all gone when their scope ends. */
export interface TempDirs extends AsyncDisposable {
  /** Makes one more, and returns its path. */
  make(): Promise<string>;
}

/** @param root where they are made */
export function tempDirs(root: string): TempDirs {
  const made: TempDir[] = [];
  return {
    make: async () => {
      const dir = await makeTempDir(root);
      made.push(dir);
      return dir.path;
    },
    [Symbol.asyncDispose]: async () => {
      for (const dir of made.splice(0)) await dir[Symbol.asyncDispose]();
    },
  };
}

const isTempDir = new RegExp(`^image-handover-(${livingNamePattern})$`);

/**
 * Makes a new folder below `root`, that its owner alone can read. What killed steps of this machine left there goes. Throws the system's
 * error when `root` can't be written.
 */
export async function makeTempDir(root: string): Promise<TempDir> {
  await removeRemains(root);
  const own = await livingName();
  const path = join(root, `image-handover-${own.name}`);
  await mkdir(path, { mode: 0o700 });
  const forget = onForcedEnd(() => {
    rmSync(path, { recursive: true, force: true });
  });
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await removeTree(path);
      forget();
      await own[Symbol.asyncDispose]();
    },
  };
}

async function removeRemains(root: string): Promise<void> {
  for (const name of await readdir(root).catch(() => [])) {
    const owner = isTempDir.exec(name)?.[1];
    if (owner === undefined || !(await isDead(owner))) continue;
    // Another user's stays.
    await removeTree(join(root, name)).catch(() => undefined);
  }
}

function removeTree(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true, maxRetries: 3 });
}
