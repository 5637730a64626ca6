import { randomBytes } from 'node:crypto';
import { renameSync } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, readFile, realpath, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type HandoverError, invalidInput, messageOf, translated } from '../base/errors.ts';
import { onForcedEnd } from '../base/forced-end.ts';
import { objectOf, parseJson } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import type { Log } from '../base/log.ts';
import type { LentChunk } from '../bytes/chunks.ts';
import { teeFile } from '../bytes/disk-space.ts';
import { readSmallFile } from '../bytes/files.ts';
import { livingName } from '../bytes/locks.ts';
import { makeOwnFolder, openOwnFolder, type OwnFolder, removeOwn } from '../bytes/own-folder.ts';
import { claimPlace } from '../bytes/partial-file.ts';
import { Checksum } from '../bytes/verified.ts';
import type { Digest } from '../image/digest.ts';
import { invalidLayout } from '../image/manifest.ts';
import { layoutEntries, type NamedImage } from '../tar/tarball-writer.ts';
import { blobPath } from './read-layout.ts';

// An OCI layout for other programs, such as a build with `build-contexts: base=oci-layout://DIR`. It is written next to its
// destination, and renamed when it is complete. An existing folder is replaced only if it is empty, or an earlier layout of this project.
// A mount point can't be replaced, so the layout is written inside it, and its index is moved into place last.

/** A folder that gets its final name only when the layout is complete. It is removed if its scope ends before `commit`. */
export interface LayoutFolder extends AsyncDisposable {
  /** Returns the same chunks, and also writes them to the blob with their digest. Throws `not-enough-space`. */
  readonly tee: <Chunk extends LentChunk>(chunks: AsyncIterable<Chunk>) => AsyncGenerator<Chunk>;
  /**
   * Adds the configs, manifests and index, and moves the folder into place. Throws `tarball-invalid` when a layer of the images
   * is missing, or has a different size than in their manifest.
   */
  commit(images: readonly NamedImage[]): Promise<void>;
}

// An annotation in index.json that marks a layout of this project.
const mark = 'io.image-handover.layout';
const advice = 'Set `oci-layout` to a path on a filesystem with more space.';

/**
 * @param path of the complete folder; its parents are created
 * @throws HandoverError `invalid-input` when the folder can't be created there
 */
export async function layoutFolder(path: string, log: Pick<Log, 'warning'>): Promise<LayoutFolder> {
  await using opening = new AsyncDisposableStack();
  const isMount = await isMountPoint(path);
  const layoutAt = (claimed: string): string => (isMount ? folderOf(claimed) : claimed);
  const { place, partial, refuse } = await claimPlace(isMount ? join(path, 'index.json') : path, opening, {
    unwritable: (why, cause) => unwritable(path, why, cause),
    requireReplaceable: async (there) => (await openReplaced(path, layoutAt(there), there))?.keep(),
    onTaken: (holder) => log.warning(`Another step on this host is writing ${path} at this moment (${holder}).`),
  });
  // Only its owner has access until it is complete.
  const folder = translated(() => makeOwnFolder(partial), refuse);
  opening.defer(onForcedEnd(folder.remove));
  opening.defer(folder.remove);
  const { inside } = folder;
  await mkdir(join(inside, 'blobs', 'sha256'), { recursive: true });
  const held = opening.move();
  const sizes = new Map<Digest, number>();
  return {
    tee: (chunks) => teeBlob(chunks, inside, path, sizes),
    commit: async (images) => {
      requireLayers(images, sizes);
      for (const [name, bytes] of layoutEntries(images, { [mark]: '1' })) await writeFile(join(inside, name), bytes);
      await chmod(inside, 0o755);
      const put = isMount ? putInside(path, folder, folderOf(place)) : putInPlace(path, folder, partial, place);
      await put.catch(refuse);
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
  const checksum = new Checksum();
  try {
    for await (const chunk of teeFile(chunks, file, path, advice)) {
      checksum.add(chunk);
      yield chunk;
    }
  } finally {
    await file.close();
  }
  const { digest, size } = checksum.found();
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

async function putInPlace(path: string, folder: OwnFolder, partial: string, place: string): Promise<void> {
  // The name looks like that of a partial folder, so that a later step removes it if this step is killed.
  await using aside = await livingName();
  const before = `${place}.partial-${aside.name}`;
  const replaced = await openReplaced(path, place, before);
  // The rename replaces an empty folder (rename(2)). An earlier layout is renamed first, and renamed back if this fails.
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

/** Moves the content into a mount point. */
async function putInside(path: string, folder: OwnFolder, place: string): Promise<void> {
  (await openReplaced(path, place, place))?.keep();
  await removeOwn(place, (name) => Promise.resolve(name === 'blobs'));
  for (const name of ['blobs', 'oci-layout', 'index.json']) renameSync(join(folder.inside, name), join(place, name));
  folder.remove();
}

/** Returns the folder of a claimed file. It is kept open under a path that is a link; a trailing slash makes lstat follow it. */
function folderOf(file: string): string {
  return `${dirname(file)}/`;
}

/** Returns whether a filesystem or another folder is mounted at a path (proc_pid_mountinfo(5), field 5). */
async function isMountPoint(path: string): Promise<boolean> {
  const real = await realpath(path).catch(() => undefined);
  const mounts = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const unescaped = (text = ''): string =>
    text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return mounts.split('\n').some((line) => unescaped(line.split(' ')[4]) === real);
}

/**
 * Opens an earlier step's layout that will be replaced. Returns undefined if nothing is there, or only an empty folder.
 * @param removedAt where it will be moved to
 * @throws HandoverError `invalid-input` when something else is there, or a layout of another user
 */
async function openReplaced(path: string, place: string, removedAt: string): Promise<OwnFolder | undefined> {
  // Other errors with this path are thrown when the folder is created.
  const there = await lstat(place).catch(() => undefined);
  if (there === undefined) return undefined;
  if (!there.isDirectory()) throw unwritable(path, 'it is not a folder');
  const refuse = (error: unknown): never => {
    throw unwritable(path, messageOf(error), error);
  };
  const all = await readdir(place).catch(refuse);
  const names = all.filter((name) => !name.startsWith('index.json.partial-'));
  if (names.length === 0) return undefined;
  const folder = translated(() => openOwnFolder(place, removedAt), refuse);
  if (await isOurs(folder.inside)) return folder;
  folder.keep();
  const some = names.sort().slice(0, 5).join(', ');
  throw unwritable(path, `the folder contains other files (${some}${names.length > 5 ? ', …' : ''}), which are kept`);
}

async function isOurs(path: string): Promise<boolean> {
  const text = await readSmallFile(join(path, 'index.json'), limits.jsonBytes).catch(() => Buffer.alloc(0));
  const index = objectOf(parseJson(text.toString()));
  return objectOf(index['annotations'])[mark] !== undefined;
}

function unwritable(path: string, why: string, cause?: unknown): HandoverError {
  return invalidInput(
    `The OCI layout can't be written to ${path}: ${why}.`,
    'Set `oci-layout` to a folder that isn’t there yet, or is empty, where this job may write.',
    cause,
  );
}
