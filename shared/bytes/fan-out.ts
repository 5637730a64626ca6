import { asError } from '../base/errors.ts';
import type { LentChunk, LentChunks } from './chunks.ts';

/**
 * Gives the same chunks to several takers at once. Nothing is held: a chunk is asked for when every taker has asked for it,
 * so the slowest sets the pace. Without takers, all is taken all the same.
 * @param takers each iterates over what it is given; one that stops early no longer counts
 * @returns what the takers return, in their order
 * @throws what the chunks throw, or the first taker to fail throws; the others' chunks then end with that error, and they are
 *   waited for
 */
export async function fanOut<T>(
  chunks: LentChunks,
  takers: readonly ((chunks: LentChunks) => Promise<T>)[],
): Promise<readonly T[]> {
  const ends = takers.map(() => new TakersEnd());
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => undefined); // thrown where it is raced
  const taken = takers.map(async (take, at) => {
    try {
      return await take(ends[at] ?? chunks);
    } catch (error) {
      failure.reject(asError(error));
      throw error;
    } finally {
      ends[at]?.leave();
    }
  });
  const allAsk = (): Promise<unknown> => Promise.race([Promise.all(ends.map((end) => end.asks())), failure.promise]);
  try {
    await allAsk();
    for await (const chunk of chunks) {
      for (const end of ends) end.give({ done: false, value: chunk });
      // Its memory is used again when the next one is asked for.
      await allAsk();
      if (takers.length > 0 && ends.every((end) => end.hasLeft)) break;
    }
    for (const end of ends) end.give({ done: true, value: undefined });
  } catch (error) {
    for (const end of ends) end.fail(error);
    await Promise.allSettled(taken);
    throw error;
  }
  return Promise.all(taken);
}

type Given = IteratorResult<LentChunk, undefined>;

/** Where one taker gets its chunks. */
class TakersEnd implements AsyncIterable<LentChunk> {
  hasLeft = false;
  #failed: { readonly error: unknown } | undefined;
  #wanted: PromiseWithResolvers<Given> | undefined;
  #asked = Promise.withResolvers<undefined>();

  /** Settles when the taker asks for the next chunk, or has left. */
  asks(): Promise<unknown> {
    return this.#asked.promise;
  }

  give(given: Given): void {
    if (this.hasLeft) return;
    this.#asked = Promise.withResolvers();
    this.#wanted?.resolve(given);
    this.#wanted = undefined;
  }

  fail(error: unknown): void {
    this.#failed = { error };
    this.#wanted?.reject(asError(error));
  }

  leave(): void {
    this.hasLeft = true;
    this.#asked.resolve(undefined);
  }

  [Symbol.asyncIterator](): AsyncIterator<LentChunk, undefined> {
    return {
      next: () => {
        if (this.#failed !== undefined) return Promise.reject(asError(this.#failed.error));
        this.#wanted = Promise.withResolvers();
        this.#asked.resolve(undefined);
        return this.#wanted.promise;
      },
      return: () => {
        this.leave();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}
