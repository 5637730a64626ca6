/** All bytes of some small chunks, each of which may be valid until the next is asked for only. */
export async function copiedBytes(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(chunk));
  return Buffer.concat(copies);
}

/** The same chunks; `onBytes` is told of the length of each as it passes by. */
export async function* countedChunks(
  chunks: AsyncIterable<Buffer>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    onBytes(chunk.length);
    yield chunk;
  }
}

/** The same chunks; `onError` is told when they end with an error, which is passed on. */
export async function* watchedChunks(
  chunks: AsyncIterable<Buffer>,
  onError: (error: unknown) => void,
): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (error) {
    onError(error);
    throw error;
  }
}

// Node's streams take so many bytes before they say that it is enough (`stream.getDefaultHighWaterMark`).
const heldBytes = 64 * 1024;

/**
 * A chunk that can be written to a stream although its memory is used again when the next is asked for. Streams hold short
 * chunks back and ask for more: such a one is copied. A longer one has been written by then.
 */
export function lastingChunk(chunk: Buffer): Buffer {
  return chunk.length < heldBytes ? Buffer.from(chunk) : chunk;
}

/** The same of each chunk. */
export async function* lastingChunks(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield lastingChunk(chunk);
}

/**
 * The first bytes, to look at, and the whole with them.
 * @param isEnough asked with what has come; the head is shorter when the whole is, and longer as its chunks are
 * @throws what the chunks throw
 */
export async function withHead(
  chunks: AsyncIterable<Buffer>,
  isEnough: (head: Buffer) => boolean,
): Promise<{ readonly head: Buffer; readonly all: AsyncIterable<Buffer> }> {
  const source = chunks[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (!isEnough(head)) {
    const next = await source.next();
    if (next.done === true) break;
    // Copied: the chunk may be valid until the next is asked for.
    head = Buffer.concat([head, next.value]);
  }
  const all = async function* (): AsyncGenerator<Buffer> {
    try {
      if (head.length > 0) yield head;
      for (let next = await source.next(); next.done !== true; next = await source.next()) yield next.value;
    } finally {
      await source.return?.();
    }
  };
  return { head, all: all() };
}

/**
 * Gives a chunk's memory back at once, where it is the chunk's alone; nobody may use the chunk afterwards. The garbage
 * collector comes for each 20 MB that Node has allocated outside its heap: dozens of times for one image.
 */
export function giveBack(chunk: Buffer): void {
  const { buffer, length } = chunk;
  if (length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
