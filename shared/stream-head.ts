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
