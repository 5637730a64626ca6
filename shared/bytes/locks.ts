import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
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
