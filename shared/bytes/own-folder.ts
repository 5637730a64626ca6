import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readlink } from 'node:fs/promises';
import { isAbsolute, join, resolve, sep } from 'node:path';
import { attempt, messageOf, systemCodeOf } from '../base/errors.ts';

// Folders of this project in places where other users can write, such as /tmp. A user who can rename a parent folder can put something
// else under a path at any time. So nothing is removed by its path: a folder is held open, and its contents are removed through that
// handle (`/proc/self/fd/<number>/<name>`, proc_pid_fd(5)), level by level, without following links, and only from folders of this user.
// Only Linux has such paths.

/** A folder of this user, held open. */
export interface OwnFolder {
  /** A path to its contents, even when its own path leads elsewhere by now. */
  readonly inside: string;
  /** Removes its contents, and then the folder. Synchronous, so that a forced end can use it. */
  readonly remove: () => void;
  /** Keeps the folder. */
  readonly keep: () => void;
}

/** Makes a new folder that only its owner can read. Throws the system's errors, and one when another process has replaced it at once. */
export function makeOwnFolder(path: string): OwnFolder {
  mkdirSync(path, { mode: 0o700 });
  const folder = openOwnFolder(path);
  if (readdirSync(folder.inside).length === 0) return folder;
  folder.keep();
  throw new Error(`another process has put a folder of its own in the place of ${path}`);
}

/** Opens an existing folder, which is at `removedAt` when it is removed. Throws when it is another user's, or no folder. */
export function openOwnFolder(path: string, removedAt: string = path): OwnFolder {
  let isOpen = true;
  if (process.platform !== 'linux') {
    requireOwn(lstatSync(path));
    const remove = (): void => {
      if (isOpen) rmSync(removedAt, { recursive: true, force: true });
    };
    return { inside: path, remove, keep: () => void (isOpen = false) };
  }
  const handle = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const inside = throughHandle(handle);
  const keep = (): void => {
    if (isOpen) closeSync(handle);
    isOpen = false;
  };
  try {
    requireOwn(fstatSync(handle));
  } catch (error) {
    keep();
    throw error;
  }
  const remove = (): void => {
    if (!isOpen) return;
    for (const name of attempt(() => readdirSync(inside), [])) removeFound(join(inside, name));
    keep();
    // This removes only an empty folder, even if the path leads elsewhere by now.
    attempt(() => rmdirSync(removedAt), undefined);
  };
  return { inside, remove, keep };
}

function requireOwn(found: Stats): void {
  if (!found.isDirectory()) throw new Error('it is no folder');
  if (!isOwn(found.uid)) throw new Error(`it belongs to another user (uid ${String(found.uid)})`);
}

/**
 * Removes files and folders of this user from a folder. Nothing is removed where other users can rename this user's files: the folder must
 * be this user's or root's, and writable by others only if it is sticky, as /tmp is (unlink(2), rename(2), EPERM).
 * @param isWanted called with each name of a file or folder
 */
export async function removeOwn(
  folder: string,
  isWanted: (name: string, found: Stats) => Promise<boolean>,
): Promise<void> {
  if (process.platform !== 'linux') return;
  await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY).catch(() => undefined);
  if (handle === undefined || !isSafe(await handle.stat())) return;
  const inside = throughHandle(handle.fd);
  for (const name of attempt(() => readdirSync(inside), [])) {
    const path = join(inside, name);
    const found = await lstat(path).catch(() => undefined);
    if (found === undefined || !isOwn(found.uid) || !(found.isFile() || found.isDirectory())) continue;
    if (await isWanted(name, found)) removeFound(path);
  }
}

function isSafe(folder: Stats): boolean {
  return isTrusted(folder.uid) && (!isOpenToOthers(folder) || (folder.mode & 0o1000) !== 0);
}

function isOpenToOthers({ mode }: Stats): boolean {
  return (mode & 0o022) !== 0;
}

function isTrusted(uid: number): boolean {
  return isOwn(uid) || uid === 0;
}

function isOwn(uid: number): boolean {
  return uid === (process.geteuid?.() ?? uid);
}

/**
 * Makes a folder and its missing parents, and holds it open. Another user may own a parent, and replace it with any link. So each folder is
 * opened through its parent. A link is followed only if it is this user's or root's, or no other user can have made it. Linux has the
 * same rule in folders such as /tmp (proc_sys_fs(5), protected_symlinks).
 * @throws Error that names the link; the system's errors
 */
export async function holdFolder(path: string) {
  const way = resolve(path);
  if (process.platform !== 'linux') {
    await mkdir(way, { recursive: true });
    return { inside: way, wordsOf: messageOf, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  let held = await open(sep, wayFlags);
  let left = partsOf(way);
  try {
    for (let links = 0; left.length > 0;) {
      const [name = '', ...rest] = left;
      const place = join(throughHandle(held.fd), name);
      const found = await lstat(place).catch(() => undefined);
      if (found?.isSymbolicLink() === true) {
        if ((links += 1) > mostLinks) throw new Error(`${way} leads through too many links`);
        requireOwnLink(join(await readlink(throughHandle(held.fd)), name), found.uid, await held.stat());
        const target = await readlink(place);
        left = [...partsOf(target), ...rest];
        if (isAbsolute(target)) held = await instead(held, sep);
        continue;
      }
      // Another process may make it at the same time.
      if (found === undefined)
        await mkdir(place).catch((error: unknown) => {
          if (systemCodeOf(error) !== 'EEXIST') throw error;
        });
      held = await instead(held, place);
      left = rest;
    }
  } catch (error) {
    const words = withPath(error, held.fd);
    await held.close();
    throw new Error(words, { cause: error });
  }
  const { fd } = held;
  return {
    /** A path to its contents, even when its own path leads elsewhere by now. */
    inside: throughHandle(fd),
    /** Returns an error's message, with the folder's path. */
    wordsOf: (error: unknown) => withPath(error, fd),
    [Symbol.asyncDispose]: () => held.close(),
  };
}

function withPath(error: unknown, fd: number): string {
  const handle = throughHandle(fd);
  const path = attempt(() => readlinkSync(handle), handle);
  return messageOf(error).replaceAll(`${handle}/`, path === sep ? sep : `${path}/`);
}

function partsOf(path: string): readonly string[] {
  return path.split(sep).filter((part) => part !== '' && part !== '.');
}

async function instead(held: FileHandle, path: string): Promise<FileHandle> {
  const next = await open(path, wayFlags);
  await held.close();
  return next;
}

function requireOwnLink(link: string, uid: number, above: Stats): void {
  if (isTrusted(uid) || (isTrusted(above.uid) && !isOpenToOthers(above))) return;
  throw new Error(`${link} is a link of another user (uid ${String(uid)})`);
}

// O_PATH, for which Node has no name: it works also when this user can't list the folder (open(2)).
const wayFlags = constants.O_DIRECTORY | constants.O_NOFOLLOW | 0o10000000;
// As many as Linux follows (path_resolution(7)).
const mostLinks = 40;

function throughHandle(handle: number): string {
  return `/proc/self/fd/${String(handle)}`;
}

/** Removes a file, a link, or a folder of this user with its contents, as far as possible. */
function removeFound(path: string): void {
  const isGone = attempt(() => {
    unlinkSync(path);
    return true;
  }, false);
  if (isGone) return;
  attempt(() => openOwnFolder(path).remove(), undefined);
  // Another user's folder is removed only if it is empty.
  attempt(() => rmdirSync(path), undefined);
}
