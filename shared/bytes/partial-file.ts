import { rmSync } from 'node:fs';
import { lstat, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { HandoverError, invalidInput, messageOf } from '../base/errors.ts';
import { onForcedEnd } from '../base/forced-end.ts';
import type { Log } from '../base/log.ts';
import type { LentChunk } from './chunks.ts';
import { teeFile } from './disk-space.ts';
import { kindOf } from './files.ts';
import { isDead, holderOf, isOfAnotherScope, livingName, livingNamePattern, lockKey } from './locks.ts';
import { holdFolder, removeOwn } from './own-folder.ts';

// Longer than any step: `timeout-minutes` is at most 5 days.
const longestStepMs = 6 * 24 * 60 * 60_000;
const isLivingName = new RegExp(`^${livingNamePattern}$`);

/** How to claim a path. */
interface PlaceClaim {
  /** Creates the error for a path that can't be written. */
  readonly unwritable: (why: string, cause?: unknown) => HandoverError;
  /** Throws if there is something at the path that must not be replaced. */
  readonly requireReplaceable: (place: string) => Promise<void>;
  /** Called with a description of the process on this host that is writing the same path: jobs of two self-hosted runners may do so. */
  readonly onTaken: (holder: string) => void;
}

/**
 * Creates a path's folder, holds it, and locks the path among the processes of this project on this host. Removes what killed steps left.
 * @param held receives everything to dispose of
 * @returns the final path, the partial path, and a function that rethrows an error as the claim's `unwritable` error
 */
export async function claimPlace(path: string, held: AsyncDisposableStack, claim: PlaceClaim) {
  const { unwritable, requireReplaceable, onTaken } = claim;
  const folder = holdFolder(dirname(resolve(path))).catch((error: unknown) => {
    throw unwritable(messageOf(error), error);
  });
  const { inside, wordsOf } = held.use(await folder);
  const place = join(inside, basename(resolve(path)));
  await requireReplaceable(place);
  // Containers can share the network, and therefore the locks' namespace, without sharing the folder.
  const { dev, ino } = await stat(inside);
  const key = `${String(dev)}:${String(ino)}/${basename(place)}`;
  const lock = held.use(await lockKey(key, 'free'));
  if (lock === undefined) onTaken(await holderOf(key));
  await removeRemains(place);
  const own = held.use(await livingName());
  const refuse = (error: unknown): never => {
    throw error instanceof HandoverError ? error : unwritable(wordsOf(error), error);
  };
  return { place, partial: `${place}.partial-${own.name}`, refuse };
}

/**
 * A file that appears under its name only when it is complete, and that only its owner can read, as with `docker save -o`. It is removed
 * if its scope ends before `commit`. A killed step may leave a partial file; the next step that writes there removes it.
 */
export type PartialFile = Awaited<ReturnType<typeof partialFile>>;

/** Creates the file and its folder. Throws `invalid-input` if `path` can't be written or replaced, `not-enough-space` with `advice`. */
export async function partialFile(path: string, advice: string, log: Pick<Log, 'warning'>) {
  await using opening = new AsyncDisposableStack();
  const { place, partial, refuse } = await claimPlace(path, opening, {
    unwritable: (why, cause) => unwritable(path, why, cause),
    requireReplaceable: (there) => requireReplaceable(path, there),
    onTaken: (holder) => log.warning(contested(path, holder)),
  });
  // No other user can have created a link there: the name is random, and must not exist yet.
  const file = await open(partial, 'wx', 0o600).catch(refuse);
  opening.defer(onForcedEnd(() => rmSync(partial, { force: true })));
  opening.defer(() => rm(partial, { force: true }));
  // Closing it again after `commit` does nothing.
  opening.use(file);
  const held = opening.move();
  return {
    /** Returns the same chunks, and writes them. Throws `not-enough-space` if the disk is full. */
    tee: <Chunk extends LentChunk>(chunks: AsyncIterable<Chunk>) => teeFile(chunks, file, path, advice),
    commit: async (): Promise<void> => {
      await file.close();
      // Renaming over a file makes ext4 write the new file to the disk first: 0.3 s for 560 MB.
      await rm(place, { force: true })
        .then(() => rename(partial, place))
        .catch(refuse);
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function requireReplaceable(path: string, place: string): Promise<void> {
  const existing = await stat(place).catch(() => undefined);
  if (existing?.isDirectory() === true) throw unwritable(path, 'it is a folder');
  // Replacing a device would remove it for all processes.
  if (existing?.isFile() === false) throw unwritable(path, `it is ${kindOf(existing)}, not a file`);
  const there = await lstat(place).catch(() => undefined);
  const folder = await stat(dirname(place));
  const uid = process.getuid?.();
  if (there === undefined || uid === undefined || uid === 0) return;
  // In a folder such as /tmp, only the file's or the folder's owner can replace a file (unlink(2), EPERM).
  if ((folder.mode & 0o1000) !== 0 && there.uid !== uid && folder.uid !== uid)
    throw unwritable(path, `it is a file of another user (uid ${String(there.uid)}), which this user can't replace`);
}

/**
 * Removes what killed steps of this user left next to a path: files or folders called `<path>.partial-<living name>`. Those of another host
 * or container, whose processes can't be seen from here, are removed if they are older than any step.
 */
function removeRemains(path: string): Promise<void> {
  const prefix = `${basename(path)}.partial-`;
  return removeOwn(dirname(path), async (name, { mtimeMs }) => {
    const owner = name.slice(prefix.length);
    if (!name.startsWith(prefix) || !isLivingName.test(owner)) return false;
    return (await isOfAnotherScope(owner)) ? Date.now() - mtimeMs > longestStepMs : isDead(owner);
  });
}

// This is only a warning: each step still uploads or loads correctly.
function contested(path: string, holder: string): string {
  return (
    `Another step on this host is writing the tarball ${path} now (${holder}): the step that ends last overwrites the other's ` +
    'file. Give each step its own file, such as `tarball: ${{ runner.temp }}/charon.tar`.'
  );
}

function unwritable(path: string, why: string, cause?: unknown): HandoverError {
  return invalidInput(
    `The tarball can't be written to ${path}: ${why}.`,
    'Set `tarball` to the path of a file in a folder that this job may write to.',
    cause,
  );
}
