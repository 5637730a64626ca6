import { mkdtempSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DockerEngine, type ImageStore, startDockerEngine } from '../dev/docker-engine.ts';
import { startRegistry } from '../dev/docker-registry.ts';
import { writeLargeContext } from '../dev/test-images.ts';
import { buildWithoutCache, emptyEngine, removeOutputs } from './clean-slate.ts';
import {
  type Arena,
  cacheAndRebuild,
  compressions,
  type Contender,
  consumers,
  linkedPull,
  loopbackPull,
  outputsOf,
  producers,
  pushCache,
  rivalTrees,
  tarballOf,
  withoutOverlap,
} from './contenders.ts';
import { makeDisk } from './disk.ts';
import { footprint } from './footprint.ts';
import { pushBase } from './base-image.ts';
import { type LinkedRegistry, startLinkedRegistry } from './linked-registry.ts';
import type { Race } from './measured.ts';
import { inSlope } from './plots.ts';
import { race } from './race.ts';
import { roundByRound } from './tables.ts';
import { Results } from './results.ts';
import { sh, startService } from './world.ts';

// npm run bench: compares all contenders in one run, in turns, on real engines. Takes more than two hours.
// A run of some contenders keeps the earlier results of the others.
//   --quick                            one image of 0.25 GB, the containerd store, the unlimited link; a few minutes
//   --sizes 1000,250,4000              sizes of the unpacked images in MB
//   --stores classic,containerd        --links unlimited,limited        --rounds 5
//   --races producer,consumer,present,layers
//   --only 'ours|docs'                 only contenders with matching names; their results are written to limits.md
//   --builder containerd               the store of the building engine; default: that of the loading engine
//   --redraw                           measures nothing; generates the README's tables and the plots
//   --against DIR                      compares this project with one or more of its other built trees; only prints

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    sizes: { type: 'string' },
    stores: { type: 'string' },
    links: { type: 'string' },
    rounds: { type: 'string' },
    races: { type: 'string', default: 'producer,consumer,present,layers' },
    only: { type: 'string', default: '' },
    against: { type: 'string', multiple: true },
    builder: { type: 'string' },
    redraw: { type: 'boolean', default: false },
  },
});
const { quick, against } = values;
const sizes = (values.sizes ?? (quick ? '250' : against === undefined ? '1000,250,4000' : '1000'))
  .split(',')
  .map(Number);
const stores = (values.stores ?? (quick ? 'containerd' : 'containerd,classic')).split(',');
const links = (values.links ?? (quick ? 'unlimited' : 'unlimited,limited')).split(',');
const rivals = against === undefined ? undefined : rivalTrees(against);
const raced = values.races.split(',');
const races = rivals === undefined ? raced : raced.filter((name) => name === 'producer' || name === 'consumer');
const only = new RegExp(values.only);
const limited = { bytesPerSecond: 100e6, bytesPerSecondPerConnection: 60e6, latencyMs: 10 };

const folder = mkdtempSync(join(tmpdir(), 'bench-'));
// Results of a few contenders don't replace those of a complete race.
const results = new Results(quick ? 'quick' : values.only === '' ? 'full' : 'limits');
if (values.redraw) {
  results.draw();
  process.exit();
}
const registry = await startRegistry();
try {
  if (rivals === undefined) results.footprint(await footprint());
  for (const megabytes of sizes) await benchSize(megabytes);
} finally {
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}

async function benchSize(megabytes: number): Promise<void> {
  const context = join(folder, 'context');
  rmSync(context, { recursive: true, force: true });
  const base = await pushBase(registry.address, megabytes, folder);
  await writeLargeContext(context, { megabytes, smallFiles: megabytes * 20, base });
  for (const store of stores.filter((name): name is ImageStore => name === 'classic' || name === 'containerd')) {
    const disk = makeDisk();
    const [builder, consumer] = await Promise.all([
      startDockerEngine({ store: builderStoreOf(store) }),
      startDockerEngine({ store, folder: disk.folder }),
    ]);
    try {
      // The targets for the slow link are for this size.
      for (const link of megabytes === 1000 || sizes.length === 1 ? links : links.slice(0, 1)) {
        await benchLink(megabytes, link, context, builder, consumer);
      }
      if (megabytes === 250 && !quick && races.includes('layers'))
        for (const link of links) await benchCompressions(megabytes, link, context, builder, consumer);
    } finally {
      await Promise.all([builder.stop(), consumer.stop()]);
      disk.remove();
    }
  }
}

