import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DockerEngine, startDockerEngine } from '../dev/docker-engine.ts';
import { writeLargeContext } from '../dev/test-images.ts';
import { digestOf, hexOf } from '../shared/image/digest.ts';
import { type Descriptor, formatManifest, type ImageContents } from '../shared/image/manifest.ts';
import { parsePlatform } from '../shared/image/platform.ts';
import { parseTaggedReference } from '../shared/image/reference.ts';
import { blobPath, readOciLayout } from '../shared/layout/read-layout.ts';
import { endOfArchive, tarHeader, tarPadding } from '../shared/tar/header.ts';
import { smallEntries } from '../shared/tar/tarball-writer.ts';
import { emptyEngine } from './clean-slate.ts';
import { median } from './results.ts';
import { seconds } from './tables.ts';
import { sh } from './world.ts';

// An experiment: does it pay to load an image layer by layer, as growing prefixes under temporary tags, while later layers
// still download? The link is a clock: a byte can be used when its time has come. docs/decisions.md has the outcome.
//   node dev/run.mjs bench/prefixes.ts [MB] [rounds]

const [megabytes = 1000, rounds = 5] = process.argv.slice(2).map(Number);
const bytesPerMs = 100e3;
const folder = mkdtempSync(join(tmpdir(), 'prefixes-'));

interface Feed {
  readonly head: readonly (readonly [string, Buffer])[];
  readonly layers: readonly Descriptor[];
}

/** Feeds one tar to `docker load`; a layer's bytes come when the link has brought them. */
async function load(
  engine: DockerEngine,
  layout: string,
  feed: Feed,
  arrival: (sent: number) => Promise<void>,
): Promise<void> {
  const child = spawn('docker', ['load', '-q'], {
    env: { ...process.env, ...engine.env },
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const write = async (bytes: Buffer): Promise<void> => {
    if (!child.stdin.write(bytes)) await once(child.stdin, 'drain');
  };
  for (const [name, bytes] of feed.head)
    await write(Buffer.concat([tarHeader(name, bytes.length), bytes, Buffer.alloc(tarPadding(bytes.length))]));
  for (const { digest, size } of feed.layers) {
    await write(tarHeader(`blobs/sha256/${hexOf(digest)}`, size));
    const chunks: AsyncIterable<Buffer> = createReadStream(blobPath(layout, digest), { highWaterMark: 1 << 20 });
    for await (const chunk of chunks) {
      await arrival(chunk.length);
      await write(chunk);
    }
    await write(Buffer.alloc(tarPadding(size)));
  }
  child.stdin.end(endOfArchive);
  await once(child, 'exit');
  if (child.exitCode !== 0) throw new Error(`docker load exited with ${String(child.exitCode)}`);
}

function headOf(image: ImageContents, reference: string): Feed['head'] {
  return [...smallEntries([{ image, references: [parseTaggedReference(reference)] }])];
}

/** The image of the first `count` layers. */
function prefixOf(image: ImageContents, count: number): ImageContents {
  const { os, architecture } = image.config.platform;
  const rootfs = { type: 'layers', diff_ids: image.config.diffIds.slice(0, count) };
  const configBytes = Buffer.from(JSON.stringify({ os, architecture, config: {}, rootfs }));
  const descriptor = { mediaType: '', digest: digestOf(configBytes), size: configBytes.length, annotations: {} };
  const layers = image.layers.slice(0, count);
  return { ...image, configBytes, configDigest: descriptor.digest, layers, ...formatManifest(descriptor, layers) };
}

function link(): (bytes: number) => Promise<void> {
  const began = performance.now();
  let sent = 0;
  return async (bytes) => {
    sent += bytes;
    const wait = began + sent / bytesPerMs - performance.now();
    if (wait > 1) await sleep(wait);
  };
}

const ways = {
  'one stream': async (engine: DockerEngine, layout: string, image: ImageContents) => {
    await load(engine, layout, { head: headOf(image, 'charon:local'), layers: image.layers }, link());
  },
  'growing prefixes': async (engine: DockerEngine, layout: string, image: ImageContents) => {
    const arrival = link();
    const tags: string[] = [];
    for (let count = 1; count <= image.layers.length; count += 1) {
      const whole = count === image.layers.length;
      const tag = whole ? 'charon:local' : `charon-prefix:${String(count)}`;
      const part = whole ? image : prefixOf(image, count);
      // What the link brings during a load is there afterwards: the clock doesn't stop, as if it were kept on disk for nothing.
      await load(engine, layout, { head: headOf(part, tag), layers: image.layers.slice(count - 1, count) }, arrival);
      if (!whole) tags.push(tag);
    }
    await sh(engine.env, 'docker', 'image', 'rm', ...tags);
  },
} as const;

try {
  const context = join(folder, 'context');
  await writeLargeContext(context, { megabytes, smallFiles: megabytes * 20 });
  const layout = join(folder, 'layout');
  const builder = await startDockerEngine({ store: 'containerd' });
  const output = `type=oci,tar=false,compression=zstd,compression-level=1,dest=${layout}`;
  builder.docker('buildx', 'build', '--network=host', '--provenance=false', '--output', output, context);
  await builder.stop();
  await readFile(join(layout, 'index.json'));
  const image = await readOciLayout(layout, parsePlatform('linux/amd64'));
  for (const store of ['classic', 'containerd'] as const) {
    const engine = await startDockerEngine({ store });
    const times = new Map<string, number[]>(Object.keys(ways).map((name) => [name, []]));
    for (let round = 0; round < rounds; round += 1) {
      const turns = Object.entries(ways);
      for (const [name, way] of round % 2 === 0 ? turns : turns.reverse()) {
        await emptyEngine(engine);
        const began = performance.now();
        await way(engine, layout, image);
        times.get(name)?.push(performance.now() - began);
        execFileSync('docker', ['create', '--network=none', 'charon:local'], {
          env: { ...process.env, ...engine.env },
          stdio: 'ignore',
        });
        await sh(engine.env, 'docker', 'container', 'prune', '-f');
      }
    }
    for (const [name, all] of times)
      console.log(`${store}: ${name}: ${seconds(median(all))} s (${all.map(seconds).join(', ')})`);
    await engine.stop();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
