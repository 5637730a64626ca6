import { describe, expect, test } from '@jest/globals';
import { type FakeImage, type FakeRegistry, type FakeState, pulledReferences, verbOf } from '../fakes/docker/state.ts';
import { json, makeImage } from '../fixtures/image.ts';
import { errorCode, errorMessage, shortPauses } from '../fixtures/scenario.ts';
import { begin, scenario, useScenarios } from '../fixtures/scenario-suite.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { parseRecord, recordName } from '../../shared/image/record.ts';

useScenarios();

const tags = 'ghcr.io/Org/charon:pr-1-abc1234\n\nghcr.io/org/charon:latest\n';
const names = ['ghcr.io/org/charon:pr-1-abc1234', 'ghcr.io/org/charon:latest'] as const;
const pushing = { push: 'true', tags } as const;
const pushedDigest = `sha256:${'e'.repeat(64)}` as const;
const pinned = `ghcr.io/org/charon@${pushedDigest}`;
const unavailable = 'failed to push: unexpected status: 503 Service Unavailable';
const denied = 'failed to push ghcr.io/org/charon:pr-1-abc1234: unexpected status: 401 Unauthorized';

const registry = (change: Partial<FakeRegistry> = {}): FakeRegistry => ({
  failures: [],
  digest: pushedDigest,
  pushed: [],
  images: {},
  manifests: {},
  ...change,
});
const calls = (...start: readonly string[]): readonly (readonly string[])[] =>
  scenario.docker.state().calls.filter((call) => start.every((word, at) => call[at] === word));
const builds = (): readonly (readonly string[])[] => calls('buildx', 'build');
const outputsOf = (call: readonly string[] = []): readonly string[] =>
  call.filter((_, at) => call[at - 1] === '--output');
const warnings = (outcome: { readonly annotations: readonly { level: string; message: string }[] }) =>
  outcome.annotations.filter(({ level }) => level === 'warning').map(({ message }) => message);

async function recordOf(name = 'docker-image') {
  const store = scenario.store();
  const found = (await store.list()).find((artifact) => artifact.name === name);
  if (found === undefined) throw new Error('no artifact');
  return parseRecord((await (await store.open(found)).text(recordName)) ?? '');
}

