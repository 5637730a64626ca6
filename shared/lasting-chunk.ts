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
