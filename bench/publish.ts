import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
import { fetchBlob, fetchManifest } from './linked-registry.ts';
import { median } from './measured.ts';
import { sh, startService } from './world.ts';

// Publishes a 1 GB image to a registry that has its base. The artifact service and the registry are behind links of 100 MB/s. On
// one link, a connection can use all of it; on the other, at most 60 MB/s, as with a blob store.
// For comparison, a bare PUT sends the same bytes from memory. The rounds alternate. `node dev/run.mjs bench/publish.ts`.

const [megabytes, rounds] = [1000, 5];
const whole = { bytesPerSecond: 100e6, latencyMs: 10 };
const links = [
  { name: '100 MB/s', limits: whole },
  { name: '60 MB/s', limits: { ...whole, bytesPerSecondPerConnection: 60e6 } },
];

interface Sample {
  readonly seconds: number;
  /** Seconds of a bare PUT of the same blobs. */
  readonly bare: number;
  readonly pushed: number;
  readonly peakMemoryKb: number;
}

const barePush = fileURLToPath(new URL('bare-push.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'bench-publish-'));
const registry = await startRegistry();
const engine = await startDockerEngine({ store: 'containerd' });
const worlds = await Promise.all(
  links.map(async ({ name, limits }) => {
    const samples: Sample[] = [];
    return { name, samples, service: await startService(limits), proxy: await startProxy(registry.address, limits) };
  }),
);

try {
  const base = await pushBase(registry.address, megabytes, folder);
  const context = join(folder, 'context');
  await writeLargeContext(context, { megabytes, smallFiles: megabytes * 20, base });
  const build = { context, network: 'host', 'cache-from': '', tarball: join(folder, 'charon.tar') };
  for (const { service } of worlds) await step('export-image', { service, engine }, build);
  for (let round = 1; round <= rounds; round += 1) {
    for (const [position, { name, service, proxy, samples }] of worlds.entries()) {
      const repository = `org/charon-${String(position)}-${String(round)}`;
      await sh(
        engine.env,
        'docker',
        ...['buildx', 'imagetools', 'create', '-t', `${registry.address}/${repository}:base`, base],
      );
      const startedAt = performance.now();
      const tags = `${proxy.address}/${repository}:latest`;
      const { outputs, peakMemoryKb } = await step('publish-image', { service, engine }, { tags });
      const seconds = (performance.now() - startedAt) / 1000;
      const blobs = await missingBlobs(`http://${registry.address}/v2/${repository}`, join(folder, 'blobs'));
      const bareStartedAt = performance.now();
      await sh({}, process.execPath, barePush, `http://${proxy.address}/v2/bare/${repository}`, ...blobs);
      const bare = (performance.now() - bareStartedAt) / 1000;
      samples.push({ seconds, bare, pushed: Number(outputs['pushed-bytes']), peakMemoryKb });
      console.log(name, samples.at(-1));
    }
  }
  const table = [
    `A ${String(megabytes)} MB image with a base that the registry has, ${String(rounds)} rounds, 100 MB/s in total, ${new Date().toISOString().slice(0, 10)}:`,
    '',
    '| Speed per connection | Time to publish | Sent | Minimum time on the link | Ratio | Bare PUT of the same bytes | Ratio | Peak memory |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...worlds.map(({ name, samples }) => {
      const seconds = median(samples.map((sample) => sample.seconds));
      const pushed = median(samples.map((sample) => sample.pushed));
      const bare = median(samples.map((sample) => sample.bare));
      const alone = pushed / whole.bytesPerSecond;
      const memory = Math.max(...samples.map(({ peakMemoryKb }) => peakMemoryKb)) / 1000;
      return `| ${name} | ${seconds.toFixed(1)} s | ${(pushed / 1e6).toFixed(0)} MB | ${alone.toFixed(1)} s | ${(seconds / alone).toFixed(2)} | ${bare.toFixed(1)} s | ${(seconds / bare).toFixed(2)} | ${memory.toFixed(0)} MB |`;
    }),
  ].join('\n');
  writeFileSync(fileURLToPath(new URL('results/publish.md', import.meta.url)), `${table}\n`);
  console.log(table);
} finally {
  for (const { proxy, service } of worlds) {
    proxy.stop();
    await service.stop();
  }
  await engine.stop();
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}

/** Downloads the blobs of the tag `latest` that `base` doesn't have. Returns their files, named by digest. */
async function missingBlobs(repository: string, into: string): Promise<readonly string[]> {
  mkdirSync(into, { recursive: true });
  const [base, latest] = await Promise.all([fetchManifest(repository, 'base'), fetchManifest(repository, 'latest')]);
  const present = base.blobs.map(({ digest }) => digest);
  const missing = latest.blobs.map(({ digest }) => digest).filter((digest) => !present.includes(digest));
  return Promise.all(missing.map((digest) => fetchBlob(repository, digest, into)));
}

/** Starts a proxy that puts the registry behind a link. */
async function startProxy(address: string, options: LinkOptions): Promise<{ readonly address: string; stop(): void }> {
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
    // The connection's event reports an interruption.
    send(near, far, up).catch(() => far.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  return {
    address: `127.0.0.1:${String(typeof bound === 'object' && bound !== null ? bound.port : 0)}`,
    stop: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function send(near: Socket, far: Socket, uplink: ReturnType<typeof link>): Promise<void> {
  const chunks: AsyncIterable<Buffer> = near;
  for await (const chunk of chunks) {
    for (const portion of portions(chunk, uplink.limited)) {
      await uplink.pass(near, portion.length);
      if (!far.write(portion)) await once(far, 'drain');
    }
  }
  far.end();
}
