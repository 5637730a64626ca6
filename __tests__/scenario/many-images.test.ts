import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type FixtureImage, makeImage, savedTarball, savedTogether } from '../fixtures/image.ts';
import { handOverMade } from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage, type Scenario, type ScenarioOptions, startScenario } from '../fixtures/scenario.ts';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { recordName } from '../../shared/image/record.ts';

const components = ['engine', 'operate-ui', 'runtime'] as const;
type Component = (typeof components)[number];

let scenario: Scenario;
let images: Readonly<Record<Component, FixtureImage>>;
afterEach(() => scenario.end());

/** Starts a scenario with the result of a matrix: an artifact and an image for each component. */
async function begin(options: ScenarioOptions & { readonly without?: Component } = {}): Promise<void> {
  scenario = await startScenario(options);
  const make = (): FixtureImage => makeImage({ layerBytes: 200_000 });
  images = { engine: make(), 'operate-ui': make(), runtime: make() };
  for (const name of components) if (name !== options.without) await handOver(name);
}

const handOver = (name: Component, reference = `${name}:local`, artifact = `docker-image-${name}`): Promise<void> =>
  handOverMade(scenario.service, images[name], { reference, artifact });

async function upload(name: string, file: string, bytes: Buffer): Promise<void> {
  const files = Readable.from([{ name: file, size: bytes.length, chunks: Readable.from([bytes]) }]);
  await scenario.store().upload({ name, retentionDays: 1, files, onBytes: () => undefined });
}

const tags = (): readonly string[] => scenario.docker.state().images.flatMap((image) => image.tags);
const sortedTags = (): readonly string[] => [...tags()].sort();
const blobOf = (name: string): string =>
  scenario.service.artifacts.findLast((artifact) => artifact.name === name)?.blob ?? '';
const idOf = (name: Component): string =>
  String(scenario.service.artifacts.findLast((artifact) => artifact.name === `docker-image-${name}`)?.id);
const mappingOf = (outcome: StepOutcome): unknown => JSON.parse(outcome.outputs['images'] ?? '');
const entry = (name: Component): object => ({
  reference: `${name}:local`,
  'config-digest': images[name].configDigest,
  'manifest-digest': images[name].manifestDigest,
  'pushed-reference': '',
  platform: 'linux/amd64',
  size: scenario.service.artifacts.findLast((artifact) => artifact.name === `docker-image-${name}`)?.size,
});
const wholeMapping = (): object => Object.fromEntries(components.map((name) => [`docker-image-${name}`, entry(name)]));

async function digestsIn(name: string): Promise<{ files: readonly string[]; text: string }> {
  const store = scenario.store();
  const found = (await store.list()).find((artifact) => artifact.name === name);
  if (found === undefined) throw new Error(`no artifact ${name}`);
  const content = await store.open(found);
  return {
    files: content.files.map((file) => file.name),
    text: (await content.text('docker-image-digests.json')) ?? '',
  };
}

