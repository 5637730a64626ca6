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
   * @param known the image that has the reference, if that has just been asked
   * @returns what has it now
   */
  tag(
    image: string,
    reference: string,
    known?: { readonly before: InspectedImage | undefined },
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
  readonly after: string | undefined;
  /** Whether the image that has the reference now was in the engine before, by another name or by none. */
  readonly wasHere: boolean;
}

/** @param onTrouble told of a reference that couldn't be put back */
export function guardTags(engine: Engine, onTrouble: (message: string) => void): TagGuard {
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
  const during = async (
    reference: string,
    work: () => Promise<void>,
    wasHere: (imageId: string | undefined) => boolean,
    known?: { readonly before: InspectedImage | undefined },
  ): Promise<InspectedImage | undefined> => {
    const before = (known === undefined ? await engine.inspect(reference) : known.before)?.imageId;
    let found: InspectedImage | undefined;
    try {
      await work();
    } finally {
      found = await forCleanUp.inspect(reference);
      const after = found?.imageId;
      changes.push({ reference, before, after, wasHere: wasHere(after) });
    }
    return found;
  };
  return {
    during: async (reference, work) => {
      const here = new Set((await engine.images()).map(({ imageId }) => imageId));
      await during(reference, work, (imageId) => imageId !== undefined && here.has(imageId));
    },
    tag: (image, reference, known) =>
      during(
        reference,
        () => engine.tag(image, reference),
        () => true,
        known,
      ),
    keep: () => void (keepsAll = true),
    [Symbol.asyncDispose]: async () => {
      if (keepsAll) return;
      const references = [...new Set(changes.map(({ reference }) => reference))];
      for (let at = 0; at < references.length; at += atOnce) {
        await Promise.all(references.slice(at, at + atOnce).map(putBackAll));
      }
    },
  };
}
