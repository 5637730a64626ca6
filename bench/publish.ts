import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { link, type LinkOptions, portions } from '../__tests__/fakes/artifact-service/link.ts';
import { startDockerEngine } from '../dev/docker-engine.ts';
import { startRegistry } from '../dev/docker-registry.ts';
import { writeLargeContext } from '../dev/test-images.ts';
import { pushBase } from './base-image.ts';
import { step } from './contenders.ts';
import { median } from './measured.ts';
import { sh, startService } from './world.ts';

// publish-image of 1 GB to a registry that has the base, artifact and registry behind a link of 100 MB/s each.
// `node dev/run.mjs bench/publish.ts`.

const [megabytes, rounds] = [1000, 5];
const limits = { bytesPerSecond: 100e6, bytesPerSecondPerConnection: 60e6, latencyMs: 10 };

const folder = mkdtempSync(join(tmpdir(), 'bench-publish-'));
const registry = await startRegistry();
const engine = await startDockerEngine({ store: 'containerd' });
const service = await startService(limits);
const way = await slowWayTo(registry.address, limits);

const arena = { service, engine };

interface Sample {
  readonly seconds: number;
  readonly pushed: number;
  readonly peakMemoryKb: number;
}

try {
  const base = await pushBase(registry.address, megabytes, folder);
  const context = join(folder, 'context');
  await writeLargeContext(context, { megabytes, smallFiles: megabytes * 20, base });
  await step('export-image', arena, {
    context,
    network: 'host',
    'cache-from': '',
    tarball: join(folder, 'charon.tar'),
  });
  const samples: Sample[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const repository = `org/charon-${String(round)}`;
    await sh(
      engine.env,
      'docker',
      ...['buildx', 'imagetools', 'create', '-t', `${registry.address}/${repository}:base`, base],
    );
    const began = performance.now();
    const { outputs, peakMemoryKb } = await step('publish-image', arena, {
      tags: `${way.address}/${repository}:latest`,
    });
    const seconds = (performance.now() - began) / 1000;
    samples.push({ seconds, pushed: Number(outputs['pushed-bytes']), peakMemoryKb });
    console.log(samples.at(-1));
  }
  const seconds = median(samples.map((sample) => sample.seconds));
  const pushed = median(samples.map((sample) => sample.pushed));
  const alone = pushed / limits.bytesPerSecond;
  const table = [
    `An image of ${String(megabytes)} MB whose base the registry has, ${String(rounds)} rounds, 100 MB/s in all, 60 MB/s a connection, ${new Date().toISOString().slice(0, 10)}:`,
    '',
    '| Published in | Sent | The link’s time for that | Part of it | Peak memory |',
    '| --- | --- | --- | --- | --- |',
    `| ${seconds.toFixed(1)} s | ${(pushed / 1e6).toFixed(0)} MB | ${alone.toFixed(1)} s | ${(seconds / alone).toFixed(2)} | ${(Math.max(...samples.map(({ peakMemoryKb }) => peakMemoryKb)) / 1000).toFixed(0)} MB |`,
  ].join('\n');
  writeFileSync(fileURLToPath(new URL('results/publish.md', import.meta.url)), `${table}\n`);
  console.log(table);
} finally {
  way.stop();
  await service.stop();
  await engine.stop();
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}

/** The same registry, as far away as the artifacts are. */
async function slowWayTo(address: string, options: LinkOptions): Promise<{ readonly address: string; stop(): void }> {
  const up = link(options);
  const [host = '', port = ''] = address.split(':');
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(Number(port), host);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    far.pipe(near);
    // A connection that ends in the middle has said so by its event.
    send(near, far, up).catch(() => far.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const at = server.address();
  return {
    address: `127.0.0.1:${String(typeof at === 'object' && at !== null ? at.port : 0)}`,
    stop: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function send(near: Socket, far: Socket, way: ReturnType<typeof link>): Promise<void> {
  const chunks: AsyncIterable<Buffer> = near;
  for await (const chunk of chunks) {
    for (const portion of portions(chunk, way.limited)) {
      await way.pass(near, portion.length);
      if (!far.write(portion)) await once(far, 'drain');
    }
  }
  far.end();
}