describe('the images of a matrix (S3.1)', () => {
  test.each([
    ['a pattern', 'docker-image-*'],
    ['names on separate lines', 'docker-image-engine\ndocker-image-operate-ui\ndocker-image-runtime\n'],
    [
      'names separated by commas, one of them twice',
      'docker-image-runtime, docker-image-engine,docker-image-*-ui,docker-image-runtime',
    ],
  ])('%s load and verify all images (S3.1)', async (_, names) => {
    await begin();
    const outcome = await scenario.loads({ 'artifact-name': names });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.exitCode).toBe(0);
    expect(sortedTags()).toEqual(['engine:local', 'operate-ui:local', 'runtime:local']);
    expect(mappingOf(outcome)).toEqual(wholeMapping());
    expect(outcome.outputs).toMatchObject({ loaded: 'true', image: '', 'config-digest': '' });
    expect(outcome.summary).toContain('Loaded and verified 3 images');
    for (const name of components) {
      expect(outcome.log).toContain(`docker-image-${name}: Verified: ${name}:local`);
      expect(outcome.summary).toContain(images[name].configDigest);
    }
  });

  test('a pattern that matches one image gives the outputs of one image (S3.1)', async () => {
    await begin();
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-?ngine' });
    expect(outcome.outputs).toMatchObject({ image: 'engine:local', 'config-digest': images.engine.configDigest });
    expect(tags()).toEqual(['engine:local']);
  });

  test('one name also gives the mapping (S3.1)', async () => {
    await begin();
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-engine' });
    expect(mappingOf(outcome)).toEqual({ 'docker-image-engine': entry('engine') });
    expect(outcome.summary).toContain('Loaded and verified `engine:local`');
  });

  test('the newest artifact of each name is used, across all attempts (S3.1)', async () => {
    await begin({ without: 'runtime' });
    const path = join(scenario.directory, 'runtime.tar');
    const inputs = { 'source-tarball': path, image: 'runtime:local', 'artifact-name': 'docker-image-runtime' };
    for (const attempt of [1, 2]) {
      images = { ...images, runtime: makeImage() };
      await writeFile(path, savedTarball(images.runtime, ['runtime:local']));
      await scenario.handOver(inputs, { jobKey: 'runtime', job: { attempt } });
    }
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*' }, { job: { attempt: 2 } });
    expect(mappingOf(outcome)).toEqual(wholeMapping());
  });

  test('`artifact-ids` loads exactly these artifacts', async () => {
    await begin();
    const both = await scenario.loads({ 'artifact-ids': `${idOf('engine')}, ${idOf('runtime')}` });
    expect(both.log).not.toContain('::error');
    expect(sortedTags()).toEqual(['engine:local', 'runtime:local']);
    expect(mappingOf(both)).toEqual({
      'docker-image-engine': entry('engine'),
      'docker-image-runtime': entry('runtime'),
    });
  });

  test('one id in `artifact-ids` selects one image, to which all inputs apply, and its name is in the mapping', async () => {
    await begin();
    const { configDigest } = images.runtime;
    const inputs = { 'artifact-ids': idOf('runtime'), 'expected-config-digest': configDigest };
    for (const attempt of [1, 2]) {
      const more = { image: 'charon:pinned', 'digests-artifact': 'digests' };
      const outcome = await scenario.loads({ ...inputs, ...more }, { job: { attempt } });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs).toMatchObject({ image: 'charon:pinned', 'artifact-id': idOf('runtime') });
      const renamed = { ...entry('runtime'), reference: 'charon:pinned' };
      expect(mappingOf(outcome)).toEqual({ 'docker-image-runtime': renamed });
    }
  });

  test('an id that is not in this run is artifact-not-found with that id; an empty input is invalid-input', async () => {
    await begin();
    const outcome = await scenario.loads({ 'artifact-ids': `${idOf('engine')}\n999999` });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('no artifact "id:999999"; it has ');
    expect(errorMessage(outcome)).toContain(`"docker-image-engine" (id:${idOf('engine')})`);
    expect(tags()).toEqual([]);
    expect(errorCode(await scenario.loads({ 'artifact-ids': '' }))).toBe('invalid-input');
  });

  test('an engine that has all images loads none (S3.1)', async () => {
    await begin();
    await scenario.loads({ 'artifact-name': 'docker-image-*' });
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*' });
    expect(outcome.outputs).toMatchObject({ loaded: 'false', size: '0' });
    expect(outcome.summary).toContain('already here');
  });

  test('a missing artifact is artifact-not-found with its name, and nothing is loaded (S3.1)', async () => {
    await begin({ without: 'runtime' });
    const names = 'docker-image-engine\ndocker-image-runtime\ndocker-imaeg-*';
    const outcome = await scenario.loads({ 'artifact-name': names });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('no artifact "docker-image-runtime" and no "docker-imaeg-*"');
    expect(errorMessage(outcome)).toContain('it has "docker-image-operate-ui", "docker-image-engine"');
    expect(tags()).toEqual([]);
  });

  test('the error names a damaged artifact; the other images are loaded and kept (S3.1)', async () => {
    await begin();
    await scenario.service.blobs.flipByte(blobOf('docker-image-runtime'), 100_000);
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(errorMessage(outcome)).toContain('1 of 3 images could not be loaded.');
    expect(errorMessage(outcome)).toContain('Verified and loaded: docker-image-engine, docker-image-operate-ui.');
    expect(errorMessage(outcome)).toMatch(/^- docker-image-runtime: .*\(artifact-corrupt\)$/m);
    expect(sortedTags()).toEqual(['engine:local', 'operate-ui:local']);
  });

  test('two artifacts that fail for different reasons are both in the error, as load-failed (S3.1)', async () => {
    await begin();
    await scenario.service.blobs.flipByte(blobOf('docker-image-runtime'), 100_000);
    await scenario.service.blobs.remove(blobOf('docker-image-engine'));
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*' });
    expect(errorCode(outcome)).toBe('load-failed');
    expect(errorMessage(outcome)).toMatch(/^- docker-image-runtime: .*\(artifact-corrupt\)$/m);
    expect(errorMessage(outcome)).toMatch(/^- docker-image-engine: .*\(artifact-expired\)$/m);
    expect(tags()).toEqual(['operate-ui:local']);
  });

  test('two different images with one reference are rejected before the load (S3.1)', async () => {
    await begin({ without: 'runtime' });
    await handOver('runtime', 'engine:local');
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*' });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('"docker-image-engine" and "docker-image-runtime" hold different images');
    expect(tags()).toEqual([]);
  });

  test('two third-party artifacts that set the same tag don’t both pass (S3.1)', async () => {
    // The second one arrives long after the first one has been verified.
    scenario = await startScenario({ service: { link: { bytesPerSecond: 1_000_000 } } });
    await upload('foreign-1', 'a.tar', savedTarball(makeImage({ layerBytes: 100 }), ['charon:local']));
    await upload('foreign-2', 'b.tar', savedTarball(makeImage({ layerBytes: 1_500_000 }), ['charon:local']));
    const outcome = await scenario.loads({ 'artifact-name': 'foreign-*' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('image-mismatch');
    expect(errorMessage(outcome)).toContain(
      '- foreign-1: charon:local was loaded and verified, but is another image now',
    );
  });

  test.each([
    ['image', 'charon:local'],
    ['tarball', '/tmp/charon.tar'],
    ['expected-config-digest', `sha256:${'0'.repeat(64)}`],
  ])('%s is rejected for several images (S3.1)', async (input, value) => {
    await begin({ without: 'runtime' });
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*', [input]: value });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(`\`${input}\` can apply to one loaded image only`);
  });

  test('a cancellation ends all loads, and leaves no tag (S3.1)', async () => {
    await begin({ service: { link: { bytesPerSecond: 400_000 } } });
    const controller = new AbortController();
    const outcome = await scenario.loads(
      { 'artifact-name': 'docker-image-*' },
      {
        signal: controller.signal,
        onOutput: (text) => {
          if (text.includes('at most 3 at once')) controller.abort();
        },
      },
    );
    expect(errorCode(outcome)).toBe('cancelled');
    expect(tags()).toEqual([]);
  });
});

