import type { Log } from '../base/log.ts';
import { awaitKey, type KeyWaits } from '../bytes/locks.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import type { EngineInfo } from './output.ts';

// Two steps that set one reference at once can't know whose tag it is: both may set it to the same image. So a step claims its
// references before it looks at them, and gives them back when they are proved or put back. The claim holds between the steps of
// this project on this machine, as far as locks do (locks.ts).

/** An engine as a place where references are set: what every step on this machine knows it by. */
export function placeOf({ hostName, dataRoot }: Pick<EngineInfo, 'hostName' | 'dataRoot'>): string {
  return `${hostName} ${dataRoot}`;
}

interface Tools {
  readonly log: Pick<Log, 'info' | 'warning'>;
  readonly signal: AbortSignal;
}

// Longer than a step needs to name its images, and than most pulls and pushes take.
const usualWaits: KeyWaits = { 'this-user': 120_000, 'other-user': 120_000, stranger: 10_000 };

/**
 * Claims references in some places. All in one order, so that two steps can't wait for each other.
 * @param waits how long another process is waited for; then it warns, and goes on without what that one holds
 * @returns what gives them back
 * @throws AbortError when the signal is aborted
 */
export async function claimTags(
  places: readonly string[],
  references: readonly Reference[],
  { log, signal }: Tools,
  waits = usualWaits,
): Promise<AsyncDisposable> {
  const names = [...new Set(references.map(formatReference))];
  const claims = places.flatMap((place) => names.map((name) => ({ name, key: `tag ${name} ${place}` })));
  await using held = new AsyncDisposableStack();
  for (const { name, key } of claims.sort((one, other) => (one.key < other.key ? -1 : 1))) {
    const lock = await awaitKey(key, {
      signal,
      waits,
      onWait: (holder) => {
        log.info(`Waiting for another step that is setting ${name}: ${holder}.`);
      },
      onGiveUp: (holder) => {
        log.warning(
          `Setting ${name} without waiting any longer for ${holder}. If one of the two fails, the reference may be removed.`,
        );
      },
    });
    held.use(lock);
  }
  return held.move();
}
