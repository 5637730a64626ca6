import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { pulledReferences, verbOf } from '../fakes/docker/state.ts';
import { makeImage, savedTarball } from '../fixtures/image.ts';
import { handOverMade } from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage, type Scenario } from '../fixtures/scenario.ts';
import { begin, scenario, useScenarios } from '../fixtures/scenario-suite.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { recordName } from '../../shared/image/record.ts';

useScenarios();

/** Uploads files as a third-party artifact. */
async function uploadForeign(name: string, files: Readonly<Record<string, Buffer>>): Promise<void> {
  const entries = Object.entries(files).map(([file, bytes]) => ({
    name: file,
    size: bytes.length,
    chunks: Readable.from([bytes]),
  }));
  await scenario.store().upload({ name, retentionDays: 1, files: Readable.from(entries), onBytes: () => undefined });
}

const handOverIt = (): Promise<void> => handOverMade(scenario.service, scenario.image);
const tags = (): readonly string[] => scenario.docker.state().images.flatMap((image) => image.tags);
const verbs = (): readonly string[] => scenario.docker.state().calls.map(verbOf);
const loads = (): number => verbs().filter((verb) => verb === 'load').length;
/** Returns the number of loads and pulls into the engine. */
const moves = (): number => verbs().filter((verb) => verb === 'load' || verb === 'pull').length;

