import { once } from 'node:events';
import type { Writable } from 'node:stream';

// Bytes are read in chunks, and a chunk's type shows the owner of its memory. A `Buffer` belongs to its consumer. The memory of a
// `LentChunk` is used again when the next one is requested: a new buffer for each would leave hundreds of MB to the garbage collector
// for one image. A Buffer can be lent, but a lent chunk is no Buffer. So the compiler refuses it wherever bytes are kept, or are passed
// to a stream or a decoder that may keep them. Only a copy can be kept.

/** A chunk that is valid until the next one is requested. */
export interface LentChunk extends Pick<Buffer, 'length' | 'buffer' | 'byteOffset' | 'copy'> {
  subarray(start?: number, end?: number): LentChunk;
}

/** Chunks, each of which is valid until the next one is requested. */
export type LentChunks = AsyncIterable<LentChunk>;

/** Returns the same bytes, to be used before the next chunk is requested: to hash them, or to write them to a file. */
export function viewOf({ buffer, byteOffset, length }: LentChunk): Buffer {
  return Buffer.from(buffer, byteOffset, length);
}

/** Copies all bytes of some small chunks. */
export async function copiedBytes(chunks: LentChunks): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(viewOf(chunk)));
  return Buffer.concat(copies);
}

// The number of bytes that Node's streams hold before they report backpressure (`stream.getDefaultHighWaterMark`).
const heldBytes = 64 * 1024;

/**
 * Returns the same chunks for a writable stream of Node's with backpressure. Such a stream holds short chunks and requests more, so they
 * are copied. It has written a longer chunk before it requests the next.
 */
export async function* streamableChunks(chunks: LentChunks): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield chunk.length < heldBytes ? Buffer.from(viewOf(chunk)) : viewOf(chunk);
}

/** Writes all chunks to a stream with backpressure, until `over` is aborted. Throws errors of the chunks. */
export async function writeChunks(stream: Writable, chunks: LentChunks, over: AbortSignal): Promise<void> {
  for await (const chunk of streamableChunks(chunks)) {
    if (over.aborted) break;
    if (!stream.write(chunk)) await once(stream, 'drain', { signal: over }).catch(() => undefined);
  }
}

/**
 * Copies chunks into pieces of `bytes` bytes, of which the last is shorter or empty.
 * @param free memory of earlier pieces, which is used again: leaving it to the garbage collector would triple the memory held
 */
export async function* pieces(chunks: LentChunks, bytes: number, free: Buffer[]): AsyncGenerator<Buffer> {
  let piece = free.pop() ?? Buffer.allocUnsafeSlow(bytes);
  let length = 0;
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length;) {
      const count = chunk.copy(piece, length, taken);
      taken += count;
      length += count;
      if (length < bytes) continue;
      yield piece;
      piece = free.pop() ?? Buffer.allocUnsafeSlow(bytes);
      length = 0;
    }
  }
  yield piece.subarray(0, length);
}

/** Returns the same chunks, and calls `onBytes` with the length of each. */
export async function* countedChunks<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Chunk> {
  for await (const chunk of chunks) {
    onBytes(chunk.length);
    yield chunk;
  }
}

/** Returns the same chunks, and calls `onError` with their error before throwing it. */
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

/** Returns a head of at least `minBytes`, or of all bytes if they are fewer, and all chunks including it. Throws errors of the chunks. */
export async function withHead<Chunk extends LentChunk>(
  chunks: AsyncIterable<Chunk>,
  minBytes: number,
): Promise<{ readonly head: Buffer; readonly all: AsyncIterable<Buffer | Chunk> }> {
  const source = chunks[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < minBytes) {
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
