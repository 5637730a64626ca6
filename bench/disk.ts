import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onExit } from '../dev/own-processes.ts';
import { messageOf } from '../shared/base/errors.ts';

/** A folder for the data of an engine. */
export interface Disk {
  readonly folder: string;
  remove(): void;
}

/**
 * Creates a filesystem in a file: ext4 with a journal, as on runners. Without a journal, ext4 skips inodes that were deleted in
 * the last minutes (fs/ext4/ialloc.c, recently_deleted). An engine that is repeatedly emptied and filled then gets slower each
 * time, especially with large images (25 s became 78 s at 4 GB).
 * Throws if it can't be mounted, because results from an unknown filesystem would be misleading.
 */
export function makeDisk(): Disk {
  const root = mkdtempSync(join(tmpdir(), 'ih-disk-'));
  const [image, folder] = [join(root, 'image'), join(root, 'mnt')];
  const removeRoot = (): void => rmSync(root, { recursive: true, force: true });
  const run = (program: string, ...args: readonly string[]): string =>
    execFileSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
      .toString()
      .trim();
  let device = '';
  try {
    mkdirSync(folder);
    writeFileSync(image, '');
    truncateSync(image, 40 * 2 ** 30);
    run('mkfs.ext4', '-q', '-F', image);
    // Direct I/O: a second pass through the page cache would take a fifth of a load's time.
    device = run('losetup', '--find', '--show', '--direct-io=on', image);
    run('mount', device, folder);
  } catch (error) {
    if (device !== '') run('losetup', '--detach', device);
    removeRoot();
    throw new Error(`The benchmark needs a loop device for its filesystem: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const remove = (): void => {
    run('umount', '--lazy', folder);
    run('losetup', '--detach', device);
    removeRoot();
  };
  const forget = onExit(remove);
  return {
    folder,
    remove: () => {
      forget();
      remove();
    },
  };
}
