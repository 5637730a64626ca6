import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { copiedBytes, type LentChunks, viewOf } from '../../shared/bytes/chunks.ts';
import { fanOut } from '../../shared/bytes/fan-out.ts';

/** Yields chunks that share one piece of memory, like the chunks of a file. */
async function* lent(count: number, onAsked: (at: number) => void = () => undefined): AsyncGenerator<Buffer> {
  const memory = Buffer.alloc(4);
  for (let at = 0; at < count; at += 1) {
    await Promise.resolve();
    onAsked(at);
    memory.writeUInt32BE(at);
    yield memory;
  }
}

const numbers = (bytes: Buffer): readonly number[] =>
  Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readUInt32BE(4 * at));
const all = async (chunks: LentChunks): Promise<readonly number[]> => numbers(await copiedBytes(chunks));

test('every consumer receives every chunk, although the memory is reused', async () => {
  const slow = async (chunks: LentChunks): Promise<readonly number[]> => {
    const seen: number[] = [];
    for await (const chunk of chunks) {
      await sleep(1);
      seen.push(viewOf(chunk).readUInt32BE(0));
    }
    return seen;
  };
  const expected = [...Array(20).keys()];
  expect(await fanOut(lent(20), [all, slow, all])).toEqual([expected, expected, expected]);
});

test('the slowest consumer sets the pace: no chunk is requested before that consumer requests it', async () => {
  let [asked, done] = [0, 0];
  const slow = async (chunks: LentChunks): Promise<readonly number[]> => {
    for await (const chunk of chunks) {
      expect(chunk).toHaveLength(4);
      await sleep(2);
      expect(asked - done).toBeLessThanOrEqual(1);
      done += 1;
    }
    return [];
  };
  await fanOut(
    lent(20, () => (asked += 1)),
    [all, slow],
  );
  expect([asked, done]).toEqual([20, 20]);
});

test('when one consumer fails, the others end with its error, all are awaited, and no more chunks are requested', async () => {
  let [asked, ended] = [0, ''];
  const other = async (chunks: LentChunks): Promise<void> => {
    await all(chunks).catch(async (error: unknown) => {
      await sleep(5);
      ended = String(error);
      throw error;
    });
  };
  const failing = async (chunks: LentChunks): Promise<void> => {
    for await (const chunk of chunks) if (viewOf(chunk).readUInt32BE(0) === 3) throw new Error('disk full');
  };
  const work = fanOut(
    lent(1000, () => (asked += 1)),
    [other, failing],
  );
  await expect(work).rejects.toThrow('disk full');
  expect(ended).toBe('Error: disk full');
  expect(asked).toBeLessThan(7);
});

test('when one consumer fails while another is stuck, the error is thrown immediately', async () => {
  const controller = new AbortController();
  const still = async (chunks: LentChunks): Promise<void> => {
    for await (const chunk of chunks) await sleep(60_000, chunk.length, { signal: controller.signal });
  };
  const failing = async (): Promise<void> => {
    await sleep(10);
    setTimeout(() => {
      controller.abort();
    }, 10);
    throw new Error('gone');
  };
  await expect(fanOut(lent(10), [still, failing])).rejects.toThrow('gone');
});

test('when the chunks fail, every consumer fails with that error', async () => {
  const broken = async function* (): AsyncGenerator<Buffer> {
    yield* lent(2);
    throw new Error('cut');
  };
  const seen: string[] = [];
  const taker = async (chunks: LentChunks): Promise<void> => {
    await all(chunks).catch((error: unknown) => {
      seen.push(String(error));
      throw error;
    });
  };
  await expect(fanOut(broken(), [taker, taker])).rejects.toThrow('cut');
  expect(seen).toEqual(['Error: cut', 'Error: cut']);
});

test('a consumer that ends early doesn’t hold up the others, and without consumers all chunks are read', async () => {
  const first = async (chunks: LentChunks): Promise<readonly number[]> => {
    for await (const chunk of chunks) return [viewOf(chunk).readUInt32BE(0)];
    return [];
  };
  expect(await fanOut(lent(5), [first, all])).toEqual([[0], [0, 1, 2, 3, 4]]);
  let asked = 0;
  await fanOut(
    lent(5, () => (asked += 1)),
    [],
  );
  expect(asked).toBe(5);
});
