import { messageOf } from '../base/errors.ts';
import type { Engine } from './engine.ts';
import type { InspectedImage } from './output.ts';

// A cancelled step has little time for it.
const atOnce = 8;

/**
 * Sets references, and puts each back where it was unless all turns out well: no wrong image stays under a tag, and none that
 * was there before is lost. It touches only what was set through it, and leaves alone what somebody else has set since.
 */
export interface TagGuard extends AsyncDisposable {
  /**
   * Gives an image a reference. Throws `load-failed`.
   * @param known the image's ID, and the image that has the reference, if they have just been asked
   * @returns what has it now
   */
  tag(
    image: string,
    reference: string,
    known?: { readonly imageId: string; readonly before: InspectedImage | undefined },
  ): Promise<InspectedImage | undefined>;
  /** Does work that sets a reference, such as a pull. Throws what it throws. */
  during(reference: string, work: () => Promise<void>): Promise<void>;
  /** All turned out well: everything stays. */
  keep(): void;
}

interface Change {
  readonly reference: string;
  /** Image IDs; undefined where there was, or is, none. */
  readonly before: string | undefined;
  /** What was set: not what was found afterwards, which may be somebody else's. */
  readonly after: string | undefined;
  /** Whether the image that was set was in the engine before, by another name or by none. */
  readonly wasHere: boolean;
}

/**
 * @param onTrouble called with a message when a reference couldn't be put back
 * @param claim of the references, given back after that
 */
export function guardTags(engine: Engine, onTrouble: (message: string) => void, claim?: AsyncDisposable): TagGuard {
  const changes: Change[] = [];
  let keepsAll = false;
  const { forCleanUp } = engine;
  const putBack = async ({ reference, before, after, wasHere }: Change): Promise<void> => {
    if (before === after || (await forCleanUp.inspect(reference))?.imageId !== after) return;
    if (before !== undefined) await forCleanUp.tag(before, reference);
    else if (wasHere && (await forCleanUp.inspect(reference))?.repoTags.length === 1)
      await forCleanUp.release(reference);
    else await forCleanUp.untag(reference);
  };
  const putBackAll = async (reference: string): Promise<void> => {
    for (const change of changes.filter((one) => one.reference === reference).reverse()) {
      await putBack(change).catch((error: unknown) => {
        onTrouble(`The tag ${reference} could not be taken back: ${messageOf(error)}`);
      });
    }
  };
  return {
    during: async (reference, work) => {
      const here = new Set((await engine.images()).map(({ imageId }) => imageId));
      const before = (await engine.inspect(reference))?.imageId;
      try {
        await work();
      } finally {
        const after = (await forCleanUp.inspect(reference))?.imageId;
        changes.push({ reference, before, after, wasHere: after !== undefined && here.has(after) });
      }
    },
    tag: async (image, reference, known) => {
      const after = known?.imageId ?? (await engine.inspect(image))?.imageId ?? image;
      const before = (known === undefined ? await engine.inspect(reference) : known.before)?.imageId;
      // Also when the command fails after it has set it.
      changes.push({ reference, before, after, wasHere: true });
      await engine.tag(image, reference);
      return engine.inspect(reference);
    },
    keep: () => void (keepsAll = true),
    [Symbol.asyncDispose]: async () => {
      const references = keepsAll ? [] : [...new Set(changes.map(({ reference }) => reference))];
      for (let at = 0; at < references.length; at += atOnce) {
        await Promise.all(references.slice(at, at + atOnce).map(putBackAll));
      }
      await claim?.[Symbol.asyncDispose]();
    },
  };
}
