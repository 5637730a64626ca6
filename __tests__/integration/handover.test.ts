import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { engines, service, useEngines } from '../fixtures/engine-suite.ts';
import { halfOf, imagesOn, type Inputs, namesOn, oneOf, stepOn, waysToLoad } from '../fixtures/engines.ts';
import { officialDownload, officialUpload } from '../fixtures/official-client.ts';
import { startPlainServer } from '../fixtures/plain-server.ts';
import { errorCode } from '../fixtures/scenario.ts';
import { writeNoise } from '../../dev/test-images.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { digestOf } from '../../shared/image/digest.ts';

useEngines({ tls: true });
afterEach(() => {
  for (const engine of [engines.classic, engines.containerd]) {
    const names = namesOn(engine).filter((name) => !name.includes('<none>'));
    if (names.length > 0) engine.docker('image', 'rm', '-f', ...names);
  }
});

const build = (context: string): Inputs => ({
  context,
  'build-contexts': `busybox=${engines.rootFilesystem}`,
  network: 'host',
  tarball: join(engines.directory, 'charon.tar'),
});

/** Expects the exported image in the engine, under its name. */
function expectImage(engine: EngineClient, { outputs }: StepOutcome): void {
  const id = engine.docker('image', 'inspect', '--format', '{{.Id}}', 'charon:local').trim();
  expect(id).toBe(outputs[engine.store === 'classic' ? 'config-digest' : 'manifest-digest']);
}

/** The engine of one store on one Docker version, and that of the other store on the other version. */
const oneOfBoth = (): readonly EngineClient[] => halfOf([engines.classic, engines.containerd]);

const pairs = halfOf([
  ['classic', 'containerd'],
  ['containerd', 'containerd'],
  ['containerd', 'classic'],
  ['classic', 'classic'],
]);
describe.each(pairs)('from the %s store to the %s store', (from, to) => {
  test('an image built on one engine runs on the other, and docker load also accepts the tarball (S0.1, S0.4, S2.7)', async () => {
    const exported = await stepOn(service, engines[from], 'export-image', build('examples/hello'));
    expect(exported.log).not.toContain('::error');
    expect(exported.exitCode).toBe(0);
    expect(exported.leftInTemp).toEqual([]);
    if (from !== to) expect(() => engines[from].docker('image', 'inspect', 'charon:local')).toThrow();

    const expected = { 'expected-config-digest': exported.outputs['config-digest'] ?? '' };
    const loaded = await stepOn(service, engines[to], 'load-image', expected, { jobId: 'waf' });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({
      image: 'charon:local',
      loaded: 'true',
      'config-digest': exported.outputs['config-digest'],
    });
    expect(engines[to].docker('run', '--rm', '--network=none', 'charon:local')).toContain('Hello from the image');

    const again = await stepOn(service, engines[to], 'load-image', expected, { jobId: 'waf' });
    expect(again.outputs).toMatchObject({ loaded: 'false', size: '0' });

    engines[to].docker('image', 'rm', 'charon:local');
    expect(engines[to].docker('load', '--input', exported.outputs['tarball'] ?? '')).toContain(
      'Loaded image: charon:local',
    );
  });
});

test('the export reuses the cache of the main build and runs no step; a changed build argument is detected (S0.3)', async () => {
  const context = join(engines.directory, 'cached');
  cpSync(engines.rootFilesystem, context, { recursive: true, verbatimSymlinks: true });
  const dockerfile = 'FROM scratch\nCOPY . /\nARG VERSION=1\nRUN echo "$VERSION" > /version\n';
  writeFileSync(join(context, 'Dockerfile'), dockerfile);
  const engine = engines.containerd;
  const cache = join(engines.directory, 'cache');
  engine.docker('buildx', 'build', '--network=host', `--cache-to=type=local,mode=max,dest=${cache}`, context);
  engine.docker('buildx', 'prune', '--all', '--force');
  const inputs = { ...build(context), 'cache-from': `type=local,src=${cache}`, 'require-cache': 'true' };
  const exported = await stepOn(service, engine, 'export-image', inputs);
  expect(exported.log).toContain('Build steps: 2 cached, 0 executed');
  expect(exported.outputs).toMatchObject({ 'executed-steps': '0', 'cached-steps': '2' });
  const changed = { ...inputs, 'artifact-name': 'changed', 'build-args': 'VERSION=2' };
  const outcome = await stepOn(service, engine, 'export-image', changed);
  expect(errorCode(outcome)).toBe('cache-missed');
});

