import type { Engine } from './engine.ts';

/** Puts references back where they were, unless the load turns out well: no wrong image stays under a tag. */
export interface TagGuard extends AsyncDisposable {
  /** Names a reference that the load may set or has set. */
  readonly watch: (reference: string) => void;
  /** The load turned out well: everything stays. */
  keep(): void;
}

/** @param onTrouble told of a reference that couldn't be put back */
export async function guardTags(engine: Engine, onTrouble: (message: string) => void): Promise<TagGuard> {
  const before = await engine.references();
  const ids = new Set(before.values());
  const watched = new Set<string>();
  let kept = false;
  const putBack = async (reference: string, now: ReadonlyMap<string, string>): Promise<void> => {
    const old = before.get(reference);
    const isId = reference.startsWith('sha256:');
    if (isId ? ids.has(reference) : now.get(reference) === old) return;
    if (old !== undefined) await engine.tag(old, reference);
    else await engine.untag(reference);
  };
  return {
    watch: (reference) => void watched.add(engine.nameOf(reference)),
    keep: () => void (kept = true),
    [Symbol.asyncDispose]: async () => {
      if (kept) return;
      try {
        const now = await engine.references();
        for (const reference of watched) await putBack(reference, now);
      } catch (error) {
        onTrouble(`A tag could not be taken back: ${String(error)}`);
      }
    },
  };
}
