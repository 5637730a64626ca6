import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { digestOf, hexOf } from '../../shared/image/digest.ts';
import { parseIndex } from '../../shared/image/manifest.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';
import { makeImage, podmanTarball, savedTarball, savedTogether } from '../fixtures/image.ts';
import { errorCode, errorMessage, type Scenario, startScenario } from '../fixtures/scenario.ts';
import type { StepOutcome } from '../../dev/action-runner.ts';

// Writes the handed-over image as an OCI layout, with and without an engine.

let scenario: Scenario;
const begin = async (...options: Parameters<typeof startScenario>): Promise<void> => {
  scenario = await startScenario(...options);
};
afterEach(() => scenario.end());

const amd64 = { os: 'linux', architecture: 'amd64' };
const layout = (): string => join(scenario.directory, 'base');
const beside = (): readonly string[] => readdirSync(scenario.directory).filter((name) => name.startsWith('base'));
const tags = (): readonly string[] => scenario.docker.state().images.flatMap((image) => image.tags);
const refNames = (): readonly unknown[] => {
  const index = parseIndex(readFileSync(join(layout(), 'index.json')), 'index.json');
  return index.map(({ annotations }) => annotations['org.opencontainers.image.ref.name']);
};

async function uploadForeign(tarball: Buffer): Promise<void> {
  const files = Readable.from([{ name: 'charon.tar', size: tarball.length, chunks: Readable.from([tarball]) }]);
  await scenario.store().upload({ name: 'docker-image', retentionDays: 1, files, onBytes: () => undefined });
}

test('into none: writes a checked layout without using an engine (B.5)', async () => {
  await begin();
  await scenario.handOver();
  scenario.docker.set({ calls: [] });
  const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout() });
  expect(outcome.log).not.toContain('::error');
  expect(outcome.outputs).toMatchObject({
    image: 'charon:local',
    'image-id': '',
    'config-digest': scenario.image.configDigest,
    loaded: 'false',
    source: 'artifact',
  });
  expect(outcome.summary).toContain('Downloaded and verified');
  expect(outcome.summary).toContain(layout());
  expect(scenario.docker.state().calls).toEqual([]);
  const found = await readOciLayout(layout(), amd64);
  expect(found.manifestDigest).toBe(scenario.image.manifestDigest);
  const blobs = readdirSync(join(layout(), 'blobs', 'sha256'));
  expect(blobs.sort()).toEqual([...scenario.image.blobs.keys()].map(hexOf).sort());
  for (const blob of blobs) expect(hexOf(digestOf(readFileSync(join(layout(), 'blobs', 'sha256', blob))))).toBe(blob);
  expect(refNames()).toEqual(['local']);
  expect(beside()).toEqual(['base']);
});

test('with an engine: the image is also loaded', async () => {
  await begin();
  await scenario.handOver();
  const outcome = await scenario.loads({ 'oci-layout': layout(), image: 'ghcr.io/org/base:7' });
  expect(outcome.outputs).toMatchObject({ image: 'ghcr.io/org/base:7', loaded: 'true' });
  expect(tags()).toContain('ghcr.io/org/base:7');
  expect((await readOciLayout(layout(), amd64)).configDigest).toBe(scenario.image.configDigest);
  expect(refNames()).toEqual(['7']);
  // The engine has the image now; the layout is written anyway.
  const again = await scenario.loads({ 'oci-layout': join(scenario.directory, 'base-2'), image: 'ghcr.io/org/base:7' });
  expect(again.log).not.toContain('::error');
  expect(beside()).toEqual(['base', 'base-2']);
});

test('an image with several names has one in the layout, so a build doesn’t need a name', async () => {
  await begin();
  await scenario.handOver({ tags: 'ghcr.io/org/charon:1\ncharon:two' });
  await scenario.loads({ into: 'none', 'oci-layout': layout() });
  expect(refNames()).toEqual(['local']);
});

test('each image of an artifact has a name in the layout; image selects one', async () => {
  const [one, other] = [makeImage(), makeImage()];
  await begin();
  await uploadForeign(
    savedTogether([
      [one, ['app:one']],
      [other, ['app:other']],
    ]),
  );
  await scenario.loads({ into: 'none', 'oci-layout': layout() });
  expect(refNames()).toEqual(['one', 'other']);
  await scenario.loads({ into: 'none', 'oci-layout': layout(), image: 'app:other' });
  expect(refNames()).toEqual(['other']);
  expect((await readOciLayout(layout(), amd64)).configDigest).toBe(other.configDigest);
});

test('a Docker archive without a manifest gets a manifest of its content', async () => {
  const plain = makeImage({ gzip: false });
  await begin();
  await uploadForeign(podmanTarball(plain, ['charon:local']));
  const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout() });
  expect(outcome.log).not.toContain('::error');
  const found = await readOciLayout(layout(), amd64);
  expect(found.configDigest).toBe(plain.configDigest);
  expect(found.layers.map(({ digest }) => digest)).toEqual(plain.diffIds);
});