describe('the digests for later jobs (S3.2)', () => {
  test('load: false gives the mapping with a download of a few kilobytes, without docker (S3.2)', async () => {
    await begin();
    const { service, docker } = scenario;
    const before = { down: service.traffic.down, calls: docker.state().calls.length };
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*', load: 'false' }, { env: { PATH: '' } });
    expect(outcome.exitCode).toBe(0);
    expect(mappingOf(outcome)).toEqual(wholeMapping());
    expect(outcome.outputs).toMatchObject({ loaded: 'false', size: '0', image: '' });
    expect(service.traffic.down - before.down).toBeLessThan(3 * 100_000);
    expect(docker.state().calls).toHaveLength(before.calls);
    expect(outcome.summary).toContain('Digests of 3 images');
  });

  test('one image gives its digest as an output, and expectations are checked (S3.2)', async () => {
    await begin();
    const inputs = { 'artifact-name': 'docker-image-engine', load: 'false' };
    const outcome = await scenario.loads(inputs);
    expect(outcome.outputs).toMatchObject({ 'config-digest': images.engine.configDigest, platform: 'linux/amd64' });
    const wrong = await scenario.loads({ ...inputs, 'expected-config-digest': `sha256:${'0'.repeat(64)}` });
    expect(errorCode(wrong)).toBe('image-mismatch');
    const asked = await scenario.loads({ ...inputs, image: 'charon:local' });
    expect(errorCode(asked)).toBe('invalid-input');
    expect(scenario.docker.state().calls).toEqual([]);
  });

  test('an artifact without a record has no digest: the error shows its name (S3.2)', async () => {
    await begin({ without: 'runtime' });
    await upload('docker-image-runtime', 'runtime.tar', savedTarball(images.runtime, ['runtime:local']));
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-*', load: 'false' });
    expect(errorCode(outcome)).toBe('image-not-found');
    expect(errorMessage(outcome)).toContain(`"docker-image-runtime" has no ${recordName}`);
  });

  test.each(['true', 'false'])('load: %s uploads the mapping as docker-image-digests.json (S3.2)', async (load) => {
    await begin();
    const inputs = { 'artifact-name': 'docker-image-*', load, 'digests-artifact': 'docker-image-digests' };
    const outcome = await scenario.loads(inputs);
    expect(outcome.log).not.toContain('::error');
    const { files, text } = await digestsIn('docker-image-digests');
    expect(files).toEqual(['docker-image-digests.json']);
    expect(JSON.parse(text)).toEqual(wholeMapping());
    expect(outcome.summary).toContain('`docker-image-digests`');

    // The pattern also matches the new artifact, which contains no image.
    const later = await scenario.loads({ 'artifact-name': 'docker-image-*', load });
    expect(later.log).not.toContain('::error');
    expect(mappingOf(later)).toEqual(wholeMapping());
  });

  test('a re-run replaces its mapping; a mapping of other images is artifact-name-taken (S3.2)', async () => {
    await begin();
    const inputs = { 'artifact-name': 'docker-image-engine', load: 'false', 'digests-artifact': 'digests' };
    await scenario.loads(inputs);
    const all = { ...inputs, 'artifact-name': 'docker-image-*' };
    const again = await scenario.loads(all, { job: { attempt: 2 } });
    expect(again.exitCode).toBe(0);
    expect(JSON.parse((await digestsIn('digests')).text)).toEqual(wholeMapping());
    const other = await scenario.loads(inputs);
    expect(errorCode(other)).toBe('artifact-name-taken');
    expect(errorMessage(other)).toContain('docker-image-operate-ui');
    const image = await scenario.loads({ ...all, 'digests-artifact': 'docker-image-runtime' });
    expect(errorCode(image)).toBe('artifact-name-taken');
    expect(scenario.service.artifacts.some(({ name }) => name === 'docker-image-runtime')).toBe(true);
  });
});

