import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { makeImage, podmanTarball } from '../fixtures/image.ts';
import { errorCode, errorMessage, type Scenario } from '../fixtures/scenario.ts';
import { begin, scenario, useScenarios } from '../fixtures/scenario-suite.ts';

useScenarios();

const podman = { engine: 'podman' };
const tags = (): readonly string[] => scenario.docker.state().images.flatMap((image) => image.tags);
const commands = (): readonly string[] => scenario.docker.state().calls.map((call) => call.slice(0, 3).join(' '));

/** Starts a run whose podman has the image as `localhost/charon:built`. */
async function beginWithImage(): Promise<Scenario> {
  const image = makeImage({ gzip: false });
  const started = await begin({ image });
  const saved = join(started.directory, 'podman-save.tar');
  await writeFile(saved, podmanTarball(image, ['localhost/charon:built']));
  const held = { imageId: image.configDigest, tags: ['localhost/charon:built'], diffIds: image.diffIds };
  started.docker.set({ saved, images: [{ ...held, architecture: 'amd64', labels: {} }] });
  return started;
}

describe('load-image', () => {
  test('the image has podman’s name for the reference, and docker is never run (S0.4)', async () => {
    const { exports, loads, docker, image } = await begin();
    await exports();
    docker.set({ calls: [] });
    const outcome = await loads(podman);
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({ image: 'charon:local', 'image-id': image.configDigest, loaded: 'true' });
    expect(tags()).toEqual(['localhost/charon:local']);
    expect(docker.state().calls.every(([program]) => program === 'podman')).toBe(true);
    expect(outcome.leftInTemp).toEqual([]);
    expect((await loads(podman)).outputs).toMatchObject({ loaded: 'false', size: '0' });
  });

  test('a failed load keeps the old image of that name (S0.4)', async () => {
    const { exports, loads, docker, service } = await begin();
    await exports();
    const older = { imageId: `sha256:${'1'.repeat(64)}`, diffIds: [], architecture: 'amd64', labels: {} };
    docker.set({ images: [{ ...older, tags: ['localhost/charon:local'] }] });
    await service.blobs.flipByte(service.artifacts[0]?.blob ?? '', 20_000);
    expect(errorCode(await loads(podman))).toBe('artifact-corrupt');
    expect(tags()).toEqual(['localhost/charon:local']);
    expect(docker.state().images[0]?.imageId).toBe(older.imageId);
  });

  test('load-failed and image-missing mention podman’s commands', async () => {
    const { handOver, loads, docker } = await begin();
    await handOver();
    docker.set({ fail: 'load' });
    const failed = await loads(podman);
    expect(errorCode(failed)).toBe('load-failed');
    expect(errorMessage(failed)).toContain('podman load failed');
    docker.set({ fail: 'silent-load' });
    const missing = await loads(podman);
    expect(errorCode(missing)).toBe('image-missing');
    expect(errorMessage(missing)).toContain('podman image ls');
  });

  test('docker-unavailable: no podman on PATH, or a broken one', async () => {
    const { loads, directory, docker } = await begin();
    const without = await loads(podman, { env: { PATH: directory } });
    expect(errorCode(without)).toBe('docker-unavailable');
    expect(errorMessage(without)).toContain('no podman on PATH');
    docker.set({ fail: 'info' });
    const broken = await loads(podman);
    expect(errorCode(broken)).toBe('docker-unavailable');
    expect(errorMessage(broken)).toContain('operation not permitted');
  });

  test('platform-mismatch: a podman on arm64', async () => {
    const { handOver, loads } = await begin({ docker: { architecture: 'arm64' } });
    await handOver();
    expect(errorCode(await loads(podman))).toBe('platform-mismatch');
  });

  test('invalid-input: an unknown engine', async () => {
    const { loads, exports, docker } = await begin();
    for (const outcome of [await loads({ engine: 'nerdctl' }), await exports({ engine: 'nerdctl' })]) {
      expect(errorCode(outcome)).toBe('invalid-input');
      expect(errorMessage(outcome)).toContain('"nerdctl"; expected docker or podman');
    }
    expect(docker.state().calls).toEqual([]);
  });
});

describe('export-image', () => {
  test.each(['auto', 'gzip', 'uncompressed'])(
    'source-image is exported from podman, and docker loads it (%s) (S2.1)',
    async (compression) => {
      const { exports, loads, docker, image } = await beginWithImage();
      const outcome = await exports({ ...podman, 'source-image': 'charon:built', image: 'charon:local', compression });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'config-digest': image.configDigest });
      expect(commands()).toEqual(['podman image inspect', 'podman save --format']);
      expect(outcome.leftInTemp).toEqual([]);
      docker.set({ images: [] });
      const loaded = await loads();
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['config-digest']).toBe(image.configDigest);
      expect(tags()).toEqual(['charon:local']);
    },
  );

  test('a tarball of podman save is used unchanged', async () => {
    const { exports, loads, docker, image } = await beginWithImage();
    const { saved = '' } = docker.state();
    const outcome = await exports({ 'source-tarball': saved, image: 'charon:local' });
    expect(outcome.log).not.toContain('::error');
    docker.set({ images: [] });
    expect((await loads()).outputs['config-digest']).toBe(image.configDigest);
    expect(tags()).toContain('charon:local');
  });

  test('image-not-found lists similar images in podman (S2.3)', async () => {
    const { exports } = await beginWithImage();
    const outcome = await exports({ ...podman, 'source-image': 'charon:biult' });
    expect(errorCode(outcome)).toBe('image-not-found');
    expect(errorMessage(outcome)).toContain('It has localhost/charon:built.');
  });

  test('builder-unsupported: a build is rejected before any command', async () => {
    const { exports, docker, service } = await begin();
    const outcome = await exports(podman);
    expect(errorCode(outcome)).toBe('builder-unsupported');
    expect(errorMessage(outcome)).toContain('`source-image`');
    expect(outcome.outputs).toEqual({ 'run-integration': 'false' });
    expect(docker.state().calls).toEqual([]);
    expect(service.artifacts).toEqual([]);
  });
});