test('a tarball is kept without an engine', async () => {
  await begin();
  await scenario.handOver();
  const tarball = join(scenario.directory, 'kept.tar');
  const outcome = await scenario.loads({ into: 'none', tarball }, { env: { PATH: '/nowhere' } });
  expect(outcome.exitCode).toBe(0);
  expect(existsSync(tarball)).toBe(true);
});

describe.each([
  ['another filesystem', (folder: string) => ['-t', 'tmpfs', 'tmpfs', folder]],
  ['another folder of its filesystem', (folder: string) => ['--bind', `${folder}-source`, folder]],
])('a folder that is a mount point of %s', (_, mount) => {
  beforeEach(async () => {
    await begin();
    for (const folder of [layout(), `${layout()}-source`]) mkdirSync(folder);
    execFileSync('mount', mount(layout()));
  });
  // Runs before the scenario ends.
  afterEach(() => void execFileSync('umount', [layout()]));
  const load = (more: Readonly<Record<string, string>> = {}): Promise<StepOutcome> =>
    scenario.loads({ into: 'none', 'oci-layout': layout(), ...more });

  test('gets the layout, and later that of another image', async () => {
    for (const image of [makeImage(), makeImage()]) {
      await scenario.removeArtifacts('docker-image');
      await uploadForeign(savedTarball(image, ['charon:local']));
      expect((await load()).log).not.toContain('::error');
      expect(readdirSync(layout()).sort()).toEqual(['blobs', 'index.json', 'oci-layout']);
      expect((await readOciLayout(layout(), amd64)).configDigest).toBe(image.configDigest);
      expect(readdirSync(join(layout(), 'blobs', 'sha256'))).toHaveLength(image.blobs.size);
    }
  });

  test('is left unchanged if the image is wrong or the folder has other files', async () => {
    await scenario.handOver();
    expect(errorCode(await load({ 'expected-config-digest': makeImage().configDigest }))).toBe('image-mismatch');
    expect(readdirSync(layout())).toEqual([]);
    writeFileSync(join(layout(), 'mine.txt'), 'mine');
    expect(errorMessage(await load())).toContain('the folder contains other files (mine.txt), which are kept');
    expect(readdirSync(layout())).toEqual(['mine.txt']);
  });
});

describe('no partial layout is left', () => {
  test.each(['none', 'docker'])('by a damaged artifact (into: %s)', async (into) => {
    await begin();
    await scenario.handOver();
    await scenario.service.blobs.flipByte(scenario.service.artifacts[0]?.blob ?? '', 30_000);
    const outcome = await scenario.loads({ into, 'oci-layout': layout() });
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect([beside(), tags()]).toEqual([[], []]);
  });

  test('by an unexpected image, and the layout of an earlier step is kept', async () => {
    await begin();
    await scenario.handOver();
    await scenario.loads({ into: 'none', 'oci-layout': layout() });
    const inputs = { 'expected-config-digest': makeImage().configDigest };
    const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout(), ...inputs });
    expect(errorCode(outcome)).toBe('image-mismatch');
    expect((await readOciLayout(layout(), amd64)).configDigest).toBe(scenario.image.configDigest);
    expect(beside()).toEqual(['base']);
  });

  test('by an image that is detected only after its last byte', async () => {
    await begin();
    await uploadForeign(savedTarball(makeImage({ architecture: 'arm64' }), ['charon:local']));
    const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout() });
    expect(errorCode(outcome)).toBe('platform-mismatch');
    expect(beside()).toEqual([]);
  });

  test('a folder with other content is rejected before any download, and kept', async () => {
    await begin();
    await scenario.handOver();
    mkdirSync(layout());
    writeFileSync(join(layout(), 'mine.txt'), 'mine');
    const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout() });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('the folder contains other files (mine.txt), which are kept');
    expect(readdirSync(layout())).toEqual(['mine.txt']);
  });
});

describe('the target of an image', () => {
  test.each<[string, Readonly<Record<string, string>>, string]>([
    ['nowhere, with nothing kept', { into: 'none' }, '`into: none` leaves nothing behind'],
    ['to an unknown place', { into: 'nomad' }, 'is "nomad"; expected docker, none, kind, kind:NAME'],
    ['to a cluster without a name', { into: 'k3d' }, 'is "k3d"; expected'],
    ['to an invalid cluster name', { into: 'kind:a b' }, 'is "kind:a b"; expected'],
    ['to podman and a cluster', { into: 'kind', engine: 'podman' }, 'the image can go into only one of them'],
    ['from a registry to a cluster', { into: 'kind', from: 'registry' }, '`into: kind:kind` and `from: registry`'],
    ['from a registry to a layout', { 'oci-layout': 'x', from: 'registry' }, '`oci-layout` and `from: registry`'],
    ['to a cluster with a fallback', { into: 'kind', 'fallback-image': 'a:b' }, 'goes only into the engine'],
    ['several to one layout', { 'oci-layout': 'x', 'artifact-name': 'a*' }, '`oci-layout` can apply to one'],
    ['nothing to a cluster', { into: 'kind', load: 'false' }, '`into` can apply to one'],
  ])('%s is invalid-input', async (_, inputs, message) => {
    await begin();
    const outcome = await scenario.loads(inputs);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(message);
  });
});
