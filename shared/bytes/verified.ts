import { createHash } from 'node:crypto';
import { type LentChunk, viewOf } from './chunks.ts';

/** The size of some bytes, and their SHA-256 digest. */
export interface Found {
  readonly size: number;
  readonly digest: `sha256:${string}`;
}

/** Counts and hashes bytes. */
export class Checksum {
  readonly #hash = createHash('sha256');
  size = 0;

  add(chunk: LentChunk): void {
    this.#hash.update(viewOf(chunk));
    this.size += chunk.length;
  }

  /** Returns the size and digest of all added bytes. Nothing can be added after that. */
  found(): Found {
    return { size: this.size, digest: `sha256:${this.#hash.digest('hex')}` };
  }
}

/** Adds each chunk to a checksum. A consumer may stop early: the remaining chunks can still be read. */
export function checksummed<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  checksum: Checksum,
): AsyncIterable<Chunk> {
  const source = chunks[Symbol.asyncIterator]();
  const next = async (): Promise<IteratorResult<Chunk, undefined>> => {
    const result = await source.next();
    if (result.done === true) return { done: true, value: undefined };
    checksum.add(result.value);
    return result;
  };
  return { [Symbol.asyncIterator]: () => ({ next }) };
}

/** Reads the remaining chunks and discards them. */
export async function drain(chunks: AsyncIterable<unknown>): Promise<void> {
  const source = chunks[Symbol.asyncIterator]();
  while ((await source.next()).done !== true);
}

/**
 * Returns the same chunks, and checks their size and digest at the end.
 * @param expected a size in bytes and a digest; undefined values are not checked
 * @param refuse creates the error from the size and digest that were found; chunks beyond the expected size are not read
 */
export async function* verifiedChunks<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  { size = Infinity, digest }: { readonly size?: number; readonly digest?: string | undefined },
  refuse: (found: { readonly size: number; readonly digest: string | undefined }) => Error,
): AsyncGenerator<Chunk> {
  const checksum = new Checksum();
  let read = 0;
  for await (const chunk of chunks) {
    read += chunk.length;
    if (read > size) break;
    if (digest !== undefined) checksum.add(chunk);
    yield chunk;
  }
  const found = { size: read, digest: digest === undefined ? undefined : checksum.found().digest };
  if ((size === Infinity || read === size) && found.digest === digest) return;
  throw refuse(found);
}

/** Passes chunks on, but keeps the last `bytes` or more until the source has ended without an error. */
export async function* heldBack(chunks: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  const held: Buffer[] = [];
  let total = 0;
  for await (const chunk of chunks) {
    held.push(chunk);
    total += chunk.length;
    for (let first = held[0]; first !== undefined && total - first.length >= bytes; first = held[0]) {
      held.shift();
      total -= first.length;
      yield first;
    }
  }
  yield* held;
}
