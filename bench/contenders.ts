import { existsSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectRoot, runStep, type StepOutcome } from '../dev/action-runner.ts';
import type { DockerEngine } from '../dev/docker-engine.ts';
import { type BenchService, officialClient, sh } from './world.ts';

/** Shared by all contenders of a round. */
export interface Arena {
  readonly service: BenchService;
  readonly engine: DockerEngine;
  readonly registry: string;
  /** Address of the registry behind the link, if a contender needs it. */
  readonly linkedRegistry?: string | undefined;
  readonly context: string;
  readonly folder: string;
  /** Compression of new layers by export-image. */
  readonly compression?: string;
}

/** A way to do a job. `run` is measured. It returns the peak memory of an action's process in kB. */
export interface Contender {
  readonly name: string;
  readonly run: (arena: Arena, round: string) => Promise<number | undefined>;
}

/** Returns the folder for files that are not needed after a turn. */
export const outputsOf = ({ folder }: Pick<Arena, 'folder'>): string => join(folder, 'outputs');
/** Returns the path of the tarball that several contenders use. */
export const tarballOf = ({ folder }: Pick<Arena, 'folder'>): string => join(folder, 'tarball.tar');

export const buildArguments = (context: string, ...output: readonly string[]): readonly string[] => [
  ...['buildx', 'build', '--network=host', '--provenance=false', '--sbom=false', '--platform=linux/amd64'],
  ...output,
  context,
];

/** Runs a step of this project. Throws an error with the end of its log if it fails. */
export async function step(
  action: string,
  { service, engine }: Pick<Arena, 'service' | 'engine'>,
  inputs: Readonly<Record<string, string>>,
  cwd = projectRoot,
): Promise<StepOutcome> {
  const outcome = await runStep({ action, inputs, cwd, env: { ...service.env, ...engine.env } });
  if (outcome.exitCode !== 0) throw new Error(outcome.log.slice(-2000));
  return outcome;
}

/** Uploads a file like actions/upload-artifact. */
export function upload(arena: Arena, name: string, file: string, level: number): Promise<void> {
  const args = [name, [file], outputsOf(arena), { compressionLevel: level }]
    .map((value) => JSON.stringify(value))
    .join(', ');
  return officialClient(arena.service.env, `await client.uploadArtifact(${args});`);
}

// On the classic store, the docs recipe needs another builder. There, people use docker save and docker load.
async function tarballByRecipe(arena: Arena, file: string): Promise<void> {
  if (arena.engine.store === 'containerd') {
    await sh(
      arena.engine.env,
      'docker',
      ...buildArguments(arena.context, '-t', 'charon:local', '--output', `type=docker,dest=${file}`),
    );
    return;
  }
  await sh(arena.engine.env, 'docker', ...buildArguments(arena.context, '-t', 'charon:local', '--load'));
  await sh(arena.engine.env, 'docker', 'save', 'charon:local', '-o', file);
}

/** The recipe in Docker's documentation: docker exporter, actions/upload-artifact, actions/download-artifact, `docker load`. */
export const docsRecipe = 'docs recipe (zip level 6)';

/** The same recipe with `compression-level: 0` in actions/upload-artifact. */
export const tunedRecipe = 'tuned recipe (zip level 0)';

const recipe =
  (level: number) =>
  async (arena: Arena, round: string): Promise<undefined> => {
    const file = join(outputsOf(arena), 'recipe.tar');
    await tarballByRecipe(arena, file);
    await upload(arena, `recipe-${String(level)}-${round}`, file, level);
  };

/** The classic store can't export a layout: there, it is the cached build into the engine, and `docker save` to /dev/null. */
export const bareExport = 'floor: bare export (OCI layout, or docker save)';
/** Uploads only the bytes of the tarball. */
export const linkAlone = 'the link alone: bare upload';

/** A built tree of this project. */
interface Tree {
  readonly name: string;
  /** Path of its root, relative to this tree's. */
  readonly path: string;
}

