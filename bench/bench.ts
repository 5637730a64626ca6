import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LinkOptions } from '../__tests__/fakes/artifact-service/link.ts';
import { type DockerEngine, type ImageStore, startDockerEngine } from '../dev/docker-engine.ts';
import { startRegistry } from '../dev/docker-registry.ts';
import { writeLargeContext } from '../dev/test-images.ts';
import { type Arena, consumers, type Contender, emptyEngine, producers } from './contenders.ts';
import { type Race, racePlot, raceTable, type Series } from './report.ts';
import { type BenchService, startService } from './world.ts';

// npm run bench: everything side by side in one run, the contenders taking turns, on real engines.
//   --quick        one image of 0.25 GB, the containerd store, the unlimited link (three minutes)
//   --size 1000    the image's size in MB, unpacked        --rounds 5
//   --stores classic,containerd                            --links unlimited,limited

const option = (name: string, otherwise: string): string => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : (process.argv[at + 1] ?? otherwise);
};
const quick = process.argv.includes('--quick');
const megabytes = Number(option('size', quick ? '250' : '1000'));
const rounds = Number(option('rounds', '5'));
const stores = option('stores', quick ? 'containerd' : 'containerd,classic').split(',');
const links = option('links', quick ? 'unlimited' : 'unlimited,limited').split(',');
const limited: LinkOptions = { bytesPerSecond: 100e6, bytesPerSecondPerConnection: 60e6, latencyMs: 10 };

const folder = mkdtempSync(join(tmpdir(), 'bench-'));
const races: Race[] = [];
const registry = await startRegistry();
try {
  const context = join(folder, 'context');
  await writeLargeContext(context, { megabytes, smallFiles: megabytes * 20 });
  for (const store of stores.filter((name): name is ImageStore => name === 'classic' || name === 'containerd')) {
    await benchStore(store, context);
  }
  save();
} finally {
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}

async function benchStore(store: ImageStore, context: string): Promise<void> {
  const [builder, consumer] = await Promise.all([startDockerEngine({ store }), startDockerEngine({ store })]);
  try {
    for (const link of links) {
      const service = await startService(link === 'limited' ? limited : {});
      await benchLink(store, link, context, { builder, consumer, service });
      await service.stop();
    }
  } finally {
    await Promise.all([builder.stop(), consumer.stop()]);
  }
}

interface Parts {
  readonly builder: DockerEngine;
  readonly consumer: DockerEngine;
  readonly service: BenchService;
}

async function benchLink(store: ImageStore, link: string, context: string, parts: Parts): Promise<void> {
  const { builder, consumer, service } = parts;
  const title = (what: string): string => `${what}, ${String(megabytes)} MB image, ${store} store, ${link} link`;
  const shared = { service, registry: registry.address, context, folder };
  const producing: Arena = { ...shared, engine: builder };
  // Warm: the build is cached, the registry has the layers, and round 0's artifacts are there for the consumers.
  for (const { run } of producers) await run(producing, '0');
  console.log(`Tarball: ${String(Math.round(statSync(join(folder, 'ours.tar')).size / 1e6))} MB`);
  races.push(await race(title('Producer'), producers, producing, () => Promise.resolve()));
  races.push(await race(title('Consumer'), consumers, { ...shared, engine: consumer }, () => emptyEngine(consumer)));
}

async function race(
  title: string,
  contenders: readonly Contender[],
  arena: Arena,
  prepare: () => Promise<void>,
): Promise<Race> {
  const times = new Map(contenders.map(({ name }) => [name, noTimes()] as const));
  let peakMemoryKb = 0;
  for (let round = 1; round <= rounds; round += 1) {
    // Each round begins with another contender, so that none always runs behind the same one.
    const order = contenders
      .map((_, at) => contenders[(at + round) % contenders.length])
      .filter((item) => item !== undefined);
    for (const { name, run } of order) {
      await prepare();
      const began = performance.now();
      const memory = await run(arena, String(round));
      times.get(name)?.push(performance.now() - began);
      peakMemoryKb = Math.max(peakMemoryKb, memory ?? 0);
    }
  }
  const series: readonly Series[] = [...times].map(([name, all], at) => ({
    name,
    times: all,
    peakMemoryKb: at === 0 ? peakMemoryKb : 0,
  }));
  const result = { title, series };
  console.log(`\n${raceTable(result)}`);
  return result;
}

function save(): void {
  const results = fileURLToPath(new URL('results/', import.meta.url));
  const name = quick ? 'quick' : `${String(megabytes)}-mb`;
  const head = `${String(rounds)} rounds, side by side in one run; "ours as a part of it": smaller is better for us.`;
  writeFileSync(join(results, `${name}.md`), `${head}\n\n${races.map(raceTable).join('\n\n')}\n`);
  writeFileSync(join(results, `${name}.svg`), racePlot(races));
  console.log(`\nWritten to bench/results/${name}.md and .svg`);
}

function noTimes(): number[] {
  return [];
}
