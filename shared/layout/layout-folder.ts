import { createHash, randomBytes } from 'node:crypto';
import { existsSync, renameSync } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, readFile, realpath, rename, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { asError, HandoverError, messageOf } from '../base/errors.ts';
import { onForcedEnd } from '../base/forced-end.ts';
import { isObject, parseJson } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import type { Log } from '../base/log.ts';
import { type LentChunk, viewOf } from '../bytes/chunks.ts';
import { explainDiskFull } from '../bytes/disk-space.ts';
import { readSmallFile, writeAll } from '../bytes/files.ts';
import { livingName } from '../bytes/locks.ts';
import { makeOwnFolder, openOwnFolder, type OwnFolder, requireOwnLinks } from '../bytes/own-folder.ts';
import { lockPath, removeRemains } from '../bytes/partial-file.ts';
import type { Digest } from '../image/digest.ts';
import { invalidLayout } from '../image/manifest.ts';
import { type NamedImage, smallEntries } from '../tar/tarball-writer.ts';
import { blobPath } from './read-layout.ts';

// An OCI layout for others to use, such as a build with `build-contexts: base=oci-layout://DIR`. It is written beside its
// place, and gets its name when it is whole; what was there before is replaced only if it is empty, or was written here. A mount point
// can't be renamed or replaced (rename(2), EBUSY), and may be another file system (EXDEV): there, it is written in the folder itself,
// and its entries get their names when all of them are whole, index.json last.

/** A folder that appears under its name only when it is a whole layout. Leaving its scope before `commit` removes it. */
export interface LayoutFolder extends AsyncDisposable {
  /** Writes a blob as its chunks pass by, under the digest that it turns out to have. Throws `not-enough-space`. */
  readonly tee: <Chunk extends LentChunk>(chunks: AsyncIterable<Chunk>) => AsyncGenerator<Chunk>;
  /**
   * Adds what names the images, and puts the folder in its place. Throws `tarball-invalid` when a layer of theirs hasn't
   * passed, or is another than their manifest says.
   */
  commit(images: readonly NamedImage[]): Promise<void>;
}

// In index.json, by which a layout of ours is known again.
const mark = 'io.image-handover.layout';
const advice = 'Set `oci-layout` to a path on a filesystem with more space.';

/**
 * @param path where the folder is to be in the end; the folders above it are made
 * @throws HandoverError `invalid-input` when it can't be there
 */
