import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

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

/** Makes a new folder below `root`. Throws the system's error when `root` can't be written. */
export async function makeTempDir(root: string): Promise<TempDir> {
  const path = await mkdtemp(join(root, 'image-handover-'));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}
