import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readlink } from 'node:fs/promises';
import { isAbsolute, join, resolve, sep } from 'node:path';
import { attempt, messageOf, systemCodeOf } from '../base/errors.ts';

// Folders that this project makes in places where other users may write, such as /tmp. Whoever may rename one of the folders above can put
// something else under a path between two looks at it. So nothing is removed by its path from there on: a folder is held open, and what
// is in it is removed through that handle (`/proc/self/fd/<number>/<name>`, proc_pid_fd(5)), level by level, without following a link,
// and only from folders of this user.

/** A folder of this user, held open. */
export interface OwnFolder {
  /** Leads to what is in it, whatever is under its path by now. */
  readonly inside: string;
  /** Removes what is in it, and then the folder. It waits for nothing, so that a forced end can use it. */
  readonly remove: () => void;
  /** Leaves it where it is. */
  readonly keep: () => void;
}

/**
 * Makes a new folder that its owner alone can read. Throws the system's error when it can't be made, and when something else was put in
 * its place at once.
 */
export function makeOwnFolder(path: string): OwnFolder {
  mkdirSync(path, { mode: 0o700 });
  const folder = openOwnFolder(path);
  if (readdirSync(folder.inside).length === 0) return folder;
  folder.keep();
  throw new Error(`another process has put a folder of its own in the place of ${path}`);
}

/**
 * Opens a folder that is there.
 * @param removedAt where it is by the time that it is removed
 * @throws Error when it is another user's, or no folder
 */
export function openOwnFolder(path: string, removedAt: string = path): OwnFolder {
  let isOpen = true;
  if (process.platform === 'win32') {
    // There a folder can't be opened.
    const remove = (): void => {
      if (isOpen) rmSync(removedAt, { recursive: true, force: true });
    };
    return { inside: path, remove, keep: () => void (isOpen = false) };
  }
  const handle = openSync(path, folderFlags);
  const keep = (): void => {
    if (isOpen) closeSync(handle);
    isOpen = false;
  };
  const { uid } = fstatSync(handle);
  if (!isOwn(uid)) {
    keep();
    throw new Error(`it belongs to another user (uid ${String(uid)})`);
  }
  return {
    inside: process.platform === 'linux' ? throughHandle(handle) : path,
    remove: () => {
      if (!isOpen) return;
      emptyFolder(handle, removedAt);
      keep();
      // Only an empty folder can be removed so, whatever is there by now.
      attempt(() => {
        rmdirSync(removedAt);
      }, undefined);
    },
    keep,
  };
}

/** A file or folder that was found under a name. */
type FoundKind = 'file' | 'folder';

/**
 * Removes files and folders of this user from a folder. Nothing is removed where other users may rename what is this user's: the folder
 * has to be this user's or root's, and writable by others only if it is sticky (as /tmp is; unlink(2), rename(2), EPERM).
 * @param isWanted is called with each name, what is there, and when it was last written to (ms since the epoch)
 */
export async function removeOwn(
  folder: string,
  isWanted: (name: string, kind: FoundKind, writtenMs: number) => Promise<boolean>,
): Promise<void> {
  if (process.platform !== 'linux') return;
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY).catch(() => undefined);
  if (handle === undefined) return;
  try {
    if (!isSafe(await handle.stat())) return;
    const inside = throughHandle(handle.fd);
    for (const name of attempt(() => readdirSync(inside), [])) {
      const path = join(inside, name);
      const found = await lstat(path).catch(() => undefined);
      if (found === undefined || !isOwn(found.uid)) continue;
      const kind = found.isDirectory() ? 'folder' : found.isFile() ? 'file' : undefined;
      if (kind === undefined || !(await isWanted(name, kind, found.mtimeMs))) continue;
      removeFound(path);
    }
  } finally {
    await handle.close();
  }
}

function isSafe({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return (isOwn(uid) || uid === 0) && ((mode & 0o022) === 0 || (mode & 0o1000) !== 0);
}

function isOwn(uid: number): boolean {
  return uid === (process.geteuid?.() ?? uid);
}

/** A folder that is held open while something is written to it. */
export interface HeldFolder extends AsyncDisposable {
  /** Leads to what is in it, whatever others put under its path meanwhile. */
  readonly inside: string;
  /** What an error says, with the folder's path. */
  readonly wordsOf: (error: unknown) => string;
}

/**
 * Makes a folder with those above it, where they aren't there, and holds it open. Another user may own one of them, and put a link to
 * anywhere in its place: so each is opened in the one above, and a link is followed only where it is this user's or root's, or nobody else
 * can have put it. Linux itself is as careful in folders such as /tmp (proc_sys_fs(5), protected_symlinks).
 * @throws Error that names the link; the system's errors
 */
export async function holdFolder(path: string): Promise<HeldFolder> {
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
    inside: throughHandle(fd),
    wordsOf: (error) => withPath(error, fd),
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

function requireOwnLink(link: string, uid: number, above: { readonly uid: number; readonly mode: number }): void {
  const isTrusted = isOwn(uid) || uid === 0 || ((isOwn(above.uid) || above.uid === 0) && (above.mode & 0o022) === 0);
  if (!isTrusted) throw new Error(`${link} is a link of another user (uid ${String(uid)})`);
}

// O_PATH, which Node has no name for: enough to go on from there, also where this user may not list what is in it (open(2)).
const wayFlags = constants.O_DIRECTORY | constants.O_NOFOLLOW | 0o10000000;
// As many as Linux follows (path_resolution(7)).
const mostLinks = 40;

const folderFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

function throughHandle(handle: number): string {
  return `/proc/self/fd/${String(handle)}`;
}

/** Removes a file, a link, or a folder of this user with all that is in it. What can't be removed is left. */
function removeFound(path: string): void {
  const isGone = attempt(() => {
    unlinkSync(path);
    return true;
  }, false);
  if (isGone) return;
  attempt(() => {
    const handle = openSync(path, folderFlags);
    try {
      if (isOwn(fstatSync(handle).uid)) emptyFolder(handle, path);
    } finally {
      closeSync(handle);
    }
    rmdirSync(path);
  }, undefined);
}

function emptyFolder(handle: number, path: string): void {
  const inside = throughHandle(handle);
  if (process.platform === 'linux')
    for (const name of attempt(() => readdirSync(inside), [])) removeFound(join(inside, name));
  // Only Linux leads through a handle.
  else
    for (const name of attempt(() => readdirSync(path), [])) rmSync(join(path, name), { recursive: true, force: true });
}
