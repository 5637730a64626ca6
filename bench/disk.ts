import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onExit } from '../dev/own-processes.ts';
import { messageOf } from '../shared/base/errors.ts';

/** A folder for an engine to live in. */
export interface Disk {
  readonly folder: string;
  remove(): void;
}

/**
 * A filesystem of our own in a file: ext4 with a journal, as runners have it. Without a journal, ext4 passes over each inode
 * that was deleted in the last minute or more (fs/ext4/ialloc.c, recently_deleted): an engine that is emptied and filled again
 * in turns then gets slower by the turn, and out of all proportion with size (25 s became 78 s at 4 GB).
 * Throws where none can be mounted: figures from a filesystem that nobody has looked at are worse than none.
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
    // Direct: what passes through the cache a second time costs a fifth of a load.
    device = run('losetup', '--find', '--show', '--direct-io=on', image);
    run('mount', device, folder);
  } catch (error) {
    if (device !== '') run('losetup', '--detach', device);
    removeRoot();
    throw new Error(`The benchmark needs a loop device for a filesystem of its own: ${messageOf(error)}`, {
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