describe.each(['classic', 'containerd'] as const)(
  'one artifact with several images, on the %s store (S3.1)',
  (store) => {
    const together = (): Buffer =>
      savedTogether([
        [images.engine, ['engine:local', 'engine:1']],
        [images.runtime, ['runtime:local']],
      ]);

    test('each image is loaded and verified, and the mapping lists them by reference (S3.1)', async () => {
      await begin({ docker: { store }, without: 'runtime' });
      await upload('both', 'both.tar', together());
      const outcome = await scenario.loads({ 'artifact-name': 'both' });
      expect(outcome.log).not.toContain('::error');
      expect(sortedTags()).toEqual(['engine:1', 'engine:local', 'runtime:local']);
      const size = scenario.service.artifacts.find(({ name }) => name === 'both')?.size;
      expect(mappingOf(outcome)).toEqual({
        'engine:local': { ...entry('engine'), size },
        'runtime:local': { ...entry('runtime'), size },
      });
      expect(outcome.log).toContain('Verified: runtime:local');
      expect(outcome.summary).toContain('Loaded and verified 2 images');
    });

    test('`image` selects one of them; a missing reference is an error that lists them (S3.1)', async () => {
      await begin({ docker: { store }, without: 'runtime' });
      await upload('both', 'both.tar', together());
      const outcome = await scenario.loads({ 'artifact-name': 'both', image: 'runtime:local' });
      expect(outcome.outputs).toMatchObject({ image: 'runtime:local', 'config-digest': images.runtime.configDigest });
      const nameless = savedTogether([
        [images.engine, ['engine:local']],
        [images.runtime, []],
      ]);
      await upload('nameless', 'both.tar', nameless);
      expect(errorCode(await scenario.loads({ 'artifact-name': 'nameless' }))).toBe('image-not-found');
    });

    test('if another image is for a different platform, none is kept (S3.1)', async () => {
      await begin({ docker: { store }, without: 'runtime' });
      images = { ...images, runtime: makeImage({ architecture: 'arm64' }) };
      await upload('both', 'both.tar', together());
      const outcome = await scenario.loads({ 'artifact-name': 'both' });
      expect(errorCode(outcome)).toBe('platform-mismatch');
      expect(tags()).toEqual([]);
    });
  },
);

