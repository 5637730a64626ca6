import { describe, expect, test } from '@jest/globals';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { Checksum, checksummed, drain, heldBack, verifiedChunks } from '../../shared/bytes/verified.ts';
import { digestOf } from '../../shared/image/digest.ts';

const bytes = Buffer.from('one, two, three');
async function* chunks(taken: number[] = []): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 5) {
    taken.push(at);
    yield await Promise.resolve(bytes.subarray(at, at + 5));
  }
}
const refuse = ({ size, digest }: { readonly size: number; readonly digest: string | undefined }): Error =>
  new Error(`${String(size)} bytes, ${digest ?? 'not hashed'}`);
const size = bytes.length;
const digest = digestOf(bytes);

describe('verified chunks', () => {
  test.each([{ size, digest }, { size }, { digest }, { size, digest: undefined }, {}])(
    'with %j are the same chunks',
    async (expected) => {
      expect((await copiedBytes(verifiedChunks(chunks(), expected, refuse))).toString()).toBe('one, two, three');
    },
  );

  test.each([
    ['too few', { size: 16, digest }, `15 bytes, ${digest}`],
    ['too few, without a digest', { size: 16 }, '15 bytes, not hashed'],
    ['other bytes', { size, digest: digestOf('x') }, `15 bytes, ${digest}`],
  ])('%s are refused at the end', async (_what, expected, message) => {
    await expect(copiedBytes(verifiedChunks(chunks(), expected, refuse))).rejects.toThrow(message);
  });

  test('no bytes beyond the size are passed on or read', async () => {
    const taken: number[] = [];
    const passed: Buffer[] = [];
    const read = async (): Promise<void> => {
      for await (const chunk of verifiedChunks(chunks(taken), { size: 6 }, refuse)) passed.push(chunk);
    };
    await expect(read()).rejects.toThrow('10 bytes, not hashed');
    expect([taken, Buffer.concat(passed).toString()]).toEqual([[0, 5], 'one, ']);
  });

  test('chunks with a held-back end are complete only after verification', async () => {
    const passed: Buffer[] = [];
    const read = async (): Promise<void> => {
      const verified = verifiedChunks(chunks(), { digest: digestOf('x') }, refuse);
      for await (const chunk of heldBack(verified, 1)) passed.push(chunk);
    };
    await expect(read()).rejects.toThrow('15 bytes');
    expect(Buffer.concat(passed).toString()).toBe('one, two, ');
  });
});

test('a checksum covers all chunks, including those that the consumer didn’t read', async () => {
  const checksum = new Checksum();
  const passing = checksummed(chunks(), checksum);
  for await (const chunk of passing) if (chunk.length > 0) break;
  await drain(passing);
  expect(checksum.found()).toEqual({ size, digest });
});
