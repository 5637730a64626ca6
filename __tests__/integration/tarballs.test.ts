import { execFileSync } from 'node:child_process';
import { cpSync, createReadStream, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { installPrograms, type Podman, startPodman } from '../../dev/podman.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { readSmallTar } from '../fixtures/tar-file.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  type Engines,
  type Inputs,
  oneOf,
  startArtifactService,
  startEngines,
  stores,
  stepOn,
} from '../fixtures/engines.ts';
import { makeImage, ociArchive, savedTarball } from '../fixtures/image.ts';
import { errorCode, errorMessage, testStore } from '../fixtures/scenario.ts';

// Tests tarballs of real tools. Each is loaded on both stores: on one as a source-tarball, on the other as an artifact without a
// record. The stores alternate. With ALL_WAYS=1 each tarball is loaded in both ways on both stores.

let engines: Engines;
let podman: Podman;
let service: ArtifactService;
let directory: string;
const at = (name: string): string => join(directory, name);
const run = (program: string, ...args: readonly string[]): Buffer =>
  execFileSync(program, args, {
    env: { ...process.env, ...podman.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 28,
  });
const skopeo = (...args: readonly string[]): Buffer => run('skopeo', '--insecure-policy', ...args);
const shell = (script: string): Buffer => run('sh', '-ec', `cd "$1"; ${script}`, 'sh', directory);

beforeAll(async () => {
  engines = await startEngines();
  podman = await startPodman();
  await installPrograms({
    skopeo: 'skopeo',
    buildah: 'buildah',
    zstd: 'zstd',
    pzstd: 'zstd',
    xz: 'xz-utils',
    bzip2: 'bzip2',
  });
  service = await startArtifactService();
  directory = join(engines.directory, 'tarballs');
  makeTarballs();
});
afterAll(async () => {
  await service.close();
  podman.remove();
  await engines.stop();
});

/** Creates a small image of two layers with each tool. */
function makeTarballs(): void {
  const context = at('context');
  mkdirSync(context, { recursive: true });
  cpSync(join(engines.rootFilesystem, 'bin', 'busybox'), join(context, 'busybox'));
  const dockerfile = 'FROM scratch\nCOPY busybox /bin/busybox\nCOPY Dockerfile /\nLABEL a=b\nCMD ["/bin/busybox"]\n';
  writeFileSync(join(context, 'Dockerfile'), dockerfile);
  const build = (...args: readonly string[]): string =>
    engines.containerd.docker('buildx', 'build', '-q', '--network=host', ...args, context);
  build('-t', 'app:1', `--output=type=oci,dest=${at('buildx-oci.tar')}`, '--provenance=false');
  build(`--output=type=oci,dest=${at('buildx-attested.tar')}`, '--provenance=mode=max');
  build('-t', 'app:1', '--platform=linux/arm64,linux/amd64', `--output=type=oci,dest=${at('buildx-platforms.tar')}`);
  build(
    '-t',
    'app:1',
    `--output=type=oci,dest=${at('buildx-zstd-layers.tar')},compression=zstd,force-compression=true`,
  );
  build('-t', 'app:1', `--output=type=docker,dest=${at('buildx-docker.tar')}`, '--provenance=false');
  for (const engine of [engines.classic, engines.containerd]) {
    engine.docker('buildx', 'build', '-q', '--load', '--network=host', '-t', 'app:1', context);
    engine.docker('save', 'app:1', '-o', at(`docker-save-${engine.store}.tar`));
    engine.docker('image', 'rm', 'app:1');
  }
  const oci = `oci-archive:${at('buildx-oci.tar')}`;
  skopeo('copy', oci, `oci-archive:${at('skopeo-oci.tar')}:2.0`);
  skopeo('copy', oci, `docker-archive:${at('skopeo-docker.tar')}:app:1`);
  podman.podman('build', '--quiet', '-t', 'app:1', context);
  podman.podman('save', '--quiet', '--format', 'oci-archive', '-o', at('podman-oci.tar'), 'app:1');
  podman.podman('save', '--quiet', '--format', 'docker-archive', '-o', at('podman-docker.tar'), 'app:1');
  run('buildah', 'push', '--quiet', 'app:1', `oci-archive:${at('buildah-oci.tar')}`);
  shell(`
    mkdir dots && tar -C dots -xf docker-save-classic.tar && tar -C dots -cf tar-of-folder.tar .
    mkdir oci-folder && tar -C oci-folder -xf buildx-oci.tar && tar -C oci-folder -cf oci-of-folder.tar .
    gzip -kc buildx-oci.tar > oci.tar.gz
    cat docker-save-containerd.tar | zstd -qc --long=31 > long-window.tar.zst
    pzstd -qc docker-save-classic.tar > parallel.tar.zst
    pzstd -qc buildx-oci.tar > parallel-oci.tar.zst
    xz -kc docker-save-classic.tar > docker.tar.xz
    bzip2 -kc buildx-oci.tar > oci.tar.bz2`);
}

/** The image's identity as skopeo shows it. */
function configOf(path: string): Buffer {
  const plain = at(`plain-${basename(path)}`);
  const unpack = { zst: 'zstd -qdc --long=31', gz: 'gzip -dc', tar: 'cat' }[path.split('.').pop() ?? ''] ?? 'cat';
  if (!existsSync(plain)) execFileSync('sh', ['-c', `${unpack} "$1" > "$2"`, 'sh', path, plain]);
  const names = execFileSync('tar', ['-tf', plain]).toString().split('\n');
  const kind = names.some((name) => /^(?:\.\/)?manifest\.json$/.test(name)) ? 'docker-archive' : 'oci-archive';
  return skopeo('inspect', '--override-arch=amd64', '--override-os=linux', '--config', '--raw', `${kind}:${plain}`);
}

/**
 * Loads the artifact on one of the stores, and checks that the engine has exactly that image, and that it is complete.
 * @param way which of the stores; with ALL_WAYS=1 it is loaded on each
 * @returns the image's name in the engine
 */
async function loadsTheSame(
  artifact: string,
  config: Buffer,
  way: number,
  options: Inputs = {},
): Promise<readonly string[]> {
  const { rootfs } = JSON.parse(config.toString());
  const inputs = { 'artifact-name': artifact, 'expected-config-digest': digestOf(config), ...options };
  const found = oneOf(stores, way).map(async (store) => {
    const { docker } = engines[store];
    const loaded = await stepOn(service, engines[store], 'load-image', inputs);
    expect(loaded.log).not.toContain('::error');
    expect(loaded.log).not.toContain('Warning');
    expect(loaded.outputs['loaded']).toBe('true');
    const layers = docker('image', 'inspect', '--format', '{{json .RootFS.Layers}}', 'charon:local');
    expect(JSON.parse(layers)).toEqual(rootfs.diff_ids);
    const saved = at(`saved-${store}.tar`);
    docker('save', 'charon:local', '-o', saved);
    const files = await readSmallTar(readFileSync(saved));
    const [image] = JSON.parse(String(files.get('manifest.json')));
    expect(digestOf(files.get(image.Config) ?? '')).toBe(digestOf(config));
    for (const name of image.Layers) expect(files.get(name)?.length).toBeGreaterThan(0);
    const names = docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}').trim().split('\n');
    docker('image', 'rm', '-f', ...names);
    return names;
  });
  return (await Promise.all(found)).flat();
}

