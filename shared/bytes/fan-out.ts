import { asError } from '../base/errors.ts';
import type { LentChunk, LentChunks } from './chunks.ts';

/**
 * Gives the same chunks to several consumers at the same time. Nothing is held: a chunk is requested when every consumer has requested
 * it, so the slowest sets the pace. Without consumers, all chunks are read and discarded.
 * @param consumers each iterates over its chunks; one that stops early is no longer waited for
 * @returns the consumers' results, in their order
 * @throws the first error of the chunks or a consumer; the others' chunks then end with that error, and they are waited for
 */
export async function fanOut<T>(
  chunks: LentChunks,
  consumers: readonly ((chunks: LentChunks) => Promise<T>)[],
): Promise<readonly T[]> {
  const ends = consumers.map(() => new ConsumersEnd());
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => undefined); // thrown where it is raced
  const taken = consumers.map(async (take, at) => {
    try {
      return await take(ends[at]?.chunks() ?? chunks);
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
      for (const end of ends) end.give(chunk);
      // Its memory is used again when the next one is requested.
      await allAsk();
      if (consumers.length > 0 && ends.every((end) => end.hasLeft)) break;
    }
    for (const end of ends) end.give(undefined);
  } catch (error) {
    for (const end of ends) end.fail(error);
    await Promise.allSettled(taken);
    throw error;
  }
  return Promise.all(taken);
}

/** The chunks of one consumer. */
class ConsumersEnd {
  hasLeft = false;
  #asked = Promise.withResolvers<undefined>();
  #given = Promise.withResolvers<LentChunk | undefined>();

  /** Settles when the consumer requests the next chunk, or has left. */
  asks(): Promise<unknown> {
    return this.#asked.promise;
  }

  /** Gives the consumer a chunk, or its end. */
  give(chunk: LentChunk | undefined): void {
    if (this.hasLeft) return;
    const { resolve } = this.#given;
    this.#asked = Promise.withResolvers();
    this.#given = Promise.withResolvers();
    resolve(chunk);
  }

  fail(error: unknown): void {
    this.#given.promise.catch(() => undefined); // thrown with the next request
    this.#given.reject(asError(error));
  }

  leave(): void {
    this.hasLeft = true;
    this.#asked.resolve(undefined);
  }

  async *chunks(): AsyncGenerator<LentChunk> {
    try {
      for (;;) {
        this.#asked.resolve(undefined);
        const chunk = await this.#given.promise;
        if (chunk === undefined) return;
        yield chunk;
      }
    } finally {
      this.leave();
    }
  }
}