describe('with `remove: true`', () => {
  const there = async (): Promise<readonly string[]> => (await scenario.store().list()).map(({ name }) => name).sort();

  test('the artifacts of the loaded images are removed, of all attempts, and no others', async () => {
    await begin();
    await upload('docker-image-report', 'docker-image-digests.json', Buffer.from('{}'));
    await handOver('engine');
    const outcome = await scenario.loads(
      { 'artifact-name': 'docker-image-*', remove: 'true' },
      { job: { jobId: 'last' } },
    );
    expect(outcome.log).not.toMatch(/::(error|warning)/);
    expect(sortedTags()).toEqual(['engine:local', 'operate-ui:local', 'runtime:local']);
    expect(await there()).toEqual(['docker-image-report']);
    expect(outcome.summary).toContain('Removed from this run: `docker-image-engine`');
  });

  test('`artifact-ids` removes only these artifacts', async () => {
    await begin();
    const ids = `${idOf('engine')},${idOf('runtime')}`;
    const outcome = await scenario.loads({ 'artifact-ids': ids, load: 'false', remove: 'true' });
    expect(outcome.log).not.toMatch(/::(error|warning)/);
    expect(await there()).toEqual(['docker-image-operate-ui']);
  });

  test('a load that fails removes nothing', async () => {
    await begin();
    const wrong = { 'artifact-name': 'docker-image-engine', 'expected-revision': 'other', remove: 'true' };
    const outcome = await scenario.loads(wrong);
    expect(errorCode(outcome)).toBe('revision-mismatch');
    expect(await there()).toHaveLength(3);
  });

  test('a removal that fails is only a warning, because the image is loaded', async () => {
    await begin();
    scenario.service.faults.add({ on: 'DeleteArtifact', times: 99, effect: { kind: 'status', status: 403 } });
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-engine', remove: 'true' });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs['image']).toBe('engine:local');
    expect(outcome.annotations).toEqual([
      expect.objectContaining({ level: 'warning', message: expect.stringContaining('its artifact was not removed') }),
    ]);
    expect(await there()).toHaveLength(3);
  });

  test('with `load: false` the step only removes, and the second time there is nothing to remove', async () => {
    await begin();
    const removing = { 'artifact-name': 'docker-image-engine, docker-image-runtime', load: 'false', remove: 'true' };
    const outcome = await scenario.loads(removing);
    expect(outcome.log).not.toMatch(/::(error|warning)/);
    expect(outcome.outputs).toMatchObject({ images: '{}', loaded: 'false', size: '0' });
    expect(await there()).toEqual(['docker-image-operate-ui']);
    expect(scenario.docker.state().calls).toEqual([]);
    const again = await scenario.loads(removing);
    expect(again.exitCode).toBe(0);
    expect(again.annotations.map(({ message }) => message)).toEqual([
      expect.stringContaining('there is nothing to remove'),
    ]);
  });

  test('with `load: false`, a removal that fails is an error', async () => {
    await begin();
    scenario.service.faults.add({ on: 'DeleteArtifact', times: 99, effect: { kind: 'status', status: 403 } });
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-engine', load: 'false', remove: 'true' });
    expect(errorCode(outcome)).toBe('transfer-failed');
  });

  test('the error in a job that runs again after the removal shows why the artifact may be gone', async () => {
    await begin();
    await scenario.loads({ 'artifact-name': 'docker-image-engine', remove: 'true' });
    const outcome = await scenario.loads({ 'artifact-name': 'docker-image-engine' }, { job: { attempt: 2 } });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('a step with `remove: true` has removed it. Re-run all jobs.');
  });
});
