import { randomUUID } from 'node:crypto';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { awaitKey, isDead, livingName, lockKey } from '../../shared/bytes/locks.ts';

const forever = new AbortController().signal;
const nothing = (): void => undefined;

test('property: processes that want the same key take turns, in any order of their starts and ends', () =>
  fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.integer({ min: 2, max: 4 }), async (turns, count) => {
      const key = randomUUID();
      let [holders, most, served] = [0, 0, 0];
      const taker = async (): Promise<void> => {
        await turns.schedule(Promise.resolve(), 'comes');
        await using lock = await awaitKey(key, { signal: forever, onWait: nothing, onGiveUp: nothing });
        expect(lock).toBeDefined();
        holders += 1;
        most = Math.max(most, holders);
        await turns.schedule(Promise.resolve(), 'finishes');
        holders -= 1;
        served += 1;
      };
      await turns.waitFor(Promise.all(Array.from({ length: count }, taker)));
      expect([most, served]).toEqual([1, count]);
    }),
    { numRuns: 10 },
  ));

test('a held key is refused, another key is not, and a released key is free', async () => {
  const [key, other] = [randomUUID(), randomUUID()];
  {
    await using held = await lockKey(key, 'taken');
    await using beside = await lockKey(other, 'taken');
    expect([held, beside]).not.toContain(undefined);
    expect(await lockKey(key, 'taken')).toBeUndefined();
  }
  await using again = await lockKey(key, 'taken');
  expect(again).toBeDefined();
});

test('a process that waits for a key reports this once, and stops waiting when it is cancelled', async () => {
  const key = randomUUID();
  await using held = await lockKey(key, 'taken');
  expect(held).toBeDefined();
  const cancel = new AbortController();
  let said = 0;
  const onWait = (): void => {
    said += 1;
    cancel.abort();
  };
  const waiting = awaitKey(key, { signal: cancel.signal, onWait, onGiveUp: nothing });
  await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  expect(said).toBe(1);
});

test('a name counts as dead only after its process has ended, and the name of another host never does', async () => {
  const living = await livingName();
  expect(await isDead(living.name)).toBe(false);
  await living[Symbol.asyncDispose]();
  expect(await isDead(living.name)).toBe(true);
  const [scope = '', random = ''] = living.name.split('-');
  const elsewhere = `${scope.replace(/^./, (digit) => (digit === '0' ? '1' : '0'))}-${random}`;
  expect(await isDead(elsewhere)).toBe(false);
});