describe('a push', () => {
  test('is part of the build that hands over, with each tag as one name (S1.1, S1.6)', async () => {
    const { exports } = await begin({ docker: { registry: registry() } });
    const outcome = await exports(pushing);
    expect(outcome.log).not.toContain('::error');
    expect(builds()).toHaveLength(1);
    const name = `"name=${names.join(',')}"`;
    expect(outputsOf(builds()[0])).toEqual([
      expect.stringMatching(
        /^type=oci,tar=false,compression=gzip,compression-level=1,attestation-inline=true,"name=.*","dest=.*layout"$/,
      ),
      `type=image,push=true,store=false,oci-mediatypes=true,compression=gzip,compression-level=1,${name}`,
    ]);
    expect(outputsOf(builds()[0])[0]).toContain(`,${name},`);
    const provenance = expect.stringMatching(
      /^--provenance=mode=max,builder-id=https:\/\/github\.com\/.*\/attempts\/\d+$/,
    );
    expect(builds()[0]).toEqual(expect.arrayContaining([provenance, '--sbom=false']));
    expect(scenario.docker.state().registry.pushed).toEqual(names);
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'pushed-reference': pinned });
    expect(outcome.summary).toContain(pinned);
    expect(await recordOf()).toMatchObject({
      pushedReference: { repository: 'ghcr.io/org/charon', digest: pushedDigest },
    });
    expect(outcome.log).toContain('Repositories are lower-case');
  });

  test('the full digest of the pushed manifest is an output (S1.7)', async () => {
    const { exports, image } = await begin({ docker: { registry: registry() } });
    expect((await exports({ 'artifact-name': 'plain' })).outputs).toMatchObject({
      'manifest-digest': image.manifestDigest,
      digest: image.manifestDigest,
      imageid: image.configDigest,
      'pushed-reference': '',
    });
    const digests = { 'manifest-digest': pushedDigest, digest: pushedDigest, imageid: image.configDigest };
    expect((await exports(pushing)).outputs).toMatchObject(digests);
  });

  test('several platforms are built a second time, from the cache, after the handover (S1.11)', async () => {
    const { exports, service } = await begin({ docker: { registry: registry() } });
    const inputs = { 'push-platforms': 'linux/amd64,linux/arm64', 'no-cache': 'true', 'cache-to': 'type=inline' };
    const outcome = await exports({ ...pushing, ...inputs });
    expect(outcome.exitCode).toBe(0);
    const [first = [], second = []] = builds();
    expect(builds()).toHaveLength(2);
    expect(first).toEqual(expect.arrayContaining(['--platform', 'linux/amd64', '--no-cache']));
    expect(outputsOf(first).join()).not.toContain('push=true');
    expect(second).toEqual(expect.arrayContaining(['--platform', 'linux/amd64,linux/arm64', '--cache-to']));
    expect(second).not.toContain('--no-cache');
    expect(outputsOf(second)).toEqual([expect.stringContaining('push=true')]);
    expect(outcome.outputs).toMatchObject({ platform: 'linux/amd64', 'manifest-digest': pushedDigest });
    expect(service.artifacts).toHaveLength(1);
  });

  test('nothing is pushed if require-cache rejects the build (S0.3)', async () => {
    const step = { digest: 'sha256:1', name: '[build 1/1] RUN make', started: '2026-01-01T00:00:00Z' };
    const progress = [JSON.stringify({ vertexes: [{ ...step, completed: '2026-01-01T00:00:01Z' }] })];
    const { exports } = await begin({ docker: { registry: registry(), progress } });
    expect(errorCode(await exports({ ...pushing, 'require-cache': 'true' }))).toBe('cache-missed');
    expect(scenario.docker.state().registry.pushed).toEqual([]);
  });

  test('a registry is briefly unavailable: the handover comes first, then three attempts with a warning each (S1.5)', async () => {
    const { exports, image } = await begin({
      docker: { registry: registry({ failures: [unavailable, unavailable] }) },
    });
    const outcome = await exports({ ...pushing, 'no-cache': 'true' }, { env: shortPauses });
    expect(outcome.exitCode).toBe(0);
    // Both outputs, then only the layout, then only the push twice, from the cache.
    expect(builds().map((call) => outputsOf(call).length)).toEqual([2, 1, 1, 1]);
    expect(builds().map((call) => call.includes('--no-cache'))).toEqual([true, false, false, false]);
    expect(warnings(outcome)).toEqual([
      expect.stringMatching(/503 Service Unavailable.*Attempt 2 of 3 in 10\.0 s\.$/s),
      expect.stringMatching(/503 Service Unavailable.*Attempt 3 of 3 in 10\.0 s\.$/s),
    ]);
    expect(outcome.outputs).toMatchObject({ 'pushed-reference': pinned, 'config-digest': image.configDigest });
    expect(await recordOf()).toMatchObject({ pushedReference: undefined });
  });

  test('registry-failed after the artifact is uploaded: run-integration is true anyway (S0.6)', async () => {
    const failures = [unavailable, unavailable, unavailable];
    const { exports, service, tarball } = await begin({ docker: { registry: registry({ failures }) } });
    const outcome = await exports(pushing, { env: shortPauses });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toContain(names[0]);
    expect(errorMessage(outcome)).toContain('503 Service Unavailable');
    expect(errorMessage(outcome)).toContain('The registry itself fails');
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', tarball, 'pushed-reference': '' });
    expect(service.artifacts).toMatchObject([{ name: 'docker-image', finalised: true }]);
    expect(outcome.leftInTemp).toEqual([]);
  });

  test('a wrong login isn’t retried; push-failure: warn only warns (S1.5)', async () => {
    const { exports } = await begin({ docker: { registry: registry({ failures: [denied] }) } });
    const outcome = await exports({ ...pushing, 'push-failure': 'warn' });
    expect(outcome.exitCode).toBe(0);
    expect(builds()).toHaveLength(2);
    expect(warnings(outcome)).toEqual([expect.stringContaining('401 Unauthorized')]);
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'pushed-reference': '' });
    expect(outcome.summary).toContain('401 Unauthorized');
  });

  test('a failed build step is build-failed, and nothing is pushed or uploaded', async () => {
    const { exports, service } = await begin({ docker: { registry: registry(), fail: 'build' } });
    expect(errorCode(await exports({ ...pushing, 'push-failure': 'warn' }))).toBe('build-failed');
    expect(service.artifacts).toEqual([]);
    expect(builds()).toHaveLength(1);
  });

  const classic: Partial<FakeState> = { driver: 'docker', store: 'classic', registry: registry() };

  test('the docker driver on the classic store pushes the loaded image, and no tag is left (S1.1)', async () => {
    const { exports } = await begin({ docker: classic });
    const outcome = await exports(pushing);
    expect(outcome.log).not.toContain('::error');
    expect(builds()).toHaveLength(1);
    expect(calls('push')).toEqual(names.map((name) => ['push', name]));
    for (const name of names) expect(outcome.log).toContain(`${name}: pushed, ${pushedDigest}`);
    expect(outcome.outputs['pushed-reference']).toBe(pinned);
    expect(scenario.docker.state().images).toEqual([]);
  });

  test('on the classic store, the artifact also comes first, and a failed push leaves no tag (S1.5)', async () => {
    const failures = [unavailable, unavailable, unavailable];
    const { exports, service } = await begin({ docker: { ...classic, registry: registry({ failures }) } });
    const outcome = await exports(pushing, { env: shortPauses });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(outcome.outputs['run-integration']).toBe('true');
    expect(calls('push')).toHaveLength(3);
    expect(service.artifacts).toHaveLength(1);
    expect(scenario.docker.state().images).toEqual([]);
  });

  test('on the classic store, several platforms are builder-unsupported before the build (S1.11)', async () => {
    const { exports } = await begin({ docker: classic });
    const outcome = await exports({ ...pushing, 'push-platforms': 'linux/amd64,linux/arm64' });
    expect(errorCode(outcome)).toBe('builder-unsupported');
    expect(errorMessage(outcome)).toContain('docker/setup-buildx-action');
    expect(builds()).toEqual([]);
  });

  test('of source-image keeps its existing tags and removes the others again', async () => {
    const { exports, docker, image } = await begin({ docker: classic });
    const has = { diffIds: image.diffIds, architecture: 'amd64', labels: {} };
    docker.set({
      images: [
        { ...has, imageId: image.configDigest, tags: ['app:test'] },
        { ...has, imageId: 'sha256:old', tags: [names[1]] },
      ],
    });
    const before = docker.state().images;
    const outcome = await exports({ ...pushing, 'source-image': 'app:test' });
    expect(outcome.log).not.toContain('::error');
    expect(docker.state().registry.pushed).toEqual(names);
    expect(docker.state().images.map(({ imageId, tags: now }) => [imageId, now])).toEqual(
      before.map(({ imageId, tags: then }) => [imageId, then]),
    );
  });

  test.each([
    [{ push: 'true' }, 'the input `tags` is empty'],
    [{ ...pushing, tags: pinned }, 'stored under a digest'],
    [{ ...pushing, tags: 'a b:c' }, '"a b:c"'],
    [{ ...pushing, 'push-failure': 'ignore' }, '"ignore"'],
    [{ ...pushing, 'push-platforms': 'linux' }, '"linux"'],
    [{ ...pushing, 'source-tarball': 'app.tar' }, 'source-tarball'],
    [{ ...pushing, 'source-image': 'a:1', 'push-platforms': 'linux/amd64,linux/arm64' }, 'push-platforms'],
  ])('invalid-input for %j before any action (S0.7)', async (inputs, message) => {
    const { exports, docker } = await begin();
    const outcome = await exports(inputs);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(message);
    expect(docker.state().calls).toEqual([]);
  });
});

