import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** A folder that is gone when its scope ends, however it ends: `await using dir = await makeTempDir(root)`. */
export interface TempDir extends AsyncDisposable {
  readonly path: string;
}

/** Makes a new folder below `root`. Throws the system's error when `root` can't be written. */
export async function makeTempDir(root: string): Promise<TempDir> {
  const path = await mkdtemp(join(root, 'image-handover-'));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}