function builderStoreOf(store: ImageStore): ImageStore {
  return values.builder === 'classic' || values.builder === 'containerd' ? values.builder : store;
}

async function benchLink(
  megabytes: number,
  link: string,
  context: string,
  builder: DockerEngine,
  consumer: DockerEngine,
): Promise<void> {
  const limits = link === 'limited' ? limited : {};
  const service = await startService(limits);
  const shared = { service, registry: registry.address, context, folder };
  const [producing, consuming]: readonly [Arena, Arena] = [
    { ...shared, engine: builder },
    { ...shared, engine: consumer },
  ];
  // The largest image is only for the slope plot.
  const isLarge = megabytes > 2000;
  const inRace = ({ name }: Contender): boolean =>
    only.test(name) && (!isLarge || inSlope.test(name) || name === withoutOverlap);
  const { produce, consume } = rivals ?? { produce: producers.filter(inRace), consume: consumers.filter(inRace) };
  const rounds = Number(values.rounds ?? (isLarge && rivals === undefined ? 1 : 5));
  const about = { megabytes, store: consumer.store, link, rounds };
  // Warms up: afterwards, the build is cached, the registry has the layers, and consumers can load the artifacts of round 0.
  // Consumers need these artifacts even if `--only` excludes their producers.
  const warming = rivals?.produce ?? producers.filter(({ name }) => !isLarge || inSlope.test(name));
  removeOutputs(producing);
  for (const [position, { run }] of warming.entries()) {
    await run(producing, '0');
    // The first contender is this project.
    if (position === 0) renameSync(join(outputsOf(producing), 'ours.tar'), tarballOf(producing));
  }
  await service.keep();
  const tarball = statSync(tarballOf(producing)).size;
  const add = (result: Race): void => {
    if (rivals === undefined && values.builder === undefined) results.race(result);
    else console.log(`\n${roundByRound(result)}`);
  };
  const forget = (): Promise<void> => {
    removeOutputs(producing);
    return service.forget();
  };
  const empty = (): Promise<void> => {
    removeOutputs(consuming);
    return emptyEngine(consumer);
  };
  if (races.includes('producer')) add(await race({ ...about, what: 'Producer', tarball }, produce, producing, forget));
  // At least two rounds, so that the order alternates: at that size, the state of the disk matters.
  const loading = { ...about, rounds: Math.max(2, rounds), what: 'Consumer', tarball };
  if (races.includes('consumer')) {
    const overLink = consume.some(({ name }) => name === linkedPull || name === cacheAndRebuild);
    const rebuilds = consume.some(({ name }) => name === cacheAndRebuild);
    if (rebuilds) await pushCache(producing);
    const tags = ['local', ...(rebuilds ? ['cached'] : [])];
    const copy = (): Promise<LinkedRegistry> =>
      startLinkedRegistry(registry.address, join(folder, 'linked'), limits, tags);
    const linked = overLink ? await copy() : undefined;
    add(await race(loading, consume, { ...consuming, linkedRegistry: linked?.address }, empty));
    await linked?.stop();
  }
  if (link === 'unlimited' && !isLarge && races.includes('present')) {
    const present = consume.filter((contender) => consumers.indexOf(contender) < 4);
    if (present.some(({ name }) => name === loopbackPull))
      await sh(consumer.env, 'docker', 'pull', '-q', `${registry.address}/charon:local`);
    // The recipe's tarball has a different manifest under the same tag.
    const again = async (): Promise<void> => {
      await sh(consumer.env, 'docker', 'load', '--input', tarballOf(consuming));
      removeOutputs(consuming);
    };
    add(await race({ ...about, what: 'Consumer that already has it', tarball }, present, consuming, again));
  }
  await service.stop();
}

async function benchCompressions(
  megabytes: number,
  link: string,
  context: string,
  engine: DockerEngine,
  consumer: DockerEngine,
): Promise<void> {
  const service = await startService(link === 'limited' ? limited : {});
  const arena = { service, registry: registry.address, context, folder, engine };
  const heading = { megabytes, store: engine.store, link, rounds: Number(values.rounds ?? 5), tarball: 0 };
  const rebuild = async (): Promise<void> => {
    removeOutputs(arena);
    await service.forget();
    await emptyEngine(consumer);
    await buildWithoutCache(arena);
  };
  const what = 'New layers, from build to test';
  results.race(await race({ ...heading, what }, compressions(consumer), arena, rebuild));
  await service.stop();
}
