import { type FileHandle, readFile, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { asError, HandoverError, systemCodeOf } from '../base/errors.ts';
import { formatBytes } from '../base/text.ts';
import type { LentChunk } from './chunks.ts';
import { writeAll } from './files.ts';

interface DiskSpace {
  readonly mountPoint: string;
  readonly type: string;
  readonly freeBytes: number;
}

/** Returns the free space for an ordinary user at a path, which may not exist yet; undefined when the system doesn't show it. */
export async function diskSpace(path: string): Promise<DiskSpace | undefined> {
  const there = resolve(path);
  const stats = await statfs(there).catch(() => undefined);
  const parent = dirname(there);
  if (stats === undefined) return parent === there ? undefined : diskSpace(parent);
  let found = { mountPoint: '/', type: 'unknown', freeBytes: stats.bavail * stats.bsize };
  // Format: proc(5), /proc/mounts: device, mount point, type, options; the last match in the file is on top.
  const mounts = await readFile('/proc/mounts', 'utf8').catch(() => '');
  for (const line of mounts.split('\n')) {
    const [, rawPoint, type] = line.split(' ');
    if (rawPoint === undefined || type === undefined) continue;
    const mountPoint = rawPoint.replaceAll('\\040', ' ');
    const inside = there === mountPoint || there.startsWith(mountPoint === '/' ? '/' : `${mountPoint}/`);
    if (inside && mountPoint.length >= found.mountPoint.length) found = { ...found, mountPoint, type };
  }
  return found;
}

/** Throws `not-enough-space` when fewer than `neededBytes` are free at `path`. `what` needs them, and is the message's subject. */
export async function requireDiskSpace(path: string, neededBytes: number, what: string, advice: string): Promise<void> {
  const space = await diskSpace(path);
  if (space === undefined || space.freeBytes >= neededBytes) return;
  throw new HandoverError(
    'not-enough-space',
    `${what} needs ${formatBytes(neededBytes)} at ${path}, but the filesystem there (${space.mountPoint}, ${space.type}) ` +
      `has ${formatBytes(space.freeBytes)} free.`,
    advice,
  );
}

/** Writes chunks to the file at `path` while they are used further. Throws `not-enough-space`, or the system's errors. */
export async function* teeFile<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  file: FileHandle,
  path: string,
  advice: string,
): AsyncGenerator<Chunk> {
  for await (const chunk of chunks) {
    const writing = writeAll(file, chunk).catch((error: unknown) => {
      throw asError(explainDiskFull(error, path, advice));
    });
    writing.catch(() => undefined); // thrown below
    yield chunk;
    await writing;
  }
}

/** Turns the system's "disk full" into `not-enough-space`, and returns any other error unchanged. */
export function explainDiskFull(error: unknown, path: string, advice: string): unknown {
  const code = systemCodeOf(error);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new HandoverError(
    'not-enough-space',
    `The filesystem ran full while writing ${path} (${code}).`,
    advice,
    error,
  );
}