describe('overlap: the engine fetches layer by layer', () => {
  const image = makeImage({ layers: 3, layerBytes: 400_000, gzip: false });
  const handOver = async (change: Parameters<Scenario['docker']['set']>[0] = {}): Promise<void> => {
    await begin({ image });
    await handOverIt();
    scenario.docker.set({ images: [], calls: [], ...change });
  };
  const pulls = (): number => verbs().filter((verb) => verb === 'pull').length;
  const pinned = (): readonly string[] => scenario.docker.state().images.flatMap((one) => one.pinned ?? []);

  test.each(['classic', 'containerd'] as const)(
    'on the %s store, where only its own tag is left afterwards',
    async (store) => {
      await handOver({ store });
      const outcome = await scenario.loads();
      expect(outcome.outputs).toMatchObject({ image: 'charon:local', loaded: 'true', source: 'artifact' });
      expect(Number(outcome.outputs['size'])).toBeGreaterThan(1_200_000);
      expect([pulls(), loads(), tags(), pinned()]).toEqual([1, 0, ['charon:local'], []]);
    },
  );

  test.each(['classic', 'containerd'] as const)('on the %s store, only the missing layers', async (store) => {
    const older = { imageId: 'sha256:old', tags: ['charon:old'], architecture: 'amd64', labels: {} };
    await handOver({ store, images: [{ ...older, diffIds: [...image.diffIds.slice(0, 2), 'sha256:other'] }] });
    const outcome = await scenario.loads();
    expect(outcome.log).toContain('The engine already has 2 of 3 layers');
    expect(Number(outcome.outputs['size'])).toBeLessThan(500_000);
    expect([...tags()].sort()).toEqual(['charon:local', 'charon:old']);
  });

  test('a remote engine gets the whole tarball through docker load, and the log shows this', async () => {
    await handOver({ fail: 'far-away' });
    const outcome = await scenario.loads();
    expect(outcome.log).toMatch(/can't fetch layers from this step: .*connection refused.* Sending the whole tarball/);
    expect(outcome.outputs['loaded']).toBe('true');
    expect([pulls(), loads(), tags(), pinned()]).toEqual([1, 1, ['charon:local'], []]);
  });

  test.each<[string, Readonly<Record<string, string>>]>([
    ['overlap: false', { overlap: 'false' }],
    ['a tarball that is kept', { tarball: 'kept.tar' }],
  ])('not with %s', async (_, inputs) => {
    await handOver();
    const { tarball } = inputs;
    const outcome = await scenario.loads(
      tarball === undefined ? inputs : { tarball: join(scenario.directory, tarball) },
    );
    expect(outcome.outputs['loaded']).toBe('true');
    expect([pulls(), loads()]).toEqual([0, 1]);
  });

  test('damage to a layer: artifact-corrupt, and no tag is left', async () => {
    await handOver();
    const { service } = scenario;
    for (const at of [200_000, 600_000, 1_000_000]) await service.blobs.flipByte(service.artifacts[0]?.blob ?? '', at);
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect([tags(), pinned()]).toEqual([[], []]);
  });

  test('a temporary tag that can’t be removed is reported, but isn’t a failure', async () => {
    await handOver({ fail: 'keeps-references' });
    const outcome = await scenario.loads();
    expect(outcome.annotations).toMatchObject([
      {
        level: 'warning',
        message: expect.stringMatching(
          /^The reference 127\.0\.0\.1:.* could not be removed from the engine: .*conflict/,
        ),
      },
    ]);
    expect([outcome.exitCode, tags()]).toEqual([0, ['charon:local']]);
  });

  test('the artifact’s content is missing: artifact-expired, without another attempt', async () => {
    await handOver();
    scenario.service.faults.add({ on: 'get', after: 4, times: 50, effect: { kind: 'status', status: 404 } });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-expired');
    expect([pulls(), loads(), tags(), pinned()]).toEqual([1, 0, [], []]);
  });
});

describe('overlap: gzip layers are decompressed during the transfer', () => {
  const image = makeImage({ layers: 2, layerBytes: 8_000_000, compressible: true });
  const state = (): ReturnType<Scenario['docker']['state']> => scenario.docker.state();
  const handOver = async (
    store: 'classic' | 'containerd',
    change: Parameters<Scenario['docker']['set']>[0] = {},
    handed = image,
  ): Promise<void> => {
    await begin({ image: handed });
    await handOverIt();
    scenario.docker.set({ store, images: [], calls: [], ...change });
  };
  const moved = (): readonly string[] => verbs().filter((verb) => ['pull', 'load'].includes(verb));
  const names = (): readonly string[] => state().images.flatMap(({ tags: all, pinned = [] }) => [...all, ...pinned]);
  test('the classic store, which keeps no compressed layers, gets only decompressed ones', async () => {
    await handOver('classic');
    const outcome = await scenario.loads();
    expect(outcome.log).toContain('Unpacked for the engine: 2 of the 2 layers that it requested.');
    expect(outcome.outputs).toMatchObject({ loaded: 'true', source: 'artifact' });
    expect([moved(), names()]).toEqual([['pull'], ['charon:local']]);
  });

  test('the containerd store gets them unchanged, and nothing is downloaded twice', async () => {
    await handOver('containerd');
    const outcome = await scenario.loads();
    expect(outcome.log).not.toContain('Unpacked for the engine');
    const layers = image.layerDigests.reduce((sum, digest) => sum + (image.blobs.get(digest)?.length ?? 0), 0);
    expect(Number(outcome.outputs['size'])).toBe(layers);
    expect([moved(), names()]).toEqual([['pull'], ['charon:local']]);
  });

  test('a layer with a wrong length in its trailer: docker load gets the whole tarball, and the log shows this', async () => {
    const members = makeImage({ layers: 1, layerBytes: 20_000_000, compressible: true, gzipMembers: [0.1, 0.9] });
    for (const store of ['classic', 'containerd'] as const) {
      await handOver(store, {}, members);
      const outcome = await scenario.loads();
      const told =
        /can't be unpacked while it is sent: its unpacked length is not the \d+ bytes .* Sending the whole tarball/;
      expect(told.test(outcome.log)).toBe(store === 'classic');
      expect(outcome.outputs).toMatchObject({ loaded: 'true', 'config-digest': members.configDigest });
      expect(names()).toEqual(['charon:local']);
      if (store === 'classic') await scenario.end();
    }
  });

  test.each(['classic', 'containerd'] as const)(
    'damage: artifact-corrupt on the %s store, and no tag is left',
    async (store) => {
      await handOver(store);
      await scenario.service.blobs.flipByte(scenario.service.artifacts[0]?.blob ?? '', 3_000_000);
      const outcome = await scenario.loads();
      expect([errorCode(outcome), names()]).toEqual(['artifact-corrupt', []]);
    },
  );

  test('the artifact’s content disappears meanwhile: artifact-expired, and no whole tarball afterwards', async () => {
    await handOver('containerd');
    scenario.service.faults.add({ on: 'get', after: 8, times: 50, effect: { kind: 'status', status: 404 } });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-expired');
    expect([moved(), names()]).toEqual([['pull'], []]);
  });

  test('a remote engine: nothing hangs, and no temporary tag is left', async () => {
    await handOver('containerd', { fail: 'far-away' });
    expect(errorCode(await scenario.loads())).toBeUndefined();
    expect(names()).toEqual(['charon:local']);
  });

  test('no temporary tag is left either if docker load of the whole tarball then fails', async () => {
    await handOver('containerd', { fail: 'load' });
    expect(errorCode(await scenario.loads({ overlap: 'false' }))).toBe('load-failed');
    expect(names()).toEqual([]);
  });
});

describe('layers that the engine has already, without overlap', () => {
  const handOverLarge = async (store: 'classic' | 'containerd'): Promise<Scenario> => {
    const started = await begin({ image: makeImage({ layers: 3, layerBytes: 400_000, gzip: false }) });
    await handOverIt();
    const { diffIds } = started.image;
    const older = { imageId: 'sha256:old', tags: ['charon:old'], architecture: 'amd64', labels: {} };
    started.docker.set({ store, images: [{ ...older, diffIds: [...diffIds.slice(0, 2), 'sha256:other'] }] });
    return started;
  };

  test.each(['classic', 'containerd'] as const)('are all sent to the %s store', async (store) => {
    await handOverLarge(store);
    const outcome = await scenario.loads({ overlap: 'false' });
    expect(outcome.outputs).toMatchObject({ image: 'charon:local', loaded: 'true' });
    expect(Number(outcome.outputs['size'])).toBeGreaterThan(1_200_000);
    expect(tags()).toContain('charon:local');
  });

  test('damage to any of them: artifact-corrupt, and no tag', async () => {
    const { service } = await handOverLarge('classic');
    // One byte in each layer, in any order.
    for (const at of [200_000, 600_000, 1_000_000]) await service.blobs.flipByte(service.artifacts[0]?.blob ?? '', at);
    const outcome = await scenario.loads({ overlap: 'false' });
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(tags()).not.toContain('charon:local');
  });

  test('a kept tarball is complete anyway', async () => {
    const { directory, image } = await handOverLarge('classic');
    const kept = join(directory, 'kept.tar');
    await scenario.loads({ tarball: kept });
    expect(digestOf(await readFile(kept))).toBe(digestOf(savedTarball(image, ['charon:local'])));
  });
});

describe.each(['classic', 'containerd'] as const)('on the %s store', (store) => {
  test('loads the handed-over image, and proves that it is the same image (S0.4, C.4)', async () => {
    const { handOver, image } = await begin({ docker: { store } });
    await handOver();
    const outcome = await scenario.loads();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({
      image: 'charon:local',
      'image-id': store === 'classic' ? image.configDigest : image.manifestDigest,
      'config-digest': image.configDigest,
      platform: 'linux/amd64',
      'artifact-id': '1000',
      loaded: 'true',
    });
    expect(outcome.summary).toContain('Loaded and verified `charon:local`');
    expect(tags()).toContain('charon:local');
  });

  test('an engine that already has the image loads nothing and transfers less than 100 kB (S4.3)', async () => {
    const { service } = await begin({ docker: { store }, image: makeImage({ layerBytes: 400_000 }) });
    await handOverIt();
    await scenario.loads();
    const before = service.traffic.down;
    const outcome = await scenario.loads();
    expect(outcome.outputs).toMatchObject({ image: 'charon:local', loaded: 'false', size: '0' });
    expect(service.traffic.down - before).toBeLessThan(100_000);
    expect(moves()).toBe(1);
  });

  test('another image with the same tag is not used', async () => {
    const { docker } = await begin({ docker: { store } });
    await handOverIt();
    docker.set({
      images: [
        { imageId: 'sha256:old', tags: ['charon:local'], diffIds: ['sha256:x'], architecture: 'amd64', labels: {} },
      ],
    });
    const outcome = await scenario.loads();
    expect(outcome.outputs['loaded']).toBe('true');
    expect(moves()).toBe(1);
  });

  test('a swapped image is artifact-corrupt, and the tag is unchanged', async () => {
    const { docker } = await begin({ docker: { store } });
    await handOverIt();
    const real = await scenario.store().list();
    const record = await readRecord();
    const other = savedTarball(makeImage({ layers: 2 }), ['charon:local']);
    await scenario.removeArtifacts(real[0]?.name ?? '');
    const { tarballName } = JSON.parse(record);
    const swapped = { ...JSON.parse(record), tarballSize: other.length };
    await uploadForeign('docker-image', { [tarballName]: other, [recordName]: Buffer.from(JSON.stringify(swapped)) });
    const old = {
      imageId: 'sha256:old',
      tags: ['charon:local'],
      diffIds: ['sha256:x'],
      architecture: 'amd64',
      labels: {},
    };
    docker.set({ images: [old] });
    const outcome = await scenario.loads();
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(docker.state().images.find((image) => image.tags.includes('charon:local'))?.imageId).toBe('sha256:old');
  });
});

async function readRecord(): Promise<string> {
  const store = scenario.store();
  const [artifact] = await store.list();
  if (artifact === undefined) throw new Error('nothing was handed over');
  return (await (await store.open(artifact)).text(recordName)) ?? '';
}

describe('inputs', () => {
  test('image: the image gets that tag, and the log shows it', async () => {
    await begin();
    await handOverIt();
    const outcome = await scenario.loads({ image: 'app:test' });
    expect(outcome.outputs['image']).toBe('app:test');
    expect(tags()).toContain('app:test');
    expect(outcome.log).toContain('Verified: app:test is the image that was handed over');
  });

  test('tarball: the file is kept there unchanged, without a partial file', async () => {
    const { handOver, directory } = await begin();
    await handOver();
    const path = join(directory, 'kept', 'charon.tar');
    const outcome = await scenario.loads({ tarball: path });
    expect(outcome.exitCode).toBe(0);
    expect(digestOf(await readFile(path))).toBe(digestOf(await readFile(join(directory, 'saved.tar'))));
  });

  test('expected-config-digest of another build: image-mismatch before anything is loaded', async () => {
    await begin();
    await handOverIt();
    const outcome = await scenario.loads({ 'expected-config-digest': `sha256:${'0'.repeat(64)}` });
    expect(errorCode(outcome)).toBe('image-mismatch');
    expect(moves()).toBe(0);
  });

  test('expected-revision is compared with the image’s label (S1.8)', async () => {
    await begin();
    await handOverIt();
    expect((await scenario.loads({ 'expected-revision': 'abc123' })).exitCode).toBe(0);
    const outcome = await scenario.loads({ 'expected-revision': 'def456' });
    expect(errorCode(outcome)).toBe('revision-mismatch');
    expect(errorMessage(outcome)).toContain('abc123');
  });

  test('an image of another platform is a platform-mismatch, unless the check is off', async () => {
    const { handOver } = await begin({ image: makeImage({ architecture: 'arm64' }) });
    await handOver({ platform: 'linux/arm64' });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('platform-mismatch');
    expect(moves()).toBe(0);
    expect((await scenario.loads({ 'check-platform': 'false' })).exitCode).toBe(0);
  });

  test('no command connects to a registry (S0.5)', async () => {
    const { docker } = await begin();
    await handOverIt();
    await scenario.loads();
    // It pulls only from the step itself.
    expect(pulledReferences(docker.state())).toEqual([expect.stringMatching(/^127\.0\.0\.1:\d+\//)]);
    for (const verb of ['login', 'push', 'search']) expect(docker.state().calls.flat()).not.toContain(verb);
  });
});

describe('docker’s own command checks the result', () => {
  const named = { image: 'charon:local', tags: 'charon:local\ncharon:other' };

  test('it runs once, for all references, after the last tag is set (C.4)', async () => {
    const { handOver, loads, docker } = await begin();
    await handOver(named);
    for (const loaded of ['true', 'false']) {
      docker.set({ calls: [] });
      expect((await loads()).outputs['loaded']).toBe(loaded);
      const { calls } = docker.state();
      const commands = calls.filter(([first]) => first === 'image');
      expect(commands).toEqual([['image', 'inspect', '--format', '{{json .}}', 'charon:local', 'charon:other']]);
      expect(calls.slice(calls.indexOf(commands[0] ?? [])).map(verbOf)).not.toContain('tag');
    }
  });

  test('image-missing: it finds no image, so no tag is left (C.4)', async () => {
    const { handOver, loads, docker } = await begin();
    await handOver(named);
    docker.set({ fail: 'other-engine' });
    const outcome = await loads();
    expect(errorCode(outcome)).toBe('image-missing');
    expect(errorMessage(outcome)).toContain('docker image inspect charon:local charon:other failed with exit code 1');
    expect(errorMessage(outcome)).toContain('No such image: charon:other');
    expect(docker.state().images).toEqual([]);
  });

  test('if only docker can reach the engine, all queries use its commands, and the image is the same (S0.4)', async () => {
    const { handOver, loads, docker, image } = await begin();
    await handOver(named);
    const outcome = await loads({}, { env: { DOCKER_HOST: 'ssh://me@far' } });
    expect(outcome.outputs).toMatchObject({ loaded: 'true', 'config-digest': image.configDigest });
    expect(docker.state().calls.filter(([first = '']) => /^[A-Z]+$/.test(first))).toEqual([]);
    expect(tags()).toEqual(['charon:local', 'charon:other']);
  });
});

describe('third-party artifacts', () => {
  test.each([
    ['plain', (bytes: Buffer) => bytes, 'charon.tar'],
    ['gzip', (bytes: Buffer) => gzipSync(bytes), 'charon.tar.gz'],
    ['zstd', (bytes: Buffer) => zstdCompressSync(bytes), 'charon.tar.zst'],
    [
      'two zstd frames',
      (bytes: Buffer) =>
        Buffer.concat([zstdCompressSync(bytes.subarray(0, 9999)), zstdCompressSync(bytes.subarray(9999))]),
      'c.tar.zst',
    ],
  ])('a zipped %s tarball of docker save is loaded', async (_, pack, name) => {
    const { image } = await begin();
    await uploadForeign('docker-image', { [name]: pack(savedTarball(image, ['charon:local'])) });
    const outcome = await scenario.loads();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({
      image: 'charon:local',
      'config-digest': image.configDigest,
      loaded: 'true',
    });
    expect(outcome.summary).toContain("the tarball's own manifest and config");
  });

  test('an image with another name gets only the requested name', async () => {
    const { image } = await begin();
    await uploadForeign('docker-image', { 'app.tar': savedTarball(image, ['app:built']) });
    const outcome = await scenario.loads({ image: 'charon:local' });
    expect(outcome.outputs['image']).toBe('charon:local');
    expect(tags()).toEqual(['charon:local']);
  });

  test('an image without a name becomes charon:local', async () => {
    const { image } = await begin();
    await uploadForeign('docker-image', { 'app.tar': savedTarball(image, []) });
    const outcome = await scenario.loads();
    expect(outcome.outputs['image']).toBe('charon:local');
  });

  test('the tarball among other files is found; two tarballs are an error that lists them', async () => {
    const { image } = await begin();
    const tarball = savedTarball(image, ['charon:local']);
    await uploadForeign('one', { 'README.md': Buffer.from('x'), 'charon.tar': tarball });
    await uploadForeign('two', { 'a.tar': tarball, 'b.tar': tarball });
    expect((await scenario.loads({ 'artifact-name': 'one' })).exitCode).toBe(0);
    const outcome = await scenario.loads({ 'artifact-name': 'two' });
    expect(errorCode(outcome)).toBe('image-not-found');
    expect(errorMessage(outcome)).toContain('a.tar, b.tar');
  });

  test('a truncated tarball in an intact artifact leaves no tag', async () => {
    const { image } = await begin();
    const tarball = savedTarball(image, ['charon:local']);
    await uploadForeign('docker-image', { 'charon.tar': tarball.subarray(0, tarball.length - 3000) });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(tags()).toEqual([]);
  });

  test('a newer record is reported as such', async () => {
    const { image } = await begin();
    const record = Buffer.from(JSON.stringify({ schema: 2 }));
    await uploadForeign('docker-image', { 'charon.tar': savedTarball(image, ['charon:local']), [recordName]: record });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(errorMessage(outcome)).toContain('newer export-image');
  });
});

describe('artifacts that must fail the step', () => {
  test('a wrong name immediately lists the run’s artifacts (S0.8)', async () => {
    await begin();
    await handOverIt();
    const outcome = await scenario.loads({ 'artifact-name': 'docker-imaeg' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('it has "docker-image"');
  });

  test('in a re-run, a missing artifact may have expired: the error suggests the next step (S3.4)', async () => {
    const { service } = await begin();
    await handOverIt();
    service.expire('docker-image');
    const outcome = await scenario.loads({}, { job: { attempt: 2 } });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('Re-run all jobs');
    expect(errorMessage(outcome)).toContain('retention-days');
  });

  test('the blob is missing although the artifact is listed: artifact-expired (S3.4)', async () => {
    const { service } = await begin();
    await handOverIt();
    await service.blobs.remove(service.artifacts[0]?.blob ?? '');
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-expired');
  });

  test.each([
    ['a flipped byte', (blob: string) => scenario.service.blobs.flipByte(blob, 20_000), 'artifact-corrupt'],
    ['a truncated blob', (blob: string) => scenario.service.blobs.cut(blob, 50_000), 'artifact-corrupt'],
  ])('%s in the blob is an error', async (_, damage, code) => {
    const { service, directory } = await begin();
    await handOverIt();
    await damage(service.artifacts[0]?.blob ?? '');
    const kept = join(directory, 'kept.tar');
    const outcome = await scenario.loads({ tarball: kept });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe(code);
    expect(tags()).toEqual([]);
    expect(existsSync(kept)).toBe(false);
  });

  test.each([
    ['load', 'load-failed', 'no space left on device'],
    ['unpack', 'load-failed', 'Error unpacking image'],
    ['silent-load', 'image-missing', ''],
  ] as const)('docker load that fails with "%s" fails the step (C.4)', async (fail, code, message) => {
    await begin({ docker: { store: 'containerd', fail } });
    await handOverIt();
    const outcome = await scenario.loads({ overlap: 'false' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe(code);
    expect(errorMessage(outcome)).toContain(message);
    expect(tags()).toEqual([]);
  });
});