const thisTree: Tree = { name: 'ours', path: '.' };

const exportBy = ({ name, path }: Tree): Contender => ({
  name,
  run: async (arena, round) => {
    const inputs = {
      context: arena.context,
      network: 'host',
      tarball: join(outputsOf(arena), `${name}.tar`),
      'cache-from': '',
      compression: arena.compression ?? 'auto',
      'artifact-name': `${name}-${round}`,
    };
    return (await step(join(path, 'export-image'), arena, inputs)).peakMemoryKb;
  },
});

const ours = exportBy(thisTree);

/** Measured from the cached build to the finalised artifact. */
export const producers: readonly Contender[] = [
  ours,
  { name: docsRecipe, run: recipe(6) },
  { name: tunedRecipe, run: recipe(0) },
  {
    name: 'docker save, zstd, raw upload',
    run: async (arena, round) => {
      const file = join(outputsOf(arena), `zstd-${round}.tar.zst`);
      await sh(arena.engine.env, 'docker', ...buildArguments(arena.context, '-t', 'charon:local', '--load'));
      await sh(
        arena.engine.env,
        'bash',
        '-c',
        'set -o pipefail; docker save charon:local | zstd -q -T0 -f -o "$0"',
        file,
      );
      const options = JSON.stringify({ skipArchive: true });
      await officialClient(
        arena.service.env,
        `await client.uploadArtifact('x', [${JSON.stringify(file)}], ${JSON.stringify(outputsOf(arena))}, ${options});`,
      );
      return undefined;
    },
  },
  {
    name: 'push to a loopback registry that has it',
    run: async (arena) => {
      await sh(
        arena.engine.env,
        'docker',
        ...buildArguments(arena.context, '-t', `${arena.registry}/charon:local`, '--push'),
      );
      return undefined;
    },
  },
  {
    name: bareExport,
    run: async (arena) => {
      const directory = join(outputsOf(arena), 'bare');
      if (arena.engine.store === 'classic') {
        await sh(arena.engine.env, 'docker', ...buildArguments(arena.context, '-t', 'charon:local', '--load'));
        await sh(arena.engine.env, 'bash', '-c', 'docker save charon:local > /dev/null');
        return undefined;
      }
      await sh(
        arena.engine.env,
        'docker',
        ...buildArguments(arena.context, '--output', `type=oci,tar=false,dest=${directory}`),
      );
      return undefined;
    },
  },
  {
    name: linkAlone,
    run: async (arena, round) => {
      const script = fileURLToPath(new URL('bare-upload.ts', import.meta.url));
      await sh(arena.service.env, process.execPath, script, `bare-${round}`, tarballOf(arena));
      return undefined;
    },
  },
];

/** `docker load` of the whole tarball. */
export const withoutOverlap = 'ours with `overlap: false`';
/** Without TLS and without the link. */
export const loopbackPull = 'docker pull from a loopback registry';
/** From a registry behind the same link as the artifacts. */
export const linkedPull = 'docker pull over the same link';
/** No handover: each job builds from a cache in that registry. */
export const cacheAndRebuild = 'cache in a registry over the same link, build again';
/** The engine's own work, with the tarball in the page cache. */
export const loadFloor = 'floor: docker load of our tarball';

const download =
  (level: number) =>
  async (arena: Arena): Promise<undefined> => {
    await downloadAndLoad(arena, `recipe-${String(level)}-0`, 'recipe.tar');
    await createContainer(arena, 'charon:local');
  };

/** The docs recipe's test job: a download by the official client, then `docker load` of the file. */
export async function downloadAndLoad(arena: Arena, artifact: string, file: string): Promise<void> {
  const path = join(outputsOf(arena), 'downloaded');
  const find = `const { artifact } = await client.getArtifact(${JSON.stringify(artifact)});`;
  await officialClient(
    arena.service.env,
    `${find}\nawait client.downloadArtifact(artifact.id, ${JSON.stringify({ path })});`,
  );
  await sh(arena.engine.env, 'docker', 'load', '--input', join(path, file));
}

