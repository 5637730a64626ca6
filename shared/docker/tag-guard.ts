import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { inPool } from '../base/pool.ts';
import { awaitKey, type KeyWaits } from '../bytes/locks.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import type { Engine } from './engine.ts';
import type { EngineInfo, InspectedImage } from './output.ts';

// A cancelled step has little time.
const atOnce = 8;

/**
 * Sets references, and restores them on dispose unless the step succeeds. So no tag keeps a wrong image, and no earlier image loses its
 * tag. References that another process has set since are not changed.
 */
export type TagGuard = ReturnType<typeof guardTags>;

interface Change {
  readonly reference: string;
  /** Image ID; undefined for none. */
  readonly before: string | undefined;
  /** The image that was set. The reference may have another one now. */
  readonly after: string | undefined;
  /** Whether that image was in the engine before, tagged or not. */
  readonly wasHere: boolean;
}

/** @param claim on the references, released on dispose */
export function guardTags(engine: Engine, onTrouble: (message: string) => void, claim?: AsyncDisposable) {
  const changes: Change[] = [];
  let keepsAll = false;
  const { forCleanUp } = engine;
  const { release } = forCleanUp;
  const putBack = async ({ reference, before, after, wasHere }: Change): Promise<void> => {
    if (before === after || (await forCleanUp.inspect(reference))?.imageId !== after) return;
    if (before !== undefined) await forCleanUp.tag(before, reference);
    else if (release !== undefined && wasHere && (await forCleanUp.inspect(reference))?.repoTags.length === 1)
      await release(reference);
    else await forCleanUp.untag(reference);
  };
  const putBackAll = async (reference: string): Promise<void> => {
    for (const change of changes.filter((one) => one.reference === reference).reverse()) {
      await putBack(change).catch((error: unknown) => {
        onTrouble(`The tag ${reference} could not be restored: ${messageOf(error)}`);
      });
    }
  };
  return {
    /** Runs work that sets a reference, such as a pull. Rethrows its error. */
    during: async (reference: string, work: () => Promise<void>): Promise<void> => {
      const here = new Set((await engine.images()).map(({ imageId }) => imageId));
      const before = (await engine.inspect(reference))?.imageId;
      try {
        await work();
      } finally {
        const after = (await forCleanUp.inspect(reference))?.imageId;
        changes.push({ reference, before, after, wasHere: after !== undefined && here.has(after) });
      }
    },
    /** Tags an image, and returns the reference's image. `known` has just been inspected. Throws `load-failed`. */
    tag: async (
      image: string,
      reference: string,
      known?: { readonly imageId: string; readonly before: InspectedImage | undefined },
    ): Promise<InspectedImage | undefined> => {
      const after = known?.imageId ?? (await engine.inspect(image))?.imageId ?? image;
      const before = (known === undefined ? await engine.inspect(reference) : known.before)?.imageId;
      // Also if the command fails after it has set the tag.
      changes.push({ reference, before, after, wasHere: true });
      await engine.tag(image, reference);
      return engine.inspect(reference);
    },
    /** Keeps all references. */
    keep: () => void (keepsAll = true),
    [Symbol.asyncDispose]: async (): Promise<void> => {
      const references = new Set(keepsAll ? [] : changes.map(({ reference }) => reference));
      await inPool(references, atOnce, putBackAll);
      await claim?.[Symbol.asyncDispose]();
    },
  };
}

// Two steps that set the same reference at the same time can't tell whose tag it is. So a step claims its references before it inspects
// them, and releases them after they are verified or restored. A claim works between the steps of this project on this machine (locks.ts).

/** Returns the name of an engine for all steps on this machine. */
export function placeOf({ hostName, dataRoot }: Pick<EngineInfo, 'hostName' | 'dataRoot'>): string {
  return `${hostName} ${dataRoot}`;
}

// Longer than a step needs to tag its images, and than most pulls and pushes.
const usualWaits: KeyWaits = { 'this-user': 120_000, 'other-user': 120_000, stranger: 10_000 };

/** Claims references in some engines until disposed of, in a fixed order, so that two steps can't wait for each other. */
export async function claimTags(
  places: readonly string[],
  references: readonly Reference[],
  { log, signal }: { readonly log: Pick<Log, 'info' | 'warning'>; readonly signal: AbortSignal },
  waits = usualWaits,
): Promise<AsyncDisposable> {
  const names = [...new Set(references.map(formatReference))];
  const claims = places.flatMap((place) => names.map((name) => ({ name, key: `tag ${name} ${place}` })));
  await using held = new AsyncDisposableStack();
  for (const { name, key } of claims.sort((one, other) => (one.key < other.key ? -1 : 1))) {
    const lock = await awaitKey(key, {
      signal,
      waits,
      onWait: (holder) => log.info(`Waiting for another step that sets ${name}: ${holder}.`),
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