export async function layoutFolder(path: string, log: Pick<Log, 'warning'>): Promise<LayoutFolder> {
  const place = resolve(path);
  await using opening = new AsyncDisposableStack();
  const mounted = await isMountPoint(place);
  (await openReplaced(place, place, mounted))?.keep();
  const trouble = (error: unknown): never => {
    throw error instanceof HandoverError ? error : unwritable(path, messageOf(error), error);
  };
  await requireOwnLinks(dirname(place)).catch(trouble);
  await mkdir(dirname(place), { recursive: true }).catch(trouble);
  const beside = mounted ? join(place, nameInside) : place;
  opening.use(
    await lockPath(beside, (holder) => {
      log.warning(`Another step on this host is writing ${path} at this moment (${holder}).`);
    }),
  );
  await removeRemains(beside);
  const own = opening.use(await livingName());
  const partial = `${beside}.partial-${own.name}`;
  // Its owner's alone until it is whole.
  const folder = orElse(() => makeOwnFolder(partial), trouble);
  opening.defer(onForcedEnd(folder.remove));
  opening.defer(folder.remove);
  await mkdir(join(partial, 'blobs', 'sha256'), { recursive: true });
  const held = opening.move();
  const sizes = new Map<Digest, number>();
  return {
    tee: (chunks) => teeBlob(chunks, partial, path, sizes),
    commit: async (images) => {
      requireLayers(images, sizes);
      for (const [name, bytes] of layoutEntries(images)) await writeFile(join(partial, name), bytes);
      await chmod(partial, 0o755);
      await (mounted ? fillMount(partial, place) : putInPlace(folder, partial, place)).catch(trouble);
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function* teeBlob<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  folder: string,
  path: string,
  sizes: Map<Digest, number>,
): AsyncGenerator<Chunk> {
  const incoming = join(folder, `incoming-${randomBytes(8).toString('hex')}`);
  const file = await open(incoming, 'wx');
  const hash = createHash('sha256');
  let size = 0;
  try {
    for await (const chunk of chunks) {
      const writing = writeAll(file, chunk).catch((error: unknown) => {
        throw asError(explainDiskFull(error, path, advice));
      });
      writing.catch(() => undefined); // thrown below
      hash.update(viewOf(chunk));
      size += chunk.length;
      // The chunk is used further while it is written, and given up only when both are done.
      yield chunk;
      await writing;
    }
  } finally {
    await file.close();
  }
  const digest: Digest = `sha256:${hash.digest('hex')}`;
  await rename(incoming, blobPath(folder, digest));
  sizes.set(digest, size);
}

function requireLayers(images: readonly NamedImage[], sizes: ReadonlyMap<Digest, number>): void {
  for (const { digest, size } of images.flatMap(({ image }) => image.layers)) {
    const found = sizes.get(digest);
    if (found === size) continue;
    const seen = found === undefined ? 'is not among those that came' : `has ${String(found)} bytes`;
    throw invalidLayout(`The layer ${digest} ${seen}; its manifest says ${String(size)} bytes.`);
  }
}

/** What the tarball has beside the layers, without what is Docker's alone, and with our mark. */
function layoutEntries(images: readonly NamedImage[]): ReadonlyMap<string, Buffer> {
  const entries = new Map(smallEntries(images));
  entries.delete('manifest.json');
  const index = parseJson(entries.get('index.json')?.toString() ?? '');
  entries.set(
    'index.json',
    Buffer.from(JSON.stringify({ ...(isObject(index) ? index : {}), annotations: { [mark]: '1' } })),
  );
  return entries;
}

async function putInPlace(folder: OwnFolder, partial: string, place: string): Promise<void> {
  // A name like that of what is being written, so that a later step removes it when this one is killed.
  await using aside = await livingName();
  const before = `${place}.partial-${aside.name}`;
  const replaced = await openReplaced(place, before);
  // An empty folder is replaced by the rename itself (rename(2)); one of ours goes aside, and comes back if this fails.
  if (replaced !== undefined) renameSync(place, before);
  try {
    renameSync(partial, place);
    folder.keep();
  } catch (error) {
    if (replaced !== undefined) renameSync(before, place);
    replaced?.keep();
    throw error;
  }
  replaced?.remove();
}

// What is being written in a mount point is called `layout.partial-…`.
const nameInside = 'layout';
const layoutEntryNames = ['blobs', 'oci-layout', 'index.json'] as const;

/** Moves a whole layout into a mount point, where it replaces that of an earlier step. What can't be moved leaves all as it was. */
async function fillMount(partial: string, place: string): Promise<void> {
  const replaced = await openReplaced(place, place, true);
  replaced?.keep();
  await using aside = await livingName();
  const before = `${join(place, nameInside)}.partial-${aside.name}`;
  const old = makeOwnFolder(before);
  const moved: (readonly [string, string])[] = [];
  const move = (from: string, to: string): void => {
    renameSync(from, to);
    moved.push([from, to]);
  };
  try {
    // At once, so that nothing but a kill comes between.
    for (const name of layoutEntryNames.toReversed())
      if (existsSync(join(place, name))) move(join(place, name), join(before, name));
    for (const name of layoutEntryNames) move(join(partial, name), join(place, name));
  } catch (error) {
    for (const [from, to] of moved.reverse()) renameSync(to, from);
    old.remove();
    throw error;
  }
  old.remove();
}

/** Whether a folder can't be renamed because something is mounted there (proc_pid_mountinfo(5), field 5). */
async function isMountPoint(path: string): Promise<boolean> {
  const place = await realpath(path).catch(() => undefined);
  if (place === undefined) return false;
  const [own, above] = await Promise.all([lstat(place), lstat(dirname(place))]);
  if (own.dev !== above.dev) return true;
  const mounts = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  return mounts.split('\n').some((line) => unescapeMount(line.split(' ')[4] ?? '') === place);
}

// Blanks and backslashes are octal numbers there.
function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/**
 * Opens the layout of an earlier step that is to be replaced; returns undefined where nothing is, or an empty folder.
 * @param removedAt where it will have been moved to
 * @param mounted whether it is a mount point: what its file system and this project keep in it doesn't count
 * @throws HandoverError `invalid-input` when something else is there, or another user's
 */
async function openReplaced(path: string, removedAt: string, mounted = false): Promise<OwnFolder | undefined> {
  // What else is wrong with the path is told when the folder is made.
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return undefined;
  if (!there.isDirectory()) throw unwritable(path, 'there is something that is no folder');
  const trouble = (error: unknown): never => {
    throw unwritable(path, messageOf(error), error);
  };
  const isKept = (name: string): boolean => name === 'lost+found' || name.startsWith(`${nameInside}.partial-`);
  const names = (await readdir(path).catch(trouble)).filter((name) => !mounted || !isKept(name));
  if (names.length === 0) return undefined;
  const folder = orElse(() => openOwnFolder(path, removedAt), trouble);
  if (await isOurs(folder.inside)) return folder;
  folder.keep();
  const some = names.sort().slice(0, 5).join(', ');
  throw unwritable(path, `the folder holds something else (${some}${names.length > 5 ? ', …' : ''}), which stays`);
}

async function isOurs(path: string): Promise<boolean> {
  const text = await readSmallFile(join(path, 'index.json'), limits.jsonBytes).catch(() => Buffer.alloc(0));
  const index = parseJson(text.toString());
  return isObject(index) && isObject(index['annotations']) && index['annotations'][mark] !== undefined;
}

function orElse<T>(work: () => T, otherwise: (error: unknown) => T): T {
  try {
    return work();
  } catch (error) {
    return otherwise(error);
  }
}

function unwritable(path: string, why: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'invalid-input',
    `The OCI layout can't be written to ${path}: ${why}.`,
    'Set `oci-layout` to a folder that isn’t there yet, or is empty, where this job may write.',
    cause,
  );
}
