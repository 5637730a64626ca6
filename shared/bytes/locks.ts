import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, readlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCodeOf } from '../base/errors.ts';

/**
 * Takes a key for this process, as far as processes of this project on this host are concerned. The lock is a socket in
 * Linux' abstract namespace (unix(7)): it is gone with the process, however that ends, and leaves no file behind. Elsewhere,
 * and between containers, nothing is locked.
 * @returns what gives it back, or undefined when another process has it
 */
export async function lockKey(key: string): Promise<AsyncDisposable | undefined> {
  const free = { [Symbol.asyncDispose]: () => Promise.resolve() };
  if (process.platform !== 'linux') return free;
  const server = createServer();
  server.listen(`\0image-handover-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`);
  try {
    await once(server, 'listening');
  } catch (error) {
    return systemCodeOf(error) === 'EADDRINUSE' ? undefined : free;
  }
  server.unref();
  return {
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
  };
}

/**
 * Takes a key as `lockKey` does, as soon as nobody has it.
 * @param onWait told once, when somebody has it
 * @throws AbortError when the signal is aborted
 */
export async function awaitKey(key: string, signal: AbortSignal, onWait: () => void): Promise<AsyncDisposable> {
  for (let tries = 0; ; tries += 1) {
    const lock = await lockKey(key);
    if (lock !== undefined) return lock;
    if (tries === 0) onWait();
    await sleep(100, undefined, { signal });
  }
}

/** A name that nobody else has, until it is disposed of. Whether its process still runs can be told by the name alone. */
export interface LivingName extends AsyncDisposable {
  readonly name: string;
}

/** What a living name looks like, as part of a regular expression. */
export const livingNamePattern = '[0-9a-f]{8}-[0-9a-f]{32}';

/** A new name: where a lock of it holds, and 128 random bits. */
export async function livingName(): Promise<LivingName> {
  const name = `${await lockScope()}-${randomBytes(16).toString('hex')}`;
  const lock = await lockKey(name);
  return { name, [Symbol.asyncDispose]: () => lock?.[Symbol.asyncDispose]() ?? Promise.resolve() };
}

/** Whether a living name's process is known to be gone, or to be done with it: false for one of another host, boot or container. */
export async function isDead(name: string): Promise<boolean> {
  if (process.platform !== 'linux' || !name.startsWith(`${await lockScope()}-`)) return false;
  const lock = await lockKey(name);
  await lock?.[Symbol.asyncDispose]();
  return lock !== undefined;
}

/** Names what a lock holds for: this boot and network namespace. */
async function lockScope(): Promise<string> {
  const parts = [
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => ''),
    readlink('/proc/self/ns/net').catch(() => ''),
  ];
  return createHash('sha256')
    .update((await Promise.all(parts)).join())
    .digest('hex')
    .slice(0, 8);
}