test('every reference of the image is on the other engine, on both stores, and after a plain docker load (S2.7, S3.6)', async () => {
  const tags = ['ghcr.io/org/charon:1', 'ghcr.io/org/charon:latest'];
  const all = ['charon:local', ...tags];
  const inputs = { ...build('examples/hello'), tags: tags.join('\n') };
  const exported = await stepOn(service, engines.containerd, 'export-image', inputs);
  expect(exported.log).not.toContain('::error');
  for (const engine of oneOfBoth()) {
    const { docker, store } = engine;
    const idOf = (name: string): string => docker('image', 'inspect', '--format', '{{.Id}}', name).trim();
    const loaded = await stepOn(service, engine, 'load-image', {}, { jobId: store });
    expect(loaded.log).not.toContain('::error');
    expect(new Set(all.map(idOf)).size).toBe(1);

    docker('image', 'rm', ...tags);
    const again = await stepOn(service, engine, 'load-image', {}, { jobId: store });
    expect(again.outputs).toMatchObject({ loaded: 'false' });
    expect(new Set(all.map(idOf)).size).toBe(1);

    docker('image', 'rm', ...all);
    const said = docker('load', '--input', exported.outputs['tarball'] ?? '');
    for (const name of all) expect(said).toContain(`Loaded image: ${name}`);
  }
});

test('source-image hands over an image that the engine already has, on both stores (S2.1)', async () => {
  for (const engine of oneOfBoth()) {
    engine.docker(
      'buildx',
      'build',
      '--load',
      '--network=host',
      '--build-context',
      `busybox=${engines.rootFilesystem}`,
      '-t',
      'ghcr.io/org/charon:pr-1',
      'examples/hello',
    );
    const name = `from-${engine.store}`;
    const exported = await stepOn(service, engine, 'export-image', {
      'source-image': 'ghcr.io/org/charon:pr-1\nghcr.io/org/charon:latest',
      image: 'charon:local',
      tarball: join(engines.directory, 'charon.tar'),
      'artifact-name': name,
    });
    expect(exported.log).not.toContain('::error');
    const other = engine === engines.classic ? engines.containerd : engines.classic;
    const loaded = await stepOn(service, other, 'load-image', { 'artifact-name': name });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({ image: 'charon:local', 'config-digest': exported.outputs['config-digest'] });
    other.docker('image', 'rm', 'charon:local');
  }
});

test('source-image with a full or short image ID needs a name and exports the same image; library/app is app, on both stores (S2.7)', async () => {
  for (const engine of oneOfBoth()) {
    const context = `busybox=${engines.rootFilesystem}`;
    const build = ['--load', '--network=host', '--build-context', context, '-t', 'app:1', 'examples/hello'];
    engine.docker('buildx', 'build', ...build);
    const id = engine.docker('image', 'inspect', '--format', '{{.Id}}', 'app:1').trim();
    const digests = new Set<string>();
    for (const [position, source] of [id, id.slice(7, 19), 'library/app:1'].entries()) {
      const name = `${engine.store}-${String(position)}`;
      const inputs = { 'source-image': source, tarball: join(engines.directory, 'charon.tar'), 'artifact-name': name };
      if (!source.includes('/')) {
        expect(errorCode(await stepOn(service, engine, 'export-image', inputs))).toBe('invalid-input');
      }
      const exported = await stepOn(service, engine, 'export-image', { ...inputs, image: 'charon:local' });
      expect(exported.log).not.toContain('::error');
      digests.add(exported.outputs['config-digest'] ?? '');
      const other = engine === engines.classic ? engines.containerd : engines.classic;
      const loaded = await stepOn(service, other, 'load-image', { 'artifact-name': name });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['image']).toBe('charon:local');
      expect(other.docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}')).not.toContain('sha256');
      other.docker('image', 'rm', 'charon:local');
    }
    expect(digests.size).toBe(1);
    engine.docker('image', 'rm', 'app:1');
  }
});

