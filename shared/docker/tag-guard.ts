import { messageOf } from '../base/errors.ts';
import type { Engine } from './engine.ts';

// A cancelled step has little time for it.
const atOnce = 8;

/**
 * Sets references, and puts each back where it was unless all turns out well: no wrong image stays under a tag, and none that
 * was there before is lost. It touches only what was set through it, and leaves alone what somebody else has set since.
 */
export interface TagGuard extends AsyncDisposable {
  /** Gives an image a reference. Throws `load-failed`. */
  tag(image: string, reference: string): Promise<void>;
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
}

/** @param onTrouble told of a reference that couldn't be put back */
export function guardTags(engine: Engine, onTrouble: (message: string) => void): TagGuard {
  const changes: Change[] = [];
  let keepsAll = false;
  const { forCleanUp } = engine;
  const idOf = async (reference: string, asked: Engine): Promise<string | undefined> =>
    (await asked.inspect(reference))?.imageId;
  const putBack = async ({ reference, before, after }: Change): Promise<void> => {
    if (before === after || (await idOf(reference, forCleanUp)) !== after) return;
    if (before !== undefined) await forCleanUp.tag(before, reference);
    else await forCleanUp.untag(reference);
  };
  const putBackAll = async (reference: string): Promise<void> => {
    for (const change of changes.filter((one) => one.reference === reference).reverse()) {
      await putBack(change).catch((error: unknown) => {
        onTrouble(`The tag ${reference} could not be taken back: ${messageOf(error)}`);
      });
    }
  };
  const during: TagGuard['during'] = async (reference, work) => {
    const before = await idOf(reference, engine);
    try {
      await work();
    } finally {
      changes.push({ reference, before, after: await idOf(reference, forCleanUp) });
    }
  };
  return {
    during,
    tag: (image, reference) => during(reference, () => engine.tag(image, reference)),
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
