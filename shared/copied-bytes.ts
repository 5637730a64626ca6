/** All bytes of some small chunks, each of which may be valid until the next is asked for only. */
export async function copiedBytes(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const copies: Buffer[] = [];
  for await (const chunk of chunks) copies.push(Buffer.from(chunk));
  return Buffer.concat(copies);
}
