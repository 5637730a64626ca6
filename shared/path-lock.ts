import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { basename, dirname } from 'node:path';
import { systemCodeOf } from './errors.ts';

/**
 * Takes a path for this process, as far as processes of this project on this host are concerned: two jobs of self-hosted
 * runners may write one file. The lock is a socket in Linux' abstract namespace (unix(7)): it is gone with the
 * process, however that ends, and leaves no file behind. Elsewhere, and between containers, nothing is locked.
 * @param path of a file whose folder exists
 * @returns what gives it back, or undefined when another process has it
 */
export async function lockPath(path: string): Promise<AsyncDisposable | undefined> {
  const free = { [Symbol.asyncDispose]: () => Promise.resolve() };
  if (process.platform !== 'linux') return free;
  // Containers can share the network, and thereby the namespace, but not the folder.
  const folder = await stat(dirname(path));
  const key = `${String(folder.dev)}:${String(folder.ino)}/${basename(path)}`;
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