test('secrets of all three inputs reach a RUN step byte for byte and are masked in its output, on both stores', async () => {
  const context = join(engines.directory, 'secrets');
  await mkdir(context, { recursive: true });
  const run = ['key', 'file', 'env'].map((id) => `--mount=type=secret,id=${id},required=true`).join(' ');
  const print = 'cat /run/secrets/key && cp /run/secrets/key /run/secrets/file /run/secrets/env /';
  writeFileSync(join(context, 'Dockerfile'), `FROM busybox\nRUN ${run} ${print}\nCMD cat /key /file /env\n`);
  const key = `-----BEGIN OPENSSH PRIVATE KEY-----\n${randomBytes(30).toString('hex')}\n-----END OPENSSH PRIVATE KEY-----\n`;
  const file = join(context, 'a,b.txt');
  writeFileSync(file, 'of a file\n\n');
  for (const engine of oneOfBoth()) {
    const env = { ...engine.env, SOME_TOKEN: 'of a variable' };
    const exported = await stepOn(service, { env }, 'export-image', {
      ...build(context),
      secrets: `"key=${key}"\nFORK=\n`,
      'secret-files': `file=${file}`,
      'secret-envs': 'env=SOME_TOKEN',
      'artifact-name': engine.store,
    });
    expect(exported.log).not.toContain('::error');
    const lines = [...key.trim().split('\n'), 'of a file', 'of a variable'];
    for (const line of lines) expect(exported.log.split(`::add-mask::${line}\n`)).toHaveLength(2);
    expect(exported.log.indexOf('::add-mask::')).toBeLessThan(exported.log.indexOf('BEGIN OPENSSH'));
    expect(exported.annotations).toContainEqual(
      expect.objectContaining({ level: 'warning', message: expect.stringContaining('"FORK"') }),
    );
    await stepOn(service, engine, 'load-image', { 'artifact-name': engine.store });
    const said = engine.docker('run', '--rm', '--network=none', 'charon:local');
    expect(said).toBe(`${key}of a file\n\nof a variable`);
  }
});

test('a classic recipe opens this artifact: the official client, then docker load --input', async () => {
  const exported = await stepOn(service, engines.classic, 'export-image', build('examples/hello'));
  const folder = join(engines.directory, 'official');
  await officialDownload(service, 'docker-image', folder, exported.outputs['artifact-digest'] ?? '');
  expect(digestOf(readFileSync(join(folder, 'charon.tar')))).toBe(exported.outputs['tarball-digest']);
  expect(engines.containerd.docker('load', '--input', join(folder, 'charon.tar'))).toContain('charon:local');
});

/** Returns a tarball that docker itself saved. */
function savedByDocker(): string {
  const tarball = join(engines.directory, 'image.tar');
  if (existsSync(tarball)) return tarball;
  const { docker } = engines.classic;
  const context = `--build-context=busybox=${engines.rootFilesystem}`;
  docker('buildx', 'build', '--load', '--network=host', context, '--tag=charon:local', 'examples/hello');
  docker('save', 'charon:local', '-o', tarball);
  docker('image', 'rm', 'charon:local');
  return tarball;
}

const officialUploads = [
  ['gzip', 6],
  ['gzip', 0],
  ['none', 6],
  ['raw', 0],
] as const;
test.each(officialUploads.map((row, position) => [...row, position] as const))(
  'an artifact of the official client (docker save, %s, level %d) can be loaded',
  async (kind, level, position) => {
    const tarball = savedByDocker();
    const file = kind === 'gzip' ? `${tarball}.gz` : tarball;
    if (kind === 'gzip') writeFileSync(file, execFileSync('gzip', ['-c', tarball], { maxBuffer: 1 << 28 }));
    await officialUpload(service, 'docker-image', file, level, kind === 'raw');
    const name = kind === 'raw' ? 'image.tar' : 'docker-image';
    for (const engine of oneOf([engines.classic, engines.containerd], position)) {
      const loaded = await stepOn(service, engine, 'load-image', { 'artifact-name': name });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs).toMatchObject({ image: 'charon:local', loaded: 'true' });
    }
  },
);

test('an image of 260 MB that can’t be compressed is exported and loaded within 250 MB of memory (S4.3)', async () => {
  const context = join(engines.directory, 'large');
  cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  writeNoise(join(context, 'one'), 130);
  writeNoise(join(context, 'two'), 130);
  const dockerfile = 'FROM scratch\nCOPY rootfs /\nCOPY one /\nCOPY two /\nCMD ["echo", "the application"]\n';
  writeFileSync(join(context, 'Dockerfile'), dockerfile);
  const limit = 250_000; // kB, of only the action's process
  for (const [from, to] of halfOf([
    ['classic', 'containerd'],
    ['containerd', 'classic'],
  ])) {
    const name = `large-${from}`;
    const exported = await stepOn(service, engines[from], 'export-image', { ...build(context), 'artifact-name': name });
    expect(exported.log).not.toContain('::error');
    expect(exported.peakMemoryKb).toBeLessThan(limit);
    expect(statSync(exported.outputs['tarball'] ?? '').size).toBeGreaterThan(260_000_000);
    const loaded = await stepOn(service, engines[to], 'load-image', { 'artifact-name': name });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.peakMemoryKb).toBeLessThan(limit);
    expect(engines[to].docker('run', '--rm', '--network=none', 'charon:local')).toContain('the application');
  }
}, 400_000);