// The end of each measurement: a container can be started. Test engines have no network.
export async function createContainer(arena: Arena, image: string): Promise<void> {
  const id = (await sh(arena.engine.env, 'docker', 'create', '--network=none', image)).trim();
  await sh(arena.engine.env, 'docker', 'rm', id);
}

async function pull(arena: Arena, address: string): Promise<undefined> {
  const image = `${address}/charon:local`;
  await sh(arena.engine.env, 'docker', 'pull', '-q', image);
  await createContainer(arena, image);
  return undefined;
}

const load =
  ({ name, path }: Tree, overlap: boolean) =>
  async (arena: Arena): Promise<number> => {
    const inputs = { 'artifact-name': `${name}-0`, overlap: String(overlap) };
    const { peakMemoryKb } = await step(join(path, 'load-image'), arena, inputs);
    await createContainer(arena, 'charon:local');
    return peakMemoryKb;
  };

/** Measured from the start of the step until a container can be started. */
export const consumers: readonly Contender[] = [
  { name: 'ours', run: load(thisTree, true) },
  { name: docsRecipe, run: download(6) },
  { name: tunedRecipe, run: download(0) },
  { name: loopbackPull, run: (arena) => pull(arena, arena.registry) },
  {
    name: loadFloor,
    run: async (arena) => {
      await sh(arena.engine.env, 'docker', 'load', '--input', tarballOf(arena));
      await createContainer(arena, 'charon:local');
      return undefined;
    },
  },
  { name: withoutOverlap, run: load(thisTree, false) },
  { name: linkedPull, run: (arena) => pull(arena, arena.linkedRegistry ?? '') },
  {
    name: cacheAndRebuild,
    run: async (arena) => {
      const cache = ['--cache-from', `type=registry,ref=${arena.linkedRegistry ?? ''}/charon:cached`];
      const args = buildArguments(arena.context, '-t', 'charon:local', '--load', ...cache);
      const plain = [...args.slice(0, 2), '--progress=plain', ...args.slice(2)];
      // buildx writes its progress to stderr.
      const output = await sh(arena.engine.env, 'bash', '-c', 'docker "$@" 2>&1', 'docker', ...plain);
      if (!output.includes('CACHED')) throw new Error(`The build used no cache:\n${output}`);
      await createContainer(arena, 'charon:local');
      return undefined;
    },
  },
];

/** Pushes the image and its inline cache, which every builder supports, for `cacheAndRebuild`. */
export async function pushCache({ engine, context, registry }: Arena): Promise<void> {
  const args = ['-t', `${registry}/charon:cached`, '--push', '--cache-to', 'type=inline'];
  await sh(engine.env, 'docker', ...buildArguments(context, ...args));
}

/**
 * Returns this tree and others as contenders, to measure a change. Each exports an image and loads it.
 * @param folders the other trees, already built
 */
export function rivalTrees(folders: readonly string[]): Record<'produce' | 'consume', readonly Contender[]> {
  const others = folders.map((folder) => {
    const root = resolve(folder);
    if (!existsSync(join(root, 'dist', 'load-image')))
      throw new Error(`${root} has no dist/: run npm run build there.`);
    return { name: basename(root), path: relative(projectRoot, root) };
  });
  const trees = [thisTree, ...others];
  return { produce: trees.map(exportBy), consume: trees.map((tree) => ({ name: tree.name, run: load(tree, true) })) };
}

/** Measured from the build to the test. The export must compress the new layers. */
export function compressions(consumer: DockerEngine): readonly Contender[] {
  return ['auto', 'gzip', 'uncompressed'].map((compression) => ({
    name: compression,
    run: async (arena, round) => {
      const name = `${compression}-${round}`;
      await ours.run({ ...arena, compression }, name);
      await step('load-image', { ...arena, engine: consumer }, { 'artifact-name': `ours-${name}` });
      return undefined;
    },
  }));
}
