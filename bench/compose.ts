import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDockerEngine } from '../dev/docker-engine.ts';
import { startRegistry } from '../dev/docker-registry.ts';
import { pushBase } from './base-image.ts';
import { emptyEngine, removeOutputs } from './clean-slate.ts';
import {
  type Arena,
  buildArguments,
  type Contender,
  createContainer,
  downloadAndLoad,
  outputsOf,
  step,
  upload,
} from './contenders.ts';
import { race } from './race.ts';
import { raceTable } from './tables.ts';
import { sh, startService } from './world.ts';
import { writeNoise } from '../dev/test-images.ts';

// Measures six images of a compose project that share a base, from the cached build to six created containers. Compares one
// handover of all images, one handover of each, and the docs recipe six times. They take turns.
// `node dev/run.mjs bench/compose.ts`.

const services = ['api', 'worker', 'web', 'admin', 'cron', 'test'] as const;
const [megabytes, ownMegabytes, rounds] = [250, 10, 5];

const folder = mkdtempSync(join(tmpdir(), 'bench-compose-'));
const project = join(folder, 'project');
const registry = await startRegistry();
const [builder, tester] = await Promise.all([
  startDockerEngine({ store: 'containerd' }),
  startDockerEngine({ store: 'containerd' }),
]);
const service = await startService({});
const arena: Arena = { service, engine: builder, registry: registry.address, context: project, folder };
const testing: Arena = { ...arena, engine: tester };

const nameOf = (name: string): string => `project-${name}:local`;

async function writeProject(): Promise<void> {
  const base = await pushBase(registry.address, megabytes, folder);
  mkdirSync(project);
  const stages = services.map((name) => `FROM base AS ${name}\nCOPY ${name} /own\nCMD ["true"]\n`);
  writeFileSync(join(project, 'Dockerfile'), `FROM ${base} AS base\n${stages.join('')}`);
  const blocks = services.map(
    (name) => `  ${name}:\n    image: ${nameOf(name)}\n    build: { context: ., target: ${name} }\n`,
  );
  writeFileSync(join(project, 'compose.yaml'), `services:\n${blocks.join('')}`);
  for (const [position, name] of services.entries()) writeNoise(join(project, name), ownMegabytes, position + 2);
}

// The end of each measurement: a container can be started.
async function createContainers(): Promise<void> {
  for (const name of services) await createContainer(testing, nameOf(name));
}

const tarball = join(outputsOf(arena), 'image.tar');

const together: Contender = {
  name: 'one handover of all six (`bake-files`)',
  run: async (_, round) => {
    const artifact = { 'artifact-name': `all-${round}` };
    const inputs = { ...artifact, 'bake-files': 'compose.yaml', tarball };
    const exported = await step('export-image', arena, inputs, project);
    const loaded = await step('load-image', testing, artifact);
    await createContainers();
    return Math.max(exported.peakMemoryKb, loaded.peakMemoryKb);
  },
};

const oneByOne: Contender = {
  name: 'one handover each (`target`, and a pattern)',
  run: async (_, round) => {
    const peaks: number[] = [];
    for (const name of services) {
      const inputs = { context: '.', target: name, image: nameOf(name), network: 'host', 'cache-from': '', tarball };
      const artifact = { 'artifact-name': `one-${round}-${name}` };
      peaks.push((await step('export-image', arena, { ...inputs, ...artifact }, project)).peakMemoryKb);
    }
    const loaded = await step('load-image', testing, { 'artifact-name': `one-${round}-*` });
    await createContainers();
    return Math.max(...peaks, loaded.peakMemoryKb);
  },
};

const plainRecipe: Contender = {
  name: 'docs recipe six times (zip level 6)',
  run: async (_, round) => {
    for (const name of services) {
      const args = ['-t', nameOf(name), '--target', name, '--output', `type=docker,dest=${tarball}`];
      await sh(builder.env, 'docker', ...buildArguments(project, ...args));
      await upload(arena, `plain-${round}-${name}`, tarball, 6);
    }
    for (const name of services) await downloadAndLoad(testing, `plain-${round}-${name}`, 'image.tar');
    await createContainers();
    return undefined;
  },
};

try {
  await writeProject();
  removeOutputs(arena);
  // Caches the builds and the compressed layers before the first round.
  await together.run(arena, 'warm');
  const heading = { megabytes, store: 'containerd', link: 'unlimited', rounds, tarball: 0 };
  const what = `Six images that share a base, each with ${String(ownMegabytes)} MB of its own, from cached build to test`;
  const result = await race({ ...heading, what }, [together, oneByOne, plainRecipe], arena, async () => {
    removeOutputs(arena);
    await service.forget();
    await emptyEngine(tester);
  });
  writeFileSync(fileURLToPath(new URL('results/compose.md', import.meta.url)), `${raceTable(result)}\n`);
} finally {
  await service.stop();
  await Promise.all([builder.stop(), tester.stop()]);
  await registry.stop();
  rmSync(folder, { recursive: true, force: true });
}
