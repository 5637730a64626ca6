import { createHash, randomBytes, randomInt } from 'node:crypto';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import {
  copiedBytes,
  countedChunks,
  type LentChunk,
  type LentChunks,
  streamableChunks,
  viewOf,
  withHead,
} from '../../shared/bytes/chunks.ts';
import { decompress } from '../../shared/tar/compression.ts';
import { imagesIn } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';
import { makeImage, podmanTarball, savedTarball } from '../fixtures/image.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';

/** Yields the bytes in pieces of random sizes, all in the same memory, with the type of lent chunks. */
async function* lent(bytes: Buffer, most: number): AsyncGenerator<LentChunk> {
  const memory = Buffer.alloc(most);
  for (let at = 0; at < bytes.length;) {
    memory.fill(0xee);
    const length = bytes.copy(memory, 0, at, at + randomInt(1, most + 1));
    await Promise.resolve();
    yield memory.subarray(0, length);
    at += length;
  }
}

describe('the compiler', () => {
  const chunks = (): LentChunks => lent(Buffer.from('abc'), 2);

  test('the compiler refuses a lent chunk where bytes may be kept, and accepts a kept chunk where a lent chunk is sufficient', async () => {
    const held: Buffer[] = [];
    for await (const chunk of chunks()) {
      // @ts-expect-error -- the type prevents this: the bytes would be overwritten
      held.push(chunk);
      // @ts-expect-error -- a lent chunk may not be joined later
      Buffer.concat([chunk]);
      // @ts-expect-error -- a lent chunk may not be a part
      held.push(chunk.subarray(1));
    }
    // @ts-expect-error -- a decoder keeps its input
    decompress(chunks(), 'gzip');
    // @ts-expect-error -- a counted chunk is still lent
    const counted: AsyncIterable<Buffer> = countedChunks(chunks(), () => undefined);
    expect(counted).toBeDefined();

    const kept: AsyncIterable<Buffer> = Readable.from([Buffer.from('kept')]);
    const lentToo: LentChunks = kept;
    expect((await copiedBytes(lentToo)).toString()).toBe('kept');
    // A stream receives copies, which are kept long enough.
    expect((await copiedBytes(decompress(streamableChunks(lent(gzipSync('abc'), 3)), 'gzip'))).toString()).toBe('abc');
  });
});

test('copies equal the chunks that arrived, even after the memory is reused', async () => {
  const bytes = randomBytes(100_000);
  // `equals`, because `toEqual` compares buffers byte by byte, which takes a second.
  expect((await copiedBytes(lent(bytes, 999))).equals(bytes)).toBe(true);
  const { head, all } = await withHead(lent(bytes, 999), 2001);
  expect(head.length).toBeGreaterThan(2000);
  expect(bytes.subarray(0, head.length).equals(head)).toBe(true);
  expect((await copiedBytes(all)).equals(bytes)).toBe(true);
  const streamed: Buffer[] = [];
  for await (const chunk of streamableChunks(inReusedMemory(bytes, 5000))) streamed.push(chunk);
  expect(Buffer.concat(streamed).equals(bytes)).toBe(true);
});

test('a view shares its bytes with the chunk for as long as the chunk is lent', async () => {
  const bytes = randomBytes(10_000);
  const hash = createHash('sha256');
  for await (const chunk of lent(bytes, 77)) hash.update(viewOf(chunk));
  expect(hash.digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'));
});

test.each([
  ['docker save', savedTarball],
  ['another tool, with gzip layers that are unpacked to compute their diff IDs', podmanTarball],
] as const)('a tarball of %s has the same digests for any chunk sizes and any memory', async (_, save) => {
  const image = makeImage({ layers: 3, layerBytes: 70_000, labels: { a: 'b' } });
  const tarball = save(image, ['charon:local']);
  for (let run = 0; run < 20; run += 1) {
    const most = [512, 5000, 70_000, 300_000][run % 4] ?? 1;
    const { images } = imagesIn(await seeTarball(lent(tarball, most)));
    expect(images.map(({ configDigest, layers }) => [configDigest, layers.map(({ digest }) => digest)])).toEqual([
      [image.configDigest, image.layerDigests],
    ]);
  }
});