test('an artifact can be loaded from a server that ignores ranges, on both stores (S0.4)', async () => {
  const folder = join(engines.directory, 'plain');
  await mkdir(folder);
  const exported = await stepOn(service, engines.classic, 'export-image', build('examples/hello'));
  const [{ blob, size } = { blob: '', size: 0 }] = service.artifacts;
  writeFileSync(join(folder, 'blob.zip'), await copiedBytes(service.blobs.read(blob, 0, size)));
  const server = await startPlainServer(folder);
  try {
    const body = JSON.stringify({ signed_url: `${server.url}/blob.zip` });
    service.faults.add({ on: 'GetSignedArtifactURL', times: 99, effect: { kind: 'status', status: 200, body } });
    for (const engine of oneOfBoth()) {
      const loaded = await stepOn(service, engine, 'load-image', {});
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs).toMatchObject({
        'config-digest': exported.outputs['config-digest'],
        size: String(size),
        loaded: 'true',
      });
      expect(loaded.leftInTemp).toEqual([]);
      expectImage(engine, exported);
    }
  } finally {
    await server.stop();
  }
});

test('if two jobs use the joined action, the second builds once, keeps its image, and reports which image later jobs get (S2.5)', async () => {
  const jobs = [engines.classic, engines.containerd].map((engine) => {
    const inputs = { ...build('examples/hello'), 'build-args': `VERSION=${engine.store}` };
    return stepOn(service, engine, '.', inputs, { jobId: engine.store });
  });
  const outcomes = await Promise.all(jobs);
  for (const { log, outputs } of outcomes) {
    expect(log).not.toContain('::error');
    expect(log.match(/^Build steps: /gm)).toHaveLength(1);
    expect(outputs).toMatchObject({ source: 'build', image: 'charon:local' });
  }
  const first = outcomes.find(({ outputs }) => outputs['artifact-id'] !== '');
  const second = outcomes.find(({ outputs }) => outputs['artifact-id'] === '');
  expect(service.artifacts).toHaveLength(1);
  expect(first?.annotations.filter(({ level }) => level === 'warning')).toEqual([]);
  expect(second?.outputs).toMatchObject({ 'artifact-id': '', 'artifact-name': '' });
  expect(second?.summary).toContain('Kept here, not handed over');
  expect(second?.log).toMatch(/is not the image that later jobs get|has not finished its upload/);
  for (const engine of [engines.classic, engines.containerd]) {
    expect(engine.docker('run', '--rm', '--network=none', 'charon:local')).toContain(engine.store);
  }
});

test('another run can load the image of the latest run on main, on both stores (S3.3)', async () => {
  const ci = { runId: '100' };
  service.addRun({ id: 100 });
  service.addRun({ id: 101, artifacts: [{ name: 'docker-image', expiresAt: '2020-01-01T00:00:00Z' }] });
  const exported = await stepOn(service, engines.classic, 'export-image', build('examples/hello'), ci);
  for (const engine of oneOfBoth()) {
    const loaded = await stepOn(service, engine, 'load-image', { workflow: 'ci.yml', branch: 'main' });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({
      'config-digest': exported.outputs['config-digest'],
      'run-id': '100',
      loaded: 'true',
    });
    expectImage(engine, exported);
  }
});

describe.each(waysToLoad())('into the %s store, overlap: %s', (store, overlap) => {
  test('a damaged blob is an error, and the engine has no such tag', async () => {
    const context = join(engines.directory, `damage-${store}-${overlap}`);
    await mkdir(context);
    writeFileSync(join(context, 'noise'), randomBytes(3_000_000));
    writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY noise /\n');
    // Built by the other engine: the containerd store would have the layer from its own BuildKit.
    const builder = engines[store === 'classic' ? 'containerd' : 'classic'];
    await stepOn(service, builder, 'export-image', build(context));
    await service.blobs.flipByte(service.artifacts[0]?.blob ?? '', 1_000_000);
    const engine = engines[store];
    const before = imagesOn(engine);
    const loaded = await stepOn(service, engine, 'load-image', { overlap });
    expect(errorCode(loaded)).toBe('artifact-corrupt');
    expect(imagesOn(engine)).toEqual(before);
  });

  test('the store ends in the same state: one tag, and no temporary tags', async () => {
    const builder = engines[store === 'classic' ? 'containerd' : 'classic'];
    await stepOn(service, builder, 'export-image', build('examples/hello'));
    const engine = engines[store];
    const loaded = await stepOn(service, engine, 'load-image', { overlap });
    expect(loaded.outputs['loaded']).toBe('true');
    expect(loaded.log.includes('Sending the whole tarball')).toBe(false);
    expect(engine.docker('image', 'ls', '--all', '--digests')).not.toContain('handover-');
    const [image] = JSON.parse(engine.docker('image', 'inspect', 'charon:local'));
    expect(image.RepoTags).toEqual(['charon:local']);
    expect(JSON.stringify(image.RepoDigests)).not.toContain('127.0.0.1');
  });
});