async function uploadForeign(name: string, path: string): Promise<void> {
  await using store = testStore(service);
  const file = { name: basename(path), size: statSync(path).size, chunks: createReadStream(path) };
  await store.upload({ name, retentionDays: 1, files: Readable.from([file]), onBytes: () => undefined });
}

const exportTarball = (path: string, artifact: string): Promise<StepOutcome> =>
  stepOn(service, engines.classic, 'export-image', {
    'source-tarball': path,
    image: 'charon:local',
    'artifact-name': artifact,
    tarball: at(`handed-over-${artifact}`),
  });

describe('an archive of a real tool is bit for bit the same image on both stores (B.9)', () => {
  const written = [
    'buildx-oci.tar',
    'buildx-attested.tar',
    'buildx-platforms.tar',
    'buildx-zstd-layers.tar',
    'buildx-docker.tar',
    'docker-save-classic.tar',
    'docker-save-containerd.tar',
    'skopeo-oci.tar',
    'skopeo-docker.tar',
    'podman-oci.tar',
    'podman-docker.tar',
    'buildah-oci.tar',
    'tar-of-folder.tar',
    'oci-of-folder.tar',
    'oci.tar.gz',
    'long-window.tar.zst',
    'parallel.tar.zst',
    'parallel-oci.tar.zst',
  ];
  test.each(written.map((name, position) => [name, position] as const))('%s', async (name, position) => {
    const path = at(name);
    const before = digestOf(readFileSync(path));
    const config = configOf(path);
    const exported = await exportTarball(path, name);
    expect(exported.log).not.toContain('::error');
    expect(exported.log).not.toContain('Warning');
    expect(exported.outputs['config-digest']).toBe(digestOf(config));
    // An archive that is handed over unchanged contains its own name.
    expect(await loadsTheSame(name, config, position)).toContain('charon:local');
    await uploadForeign(`foreign-${name}`, path);
    const names = await loadsTheSame(`foreign-${name}`, config, position + 1, { image: 'charon:local' });
    expect(new Set(names)).toEqual(new Set(['charon:local']));
    expect(digestOf(readFileSync(path))).toBe(before);
  });
});