describe.each(['classic', 'containerd'] as const)('a pull, on the %s store', (store) => {
  const image = makeImage({ labels: { 'org.opencontainers.image.revision': 'abc123' } });
  const source = `ghcr.io/org/charon@${image.manifestDigest}`;
  const inRegistry: FakeImage = {
    imageId: store === 'classic' ? image.configDigest : image.manifestDigest,
    tags: [],
    diffIds: image.diffIds,
    architecture: 'amd64',
    labels: { 'org.opencontainers.image.revision': 'abc123' },
  };
  const manifest = image.blobs.get(image.manifestDigest)?.toString() ?? '';
  const full = (change: Partial<FakeRegistry> = {}): FakeRegistry =>
    registry({
      digest: image.manifestDigest,
      images: { [source]: inRegistry },
      manifests: { [source]: manifest },
      ...change,
    });
  const start = (change: Partial<FakeRegistry> = {}) => begin({ image, docker: { store, registry: full(change) } });
  const pulling = { from: 'registry', 'registry-image': source } as const;
  const left = (): readonly string[] =>
    scenario.docker.state().images.flatMap(({ tags: names, pinned = [] }) => [...names, ...pinned]);

  test('is by digest; the image is tagged and verified, and only its tag is kept (S1.9, S1.8)', async () => {
    const { loads, service } = await start();
    const outcome = await loads({
      ...pulling,
      'expected-revision': 'abc123',
      'expected-config-digest': image.configDigest,
    });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({
      image: 'charon:local',
      source: 'registry',
      loaded: 'true',
      'config-digest': image.configDigest,
      'artifact-id': '',
    });
    expect(outcome.summary).toContain('| Source | the registry |');
    expect(calls('pull')).toEqual([['pull', '--quiet', source]]);
    expect(left()).toEqual(['charon:local']);
    expect(service.artifacts).toEqual([]);
  });

  test('without registry-image, the record of the handover determines what to pull and expect (S1.9)', async () => {
    const { exports, loads } = await start();
    await exports(pushing);
    const outcome = await loads({ from: 'registry' });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ source: 'registry', 'config-digest': image.configDigest });
    expect(calls('load')).toEqual([]);
    expect((await loads({ from: 'registry' })).outputs).toMatchObject({ source: 'engine', loaded: 'false' });
  });

  test('is tried three times, with a warning on each retry; registry-failed shows the reference (S1.5)', async () => {
    const { loads } = await start({ failures: ['connection refused', 'i/o timeout', 'EOF'] });
    const outcome = await loads(pulling, { env: shortPauses });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toContain(source);
    expect(errorMessage(outcome)).toContain('EOF');
    expect(warnings(outcome)).toHaveLength(2);
    expect(calls('pull')).toHaveLength(3);
    expect(left()).toEqual([]);
  });

  test.each(['no basic auth credentials', 'manifest unknown: manifest unknown', 'denied: permission_denied'])(
    '%j isn’t retried (S1.5)',
    async (failure) => {
      const { loads } = await start({ failures: [failure] });
      expect(errorCode(await loads(pulling))).toBe('registry-failed');
      expect(calls('pull')).toHaveLength(1);
    },
  );

  test('an image of another commit, or another image, is rejected and removed (S1.8)', async () => {
    const { loads } = await start();
    expect(errorCode(await loads({ ...pulling, 'expected-revision': 'def456' }))).toBe('revision-mismatch');
    const other = digestOf('other');
    expect(errorCode(await loads({ ...pulling, 'expected-config-digest': other }))).toBe('image-mismatch');
    expect(left()).toEqual([]);
  });

  test('with a record, another image in the registry is an image-mismatch (S1.9)', async () => {
    const other = makeImage();
    const otherSource = `ghcr.io/org/charon@${other.manifestDigest}`;
    const { exports, loads } = await start({
      // The same layers: only the config is different.
      images: {
        [otherSource]: { ...inRegistry, imageId: store === 'classic' ? other.configDigest : other.manifestDigest },
      },
      manifests: { [otherSource]: other.blobs.get(other.manifestDigest)?.toString() ?? '' },
    });
    await exports();
    const outcome = await loads({ from: 'registry-then-artifact', 'registry-image': otherSource });
    expect(errorCode(outcome)).toBe('image-mismatch');
    expect(left()).toEqual([]);
  });

  test('registry-then-artifact falls back to the artifact, and shows why (S1.9)', async () => {
    const { exports, loads } = await start({ failures: ['denied: requested access to the resource is denied'] });
    await exports();
    const outcome = await loads({ ...pulling, from: 'registry-then-artifact' });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({ source: 'artifact', loaded: 'true', image: 'charon:local' });
    expect(warnings(outcome)).toEqual([expect.stringMatching(/from the artifact.*requested access/s)]);
    expect(outcome.summary).toContain('| Source | the artifact |');
  });

  test('artifact-then-registry falls back to the registry, and shows why (S1.9)', async () => {
    const { loads } = await start();
    const outcome = await loads({ ...pulling, from: 'artifact-then-registry' });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({ source: 'registry', image: 'charon:local' });
    expect(warnings(outcome)).toEqual([expect.stringContaining('no artifact "docker-image"')]);
  });

  test('a load from the artifact never logs in, and pulls only from the step itself, although it could (S0.5)', async () => {
    const { exports, loads } = await start();
    await exports(pushing);
    for (const from of ['artifact', 'artifact-then-registry']) {
      scenario.docker.set({ images: [], calls: [] });
      const outcome = await loads({ from, 'registry-image': source });
      expect(outcome.outputs).toMatchObject({ source: 'artifact', loaded: 'true' });
      const state = scenario.docker.state();
      expect(state.calls.map(verbOf).filter((verb) => /^(?:login|push|buildx|manifest)/.test(verb))).toEqual([]);
      expect(pulledReferences(state)).toEqual([
        expect.stringMatching(/^127\.0\.0\.1:\d+\/handover-[0-9a-f]{8}-[0-9a-f]{32}-[0-9a-f]{32}@sha256:[0-9a-f]{64}$/),
      ]);
    }
  });

  test('in an index of several platforms, the image of this platform is found and verified', async () => {
    const index = json({
      schemaVersion: 2,
      manifests: [entry(`sha256:${'1'.repeat(64)}`, 'arm64'), entry(image.manifestDigest, 'amd64')],
    }).toString();
    const list = `ghcr.io/org/charon@${digestOf(index)}`;
    const imageId = store === 'classic' ? image.configDigest : digestOf(index);
    const { loads } = await start({
      images: { [list]: { ...inRegistry, imageId } },
      manifests: { [list]: index, [source]: manifest },
    });
    const outcome = await loads({ ...pulling, 'registry-image': list, 'expected-config-digest': image.configDigest });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['config-digest']).toBe(image.configDigest);
  });

  test('an image that is present under its digest is not pulled again, and keeps that reference', async () => {
    const { loads, docker } = await start();
    docker.set({ images: [{ ...inRegistry, pinned: [source] }] });
    const outcome = await loads(pulling);
    expect(outcome.outputs).toMatchObject({ source: 'engine', loaded: 'false', image: 'charon:local' });
    expect(calls('pull')).toEqual([]);
    expect(left()).toEqual(['charon:local', source]);
  });

  test('a manifest other than the requested one proves nothing', async () => {
    const { loads } = await start({ manifests: { [source]: manifest.replace('schemaVersion', 'schemaVersiom') } });
    const inputs = { ...pulling, 'expected-config-digest': image.configDigest };
    const outcome = await loads(inputs, { env: shortPauses });
    if (store === 'classic') expect(outcome.outputs['source']).toBe('registry');
    else expect(errorMessage(outcome)).toContain('the received manifest has another digest');
  });

  test('registry-failed: there is no reference to pull', async () => {
    const { exports, loads } = await start();
    await exports();
    const outcome = await loads({ from: 'registry' });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toContain('`registry-image` is empty');
    expect(calls('pull')).toEqual([]);
  });
});

function entry(digest: Digest, architecture: string) {
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  return { mediaType, digest, size: 1, platform: { os: 'linux', architecture } };
}

test.each([
  [{ from: 'registry', 'registry-image': 'ghcr.io/org/charon:latest' }, 'has no digest'],
  [{ from: 'registry', 'registry-image': 'ghcr.io/org/charon@sha256:12' }, 'sha256:12'],
  [{ from: 'somewhere' }, '"somewhere"'],
])('load-image rejects %j before any request (S0.7)', async (inputs, message) => {
  const { loads, docker } = await begin();
  const outcome = await loads(inputs);
  expect(errorCode(outcome)).toBe('invalid-input');
  expect(errorMessage(outcome)).toContain(message);
  expect(docker.state().calls).toEqual([]);
});
