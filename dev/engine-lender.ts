import { once } from 'node:events';
import { createServer } from 'node:http';
import { messageOf } from '../shared/base/errors.ts';
import {
  type DockerEngine,
  type DockerVersion,
  dockerVersions,
  type ImageStore,
  startDockerEngine,
} from './docker-engine.ts';

// Starts engines once for all suites of a jest worker, because a start takes seconds. jest's main process owns them: a worker is
// killed half a second after its last suite, which is too little time to stop an engine.

/** Lends engines to workers and starts them on demand. `close` stops them all. */
export async function lendEngines(): Promise<{ readonly url: string; close(): Promise<void> }> {
  const engines = new Map<string, Promise<DockerEngine>>();
  const server = createServer((request, response) => {
    const [, worker = '', version = '', store = ''] = (request.url ?? '').split('/');
    const key = [worker, version, store].join('/');
    const engine = engines.get(key) ?? start(version, store);
    engines.set(key, engine);
    engine.then(
      (started) => response.end(started.root),
      (error: unknown) => response.writeHead(500).end(messageOf(error)),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('unreachable: it listens on a port');
  return {
    url: `http://127.0.0.1:${String(address.port)}`,
    close: async () => {
      server.close();
      server.closeAllConnections();
      const started = await Promise.allSettled(engines.values());
      await Promise.all(started.map((one) => (one.status === 'fulfilled' ? one.value.stop() : Promise.resolve())));
    },
  };
}

async function start(wanted: string, store: string): Promise<DockerEngine> {
  const version = dockerVersions.find((known) => known === wanted);
  if (version === undefined || (store !== 'classic' && store !== 'containerd'))
    throw new Error(`Unknown engine: Docker ${wanted} with a ${store} store.`);
  return startDockerEngine({ version, store, name: `lent-${store}` });
}

/**
 * Borrows the engine that all suites of this worker share, one after another.
 * @returns the engine's folder
 */
export async function borrowEngine(version: DockerVersion, store: ImageStore): Promise<string> {
  const { ENGINE_LENDER: lender, JEST_WORKER_ID: worker = '0' } = process.env;
  if (lender === undefined) throw new Error('ENGINE_LENDER is not set: see globalSetup in jest.config.mjs.');
  const answer = await fetch(`${lender}/${worker}/${version}/${store}`);
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return text;
}