describe('archives that engines accept and that no tool here writes', () => {
  test.each([
    ['white space before all JSON', { leading: ' \r\n\t' }],
    ['a config without architecture', { architecture: 'none' }],
    ['a label of 3.9 MB', { labels: { long: 'x'.repeat(3_900_000) } }],
  ])('%s: it is the same image on both stores (B.9)', async (name, options) => {
    const image = makeImage(options);
    const config = image.blobs.get(image.configDigest) ?? Buffer.alloc(0);
    writeFileSync(at('docker-kind.tar'), savedTarball(image, ['app:1']));
    writeFileSync(at('oci-kind.tar'), ociArchive([image]));
    const exported = await exportTarball(at('oci-kind.tar'), name);
    expect(exported.log).not.toContain('::error');
    expect(await loadsTheSame(name, config, 0)).toContain('charon:local');
    await uploadForeign(`foreign ${name}`, at('docker-kind.tar'));
    await loadsTheSame(`foreign ${name}`, config, 1, { image: 'charon:local' });
  });

  test('the classic store refuses 126 layers and shows why, and the containerd store accepts them', async () => {
    const path = at('too-deep.tar');
    writeFileSync(path, savedTarball(makeImage({ layers: 126, layerBytes: 10 }), ['charon:local']));
    await exportTarball(path, 'too-deep');
    const onClassic = await stepOn(service, engines.classic, 'load-image', { 'artifact-name': 'too-deep' });
    expect(errorCode(onClassic)).toBe('load-failed');
    expect(errorMessage(onClassic)).toContain('max depth exceeded');
    expect(errorMessage(onClassic)).toContain('125 layers');
    expect(errorMessage(onClassic)).not.toContain('disk');
    const onContainerd = await stepOn(service, engines.containerd, 'load-image', { 'artifact-name': 'too-deep' });
    expect(onContainerd.outputs['loaded']).toBe('true');
    engines.containerd.docker('image', 'rm', '-f', 'charon:local');
  });
});

describe('an archive that can’t be handed over is refused with its actual format, on both sides (S0.8)', () => {
  test.each([
    ['docker.tar.xz', 'compressed with xz'],
    ['oci.tar.bz2', 'compressed with bzip2'],
  ])('%s', async (name, message) => {
    const exported = await exportTarball(at(name), name);
    expect(errorCode(exported)).toBe('tarball-invalid');
    expect(errorMessage(exported)).toContain(message);
    await uploadForeign(`foreign-${name}`, at(name));
    const loaded = await stepOn(service, engines.classic, 'load-image', { 'artifact-name': `foreign-${name}` });
    expect(errorCode(loaded)).toBe('tarball-invalid');
    expect(errorMessage(loaded)).toContain(message);
  });
});
