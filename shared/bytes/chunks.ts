import { once } from 'node:events';
import type { Writable } from 'node:stream';

// Bytes come and go in chunks, and who owns a chunk's memory is a matter of its type. A `Buffer` is its taker's for good. A
// `LentChunk` is not: its memory is used again when the next one is asked for, because a new buffer for each would leave
// hundreds of MB to the garbage collector for one image. Whatever is a Buffer may be lent; what is lent is no Buffer, so the
// compiler refuses it wherever bytes are held on to, or given to something that may (a stream, a decoder). To keep one takes a
// call that copies.

/** A chunk that is valid until the next is asked for. */
export interface LentChunk extends Pick<Buffer, 'length' | 'buffer' | 'byteOffset' | 'copy'> {
  subarray(start?: number, end?: number): LentChunk;
}

/** Chunks each of which is valid until the next is asked for. */
export type LentChunks = AsyncIterable<LentChunk>;

/** The same bytes, for what is done with them before the next chunk is asked for: to hash them, or to write them to a file. */
export function viewOf({ buffer, byteOffset, length }: LentChunk): Buffer {
  return Buffer.from(buffer, byteOffset, length);
}

/** All bytes of some small chunks. */
export async function copiedBytes(chunks: LentChunks): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(viewOf(chunk)));
  return Buffer.concat(copies);
}

// Node's streams take so many bytes before they say that it is enough (`stream.getDefaultHighWaterMark`).
const heldBytes = 64 * 1024;

/**
 * The same chunks for a stream of Node's that is written to, and waited for when it says so. Streams hold short chunks back and
 * ask for more: such a one is copied. A longer one has been written by then.
 */
export async function* streamableChunks(chunks: LentChunks): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield chunk.length < heldBytes ? Buffer.from(viewOf(chunk)) : viewOf(chunk);
}

/** Writes all chunks to a stream, as fast as it takes them, until that is over. Throws what the chunks throw. */
export async function writeChunks(stream: Writable, chunks: LentChunks, over: AbortSignal): Promise<void> {
  for await (const chunk of streamableChunks(chunks)) {
    if (over.aborted) break;
    if (!stream.write(chunk)) await once(stream, 'drain', { signal: over }).catch(() => undefined);
  }
}

/** The same chunks; `onBytes` is told of the length of each as it passes by. */
export async function* countedChunks<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Chunk> {
  for await (const chunk of chunks) {
    onBytes(chunk.length);
    yield chunk;
  }
}

/** The same chunks; `onError` is told when they end with an error, which is passed on. */
export async function* watchedChunks<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  onError: (error: unknown) => void,
): AsyncGenerator<Chunk> {
  try {
    yield* chunks;
  } catch (error) {
    onError(error);
    throw error;
  }
}

/**
 * The first bytes, to look at, and the whole with them.
 * @param isEnough asked with what has come; the head is shorter when the whole is, and longer as its chunks are
 * @throws what the chunks throw
 */
export async function withHead<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  isEnough: (head: Buffer) => boolean,
): Promise<{ readonly head: Buffer; readonly all: AsyncIterable<Buffer | Chunk> }> {
  const source = chunks[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (!isEnough(head)) {
    const next = await source.next();
    if (next.done === true) break;
    head = Buffer.concat([head, viewOf(next.value)]);
  }
  const all = async function* (): AsyncGenerator<Buffer | Chunk> {
    try {
      if (head.length > 0) yield head;
      for (let next = await source.next(); next.done !== true; next = await source.next()) yield next.value;
    } finally {
      await source.return?.();
    }
  };
  return { head, all: all() };
}
