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

// Longer than any step: `timeout-minutes` is 5 days at most.
const longestStepMs = 6 * 24 * 60 * 60_000;
const isLivingName = new RegExp(`^${livingNamePattern}$`);

/** The claim on a path. */
interface PlaceClaim {
  /** Makes the error when the path can't be written. */
  readonly unwritable: (why: string, cause?: unknown) => HandoverError;
  /** Throws when something there must not be replaced. */
  readonly requireReplaceable: (place: string) => Promise<void>;
  /** Called with a description of the process of this host that is writing the same path: two jobs of self-hosted runners may do so. */
  readonly onTaken: (holder: string) => void;
}

/**
 * Makes the folder of a path, holds it, and locks the path among the processes of this project on this host. Removes what killed steps left.
 * @param held gets all that has to be disposed of
 * @returns the path of the complete one, that of the partial one, and a function that throws an error as the claim's own
 */
export async function claimPlace(path: string, held: AsyncDisposableStack, claim: PlaceClaim) {
  const { unwritable, requireReplaceable, onTaken } = claim;
  const folder = holdFolder(dirname(resolve(path))).catch((error: unknown) => {
    throw unwritable(messageOf(error), error);
  });
  const { inside, wordsOf } = held.use(await folder);
  const place = join(inside, basename(resolve(path)));
  await requireReplaceable(place);
  // Containers can share the network, and so the locks' namespace, without sharing the folder.
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
 * when its scope ends before `commit`. A killed step may leave a partial file, which the next step that writes there removes.
 */
export type PartialFile = Awaited<ReturnType<typeof partialFile>>;

/** Makes the folder of `path`. Throws `invalid-input` if it can't be written or replaced, `not-enough-space` with the advice. */
export async function partialFile(path: string, advice: string, log: Pick<Log, 'warning'>) {
  await using opening = new AsyncDisposableStack();
  const { place, partial, refuse } = await claimPlace(path, opening, {
    unwritable: (why, cause) => unwritable(path, why, cause),
    requireReplaceable: (there) => requireReplaceable(path, there),
    onTaken: (holder) => log.warning(contested(path, holder)),
  });
  // No other user can have made a link there: the name is random, and must not exist.
  const file = await open(partial, 'wx', 0o600).catch(refuse);
  opening.defer(onForcedEnd(() => rmSync(partial, { force: true })));
  opening.defer(() => rm(partial, { force: true }));
  // Closing it again after `commit` does nothing.
  opening.use(file);
  const held = opening.move();
  return {
    /** Returns the same chunks, and writes them. Throws `not-enough-space` when the disk is full. */
    tee: <Chunk extends LentChunk>(chunks: AsyncIterable<Chunk>) => teeFile(chunks, file, path, advice),
    commit: async (): Promise<void> => {
      await file.close();
      // Renaming over a file makes ext4 write the new one to the disk first: 0.3 s for 560 MB.
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
 * or container, whose processes can't be seen from here, are removed when they are older than any step.
 */
function removeRemains(path: string): Promise<void> {
  const prefix = `${basename(path)}.partial-`;
  return removeOwn(dirname(path), async (name, { mtimeMs }) => {
    const owner = name.slice(prefix.length);
    if (!name.startsWith(prefix) || !isLivingName.test(owner)) return false;
    return (await isOfAnotherScope(owner)) ? Date.now() - mtimeMs > longestStepMs : isDead(owner);
  });
}

// Only a warning: the upload or load of each step is still correct.
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
