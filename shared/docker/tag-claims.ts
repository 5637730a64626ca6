import type { Log } from '../base/log.ts';
import { awaitKey, type KeyWaits } from '../bytes/locks.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import type { EngineInfo } from './output.ts';

// Two steps that set the same reference at the same time can't tell whose tag it is. So a step claims its references before it inspects
// them, and releases them after they are verified or restored. A claim works between the steps of this project on this machine (locks.ts).

/** Returns the name of an engine for all steps on this machine. */
export function placeOf({ hostName, dataRoot }: Pick<EngineInfo, 'hostName' | 'dataRoot'>): string {
  return `${hostName} ${dataRoot}`;
}

interface Tools {
  readonly log: Pick<Log, 'info' | 'warning'>;
  readonly signal: AbortSignal;
}

// Longer than a step needs to tag its images, and than most pulls and pushes.
const usualWaits: KeyWaits = { 'this-user': 120_000, 'other-user': 120_000, stranger: 10_000 };

/**
 * Claims references in some engines. The order is fixed, so that two steps can't wait for each other.
 * @param waits how long to wait for another process before a warning
 * @returns disposed of to release them
 * @throws AbortError if the signal is aborted
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
        log.info(`Waiting for another step that sets ${name}: ${holder}.`);
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
