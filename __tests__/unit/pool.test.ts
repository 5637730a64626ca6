import { describe, expect, test } from '@jest/globals';
import { inPool } from '../../shared/base/pool.ts';

async function* upTo(count: number, taken: number[] = [], fails = Infinity): AsyncGenerator<number> {
  for (let item = 0; item < count; item += 1) {
    if (item === fails) throw new Error('no more items');
    taken.push(item);
    yield await Promise.resolve(item);
  }
}

describe('a pool of workers', () => {
  test.each([1, 3, 20])('a pool does all the work, at most %i items at a time', async (most) => {
    const done: number[] = [];
    let [running, peak] = [0, 0];
    await inPool(upTo(10), most, async (item) => {
      running += 1;
      peak = Math.max(peak, running);
      await new Promise(setImmediate);
      running -= 1;
      done.push(item);
    });
    expect(done.sort((one, other) => one - other)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(peak).toBe(Math.min(most, 10));
  });

  test('a pool takes an item only when its work can start, and takes none after an error', async () => {
    const taken: number[] = [];
    const ended: number[] = [];
    const work = async (item: number, signal: AbortSignal): Promise<void> => {
      await new Promise(setImmediate);
      if (item === 1) throw new Error('broken');
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
      ended.push(item);
    };
    await expect(inPool(upTo(100, taken), 3, work)).rejects.toThrow('broken');
    expect(taken).toEqual([0, 1, 2]);
    // The others are cancelled and awaited.
    expect(ended.sort()).toEqual([0, 2]);
  });

  test('a pool throws an error of the items', async () => {
    const done: number[] = [];
    const work = (item: number): Promise<void> => Promise.resolve(void done.push(item));
    await expect(inPool(upTo(9, [], 2), 2, work)).rejects.toThrow('no more items');
    expect(done).toEqual([0, 1]);
  });
});
