/**
 * The first bytes, to look at, and the whole with them.
 * @param bytes how many are wanted; there are fewer when the whole is shorter, and more when its chunks are longer
 * @throws what the chunks throw
 */
export async function withHead(
  chunks: AsyncIterable<Buffer>,
  bytes: number,
): Promise<{ readonly head: Buffer; readonly all: AsyncIterable<Buffer> }> {
  const source = chunks[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < bytes) {
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
