import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';
import { awaitKey, holderOf, type KeyWaits, lockKey } from '../../shared/bytes/locks.ts';
import { socketNameOf } from '../fixtures/lock-socket.ts';

// Any process on the machine can bind the name of a lock.

const other = 65534;
const asRoot = process.getuid?.() === 0 ? test : test.skip;
const isRoot = process.getuid?.() === 0;

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Starts a process that holds a key, with or without the response of a step. */
async function hold(key: string, greeting: string, uid?: number): Promise<ChildProcess> {
  const script = `require('node:net').createServer((s) => s.end(${JSON.stringify(greeting)})).listen(${JSON.stringify(`\0${socketNameOf(key)}`)}, () => console.log('held'))`;
  const child = spawn(process.execPath, ['--eval', script], {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}

interface Waited {
  readonly lock: AsyncDisposable | undefined;
  readonly waitedFor: readonly string[];
  readonly gaveUpOn: readonly string[];
}

async function waitFor(key: string, waits: KeyWaits, signal = AbortSignal.timeout(30_000)): Promise<Waited> {
  const [waitedFor, gaveUpOn]: [string[], string[]] = [[], []];
  const lock = await awaitKey(key, {
    ...{ signal, waits },
    onWait: (holder) => void waitedFor.push(holder),
    onGiveUp: (holder) => void gaveUpOn.push(holder),
  });
  return { lock, waitedFor, gaveUpOn };
}

const newKey = (): string => `test ${randomBytes(8).toString('hex')}`;
const never = Number.POSITIVE_INFINITY;

describe('a lock that is held', () => {
  test('a lock that a step of this user holds is awaited until it is released, and the process is named', async () => {
    const key = newKey();
    const held = await lockKey(key, 'taken');
    const waiting = waitFor(key, { 'this-user': never, 'other-user': 0, stranger: 0 });
    expect(await lockKey(key, 'free')).toBeUndefined();
    expect(await holderOf(key)).toContain(`process ${String(process.pid)} of uid ${String(process.getuid?.())} (`);
    await held?.[Symbol.asyncDispose]();
    const { lock, gaveUpOn } = await waiting;
    expect([lock === undefined, gaveUpOn]).toEqual([false, []]);
    await lock?.[Symbol.asyncDispose]();
  });

  test('a lock that a process other than a step holds is not awaited', async () => {
    const key = newKey();
    const child = await hold(key, 'hello');
    const { lock, waitedFor, gaveUpOn } = await waitFor(key, { 'this-user': never, 'other-user': never, stranger: 0 });
    const words: unknown = expect.stringContaining(`process ${String(child.pid)} of uid`);
    expect([lock, waitedFor, gaveUpOn]).toEqual([undefined, [words], [words]]);
  });

  test('a lock whose holder never responds is not awaited either', async () => {
    const key = newKey();
    const child = await hold(key, '');
    child.kill('SIGSTOP');
    const { gaveUpOn } = await waitFor(key, { 'this-user': never, 'other-user': never, stranger: 0 });
    expect(gaveUpOn).toHaveLength(1);
  });

  asRoot('a lock that a step of another user holds is awaited for a shorter time', async () => {
    const key = newKey();
    const child = await hold(key, 'image-handover\n', other);
    const { gaveUpOn } = await waitFor(key, { 'this-user': never, 'other-user': 0, stranger: never });
    expect(gaveUpOn).toEqual([expect.stringContaining(`process ${String(child.pid)} of uid ${String(other)} (`)]);
  });

  test.each([
    [{ stranger: 0, 'other-user': 0, 'this-user': 0 }, undefined],
    [{ stranger: 0, 'other-user': 0, 'this-user': never }, 'AbortError'],
  ] as const)('a wait for a lock has the limits %j, and a cancel ends it immediately', async (waits, error) => {
    const key = newKey();
    await using held = await lockKey(key, 'taken');
    expect(held).toBeDefined();
    const waiting = waitFor(key, waits, AbortSignal.timeout(300));
    if (error === undefined) expect((await waiting).gaveUpOn).toHaveLength(1);
    else await expect(waiting).rejects.toMatchObject({ name: error });
  });

  asRoot('a lock whose holder can’t be seen counts as held by another user', async () => {
    const key = newKey();
    await using held = await lockKey(key, 'taken');
    expect(held).toBeDefined();
    const script = `
      import { awaitKey } from '${projectRoot}shared/bytes/locks.ts';
      await awaitKey('${key}', {
        signal: AbortSignal.timeout(30_000),
        waits: { 'this-user': Infinity, 'other-user': 0, stranger: Infinity },
        onWait: () => undefined,
        onGiveUp: (holder) => console.log(holder),
      });`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'inherit'],
      ...(isRoot ? { uid: other, gid: other } : {}),
    });
    const [line]: readonly unknown[] = await once(child.stdout, 'data');
    expect(String(line)).toBe('a process of another user or container\n');
    const { gaveUpOn } = await waitFor(key, { 'this-user': 0, 'other-user': never, stranger: never });
    expect(gaveUpOn).toHaveLength(1);
  });
});
