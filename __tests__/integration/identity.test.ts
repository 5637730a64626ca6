import { beforeEach, describe, expect, test } from '@jest/globals';
import type { EngineClient } from '../../dev/docker-engine.ts';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { type JsonObject, objectsOf } from '../../shared/base/json.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { engines, pruneAfterEach, service, useEngines } from '../fixtures/engine-suite.ts';
import {
  halfOf,
  type Inputs,
  namesOn,
  seed,
  shareOf,
  shareOn,
  stores,
  stepOn,
  waysToLoad,
} from '../fixtures/engines.ts';
import { type FixtureImage, makeImage, podmanTarball, savedTarball } from '../fixtures/image.ts';
import {
  type ArtifactFiles,
  artifactOf,
  exported,
  publish,
  recompressed,
  reconfigured,
  recordOf,
  rewritten,
  imageWithTwoConfigs,
} from '../fixtures/lying-artifact.ts';
import {
  contradictingTarballs,
  tarballWithOneManifest,
  misleadingTarballs,
  tarballWithoutManifest,
} from '../fixtures/misleading-tarball.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// Artifacts with false records. The zip is complete and the service lists its correct digest, so only computing the image's identity
// detects them.

useEngines();
pruneAfterEach();

const ways = waysToLoad();

const image = makeImage({ labels: { 'org.opencontainers.image.revision': 'abc123' } });
/** An image with the same layers and a different config: the layers alone don't distinguish it from the first image. */
const other = reconfigured(image, (config) => ({ ...config, config: { Labels: {}, Env: ['OTHER=1'] } }));
const names = ['charon:local'];

const idIn = (store: 'classic' | 'containerd', { configDigest, manifestDigest }: FixtureImage): Digest =>
  store === 'classic' ? configDigest : manifestDigest;
const idOf = (engine: EngineClient, name: string): string =>
  engine.docker('image', 'inspect', '--format', '{{.Id}}', name).trim();
const load = (engine: EngineClient, inputs: Inputs = {}): Promise<StepOutcome> =>
  stepOn(service, engine, 'load-image', inputs);

/** The error codes for an artifact or image that differs from its claims. */
const lieCodes = ['artifact-corrupt', 'image-mismatch', 'revision-mismatch', 'tarball-invalid', 'image-not-found'];

describe.each(ways)('on the %s store, overlap: %s', (store, overlap) => {
  const expectations: readonly (readonly [string, Inputs])[] = [
    ['expected-config-digest', { 'expected-config-digest': image.configDigest }],
    ['expected-revision', { 'expected-revision': 'abc123' }],
    ['nothing', {}],
  ];
  const claims: readonly (readonly [string, (record: JsonObject) => JsonObject])[] = [
    ['', (record) => record],
    [', without manifest digests', (record) => ({ ...record, manifestDigests: [] })],
    [', without places', (record) => ({ ...record, configAt: undefined, manifestAt: undefined })],
  ];
  const cases = expectations.flatMap(([name, inputs]) => claims.map(([how, lie]) => ({ name, inputs, how, lie })));

  test.each(halfOf(shareOn(store, cases)))(
    'the record of one image with the bytes of another is detected by the bytes, with $name expected$how (B.8, S0.4)',
    async ({ inputs, lie }) => {
      const engine = engines[store];
      const honest = artifactOf(image, names);
      const swapped = artifactOf(other, names);
      // The claims about the image are those of the first image, and the positions of the bytes are those of the second.
      const { configAt, manifestAt, layers, tarballSize, tarballDigest } = swapped.record;
      const mixed = { ...honest.record, configAt, manifestAt, layers, tarballSize, tarballDigest };
      await publish(service, { tarball: swapped.tarball, record: lie(mixed) });
      const outcome = await load(engine, { ...inputs, overlap });
      expect(outcome.exitCode).toBe(1);
      expect(errorCode(outcome)).toBe('artifact-corrupt');
      expect(namesOn(engine)).toEqual([]);
    },
  );

  test('the swap is also detected if the engine already has the other image under the same name (S0.4)', async () => {
    const engine = engines[store];
    const honest = artifactOf(image, names);
    const swapped = artifactOf(other, names);
    seed(engine, other, names);
    const { configAt, manifestAt, layers, tarballSize, tarballDigest, manifestDigests } = swapped.record;
    for (const digests of shareOn(store, [manifestDigests, honest.record['manifestDigests'], []])) {
      const mixed = { ...honest.record, configAt, manifestAt, layers, tarballSize, tarballDigest };
      await publish(service, { tarball: swapped.tarball, record: { ...mixed, manifestDigests: digests } });
      const outcome = await load(engine, { 'expected-config-digest': image.configDigest, overlap });
      expect(errorCode(outcome)).toBe('artifact-corrupt');
      expect(idOf(engine, 'charon:local')).toBe(idIn(store, other));
    }
    expect(namesOn(engine)).toEqual(names);
  });

  test('a correct artifact of the other image fails expected-config-digest and expected-revision, and isn’t loaded (S0.4)', async () => {
    const engine = engines[store];
    const swapped = artifactOf(other, names);
    for (const record of shareOn(store, [undefined, swapped.record])) {
      await publish(service, { ...swapped, record });
      const digest = await load(engine, { 'expected-config-digest': image.configDigest, overlap });
      expect(errorCode(digest)).toBe('image-mismatch');
      expect(errorMessage(digest)).toContain(other.configDigest);
      expect(errorCode(await load(engine, { 'expected-revision': 'abc123', overlap }))).toBe('revision-mismatch');
      expect(namesOn(engine)).toEqual([]);
    }
  });

  test('if the record points at a correct config and manifest but the tarball names another image, that image never passes (S0.4)', async () => {
    const engine = engines[store];
    // The tarball has the blobs of both images, but names only the second.
    const both = { ...other, blobs: new Map([...other.blobs, ...image.blobs]) };
    const decoy = savedTarball(both, names);
    const honest = artifactOf(image, names);
    const said = objectsOf(honest.record['layers']);
    const at = (digest: Digest): JsonObject => ({
      offset: decoy.indexOf(image.blobs.get(digest) ?? ''),
      size: image.blobs.get(digest)?.length,
    });
    const record = {
      ...honest.record,
      configAt: at(image.configDigest),
      manifestAt: at(image.manifestDigest),
      layers: image.layerDigests.map((digest, position) => ({ ...said[position], ...at(digest) })),
      tarballSize: decoy.length,
      tarballDigest: digestOf(decoy),
    };
    await publish(service, { tarball: decoy, record });
    const outcome = await load(engine, { 'expected-config-digest': image.configDigest, overlap });
    if (outcome.exitCode === 0) expect(idOf(engine, 'charon:local')).toBe(idIn(store, image));
    else expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(namesOn(engine)).toEqual(outcome.exitCode === 0 ? names : []);
  });

  test('each single false claim of a record is an error or has no effect, and nothing is left behind (B.8, S0.4)', async () => {
    const engine = engines[store];
    const honest = artifactOf(image, names);
    for (const [what, lie] of halfOf(shareOn(store, lies))) {
      await publish(service, { tarball: honest.tarball, record: lie(honest.record) });
      const outcome = await load(engine, { overlap });
      const told = outcome.exitCode === 0 ? 'the image' : errorCode(outcome);
      expect([what, told]).toEqual([what, expect.stringMatching(oneOf(['the image', ...lieCodes]))]);
      expect([what, outcome.log]).toEqual([what, expect.not.stringContaining('defect')]);
      if (outcome.exitCode !== 0) {
        expect([what, ...namesOn(engine)]).toEqual([what]);
        continue;
      }
      const name = outcome.outputs['image'] ?? '';
      expect([what, idOf(engine, name)]).toEqual([what, idIn(store, image)]);
      expect([what, ...namesOn(engine)]).toEqual([what, name]);
      engine.docker('image', 'rm', name);
    }
  });
});

const revision = { 'org.opencontainers.image.revision': 'abc123' };
const otherConfig = other.blobs.get(other.configDigest) ?? Buffer.alloc(0);
const elsewhere = '"urls":["http://127.0.0.1:1/layer"],';

/** Images that this action and the engine would read differently, or that are partly stored elsewhere. */
const ambiguous: readonly (readonly [string, FixtureImage])[] = [
  ['a manifest with `config` and `Config`', imageWithTwoConfigs(image, otherConfig)],
  ['a manifest with `config` and an escaped `config`', imageWithTwoConfigs(image, otherConfig, 'con\\u0066ig')],
  [
    'a config with `Labels` and `label\u017f`',
    rewritten(image, {
      config: (text) =>
        text.replace(/"Labels":\{[^}]*\}/, '$&,"label\u017f":{"org.opencontainers.image.revision":"def456"}'),
    }),
  ],
  [
    'a layer that is stored elsewhere',
    rewritten(image, { manifest: (text) => text.replace('"layers":[{', `$&${elsewhere}`) }),
  ],
  [
    'a layer that may not be distributed',
    rewritten(image, { manifest: (text) => text.replace('layer.v1.', 'layer.nondistributable.v1.') }),
  ],
];

describe.each(ways)('ambiguous images, on the %s store, overlap: %s', (store, overlap) => {
  test.each(shareOn(store, ambiguous))(
    '%s is refused, with and without a record (B.11)',
    async (_, lie) => {
      const engine = engines[store];
      const tarball = savedTarball(lie, names);
      for (const record of [recordOf(lie, tarball, revision), undefined]) {
        await publish(service, { tarball, record });
        const expected = { 'expected-config-digest': lie.configDigest, 'expected-revision': 'abc123' };
        const outcome = await load(engine, { ...expected, overlap });
        expect(errorCode(outcome)).toBe(record === undefined ? 'tarball-invalid' : 'artifact-corrupt');
        expect(namesOn(engine)).toEqual([]);
      }
    },
    60_000,
  );
});

const oneOf = (texts: readonly string[]): RegExp => new RegExp(`^(?:${texts.join('|')})$`);
const zeros = `sha256:${'0'.repeat(64)}`;
const inLayers =
  (change: (layer: JsonObject, position: number) => JsonObject) =>
  (record: JsonObject): JsonObject => ({
    ...record,
    layers: objectsOf(record['layers']).map(change),
  });
const changed =
  (name: string, value: unknown) =>
  (record: JsonObject): JsonObject => ({ ...record, [name]: value });
const numbers: readonly unknown[] = [-1, 0.5, 2 ** 53, 1e300, '12', null];

const lies: readonly (readonly [string, (record: JsonObject) => JsonObject])[] = [
  ['configDigest', changed('configDigest', zeros)],
  ['configDigest, of the other image', changed('configDigest', other.configDigest)],
  ['manifestDigests', changed('manifestDigests', [zeros])],
  ['manifestDigests, of the other image', changed('manifestDigests', [other.manifestDigest])],
  ['no manifestDigests', changed('manifestDigests', [])],
  ['diffIds', changed('diffIds', [zeros, zeros])],
  ['diffIds in reverse order', changed('diffIds', [...image.diffIds].reverse())],
  ['no diffIds', changed('diffIds', [])],
  ['no layers', changed('layers', [])],
  [
    'a million layers',
    changed(
      'layers',
      Array.from({ length: 1e6 }, () => ({ digest: zeros, size: 1, mediaType: '' })),
    ),
  ],
  ['digest of a layer', inLayers((layer, at) => (at === 0 ? { ...layer, digest: zeros } : layer))],
  ['the same digest for all layers', inLayers((layer) => ({ ...layer, digest: image.layerDigests[0] }))],
  ['offset of a layer', inLayers((layer) => ({ ...layer, offset: 512 }))],
  ['offset beyond the end', inLayers((layer) => ({ ...layer, offset: 1e9 }))],
  ...numbers.map((value) => [`offset ${String(value)}`, inLayers((layer) => ({ ...layer, offset: value }))] as const),
  ['size of a layer', inLayers((layer) => ({ ...layer, size: 7 }))],
  ['media type of a layer', inLayers((layer) => ({ ...layer, mediaType: 'text/html' }))],
  ['no configAt', changed('configAt', undefined)],
  ['no manifestAt', changed('manifestAt', undefined)],
  ['configAt the manifest', (record) => ({ ...record, configAt: record['manifestAt'] })],
  ['manifestAt the config', (record) => ({ ...record, manifestAt: record['configAt'] })],
  ['configAt the whole tarball', (record) => ({ ...record, configAt: { offset: 0, size: record['tarballSize'] } })],
  ['configAt nothing', changed('configAt', { offset: 0, size: 0 })],
  ['configAt far away', changed('configAt', { offset: 2 ** 52, size: 2 ** 52 })],
  ['configAt text', changed('configAt', 'there')],
  ['platform', changed('platform', 'linux/arm64')],
  ['an invalid platform', changed('platform', '../..')],
  ['labels', changed('labels', { 'org.opencontainers.image.revision': 'ffffff' })],
  ['references', changed('references', ['other:local'])],
  ['a malformed reference', changed('references', ['Charon:local'])],
  ['no references', changed('references', [])],
  [
    'further images',
    (record) => ({ ...record, further: [{ ...record, references: ['further:local'], configDigest: zeros }] }),
  ],
  ['tarballName', changed('tarballName', '../charon.tar')],
  ['the name of a missing tarball', changed('tarballName', 'other.tar')],
  ['tarballSize', changed('tarballSize', 512)],
  ['tarballDigest', changed('tarballDigest', zeros)],
  ['tarballCompression', changed('tarballCompression', 'gzip')],
  ['an unknown compression', changed('tarballCompression', 'rar')],
  ['a newer schema', changed('schema', 2)],
  ['no schema', changed('schema', undefined)],
  ['producer', changed('producer', { repository: 'mallory/charon', runId: '1', jobKey: {} })],
  ['pushedReference', changed('pushedReference', `mallory.example/charon@${zeros}`)],
  ['a malformed pushedReference', changed('pushedReference', 'charon:local')],
];

describe.each(ways)('unplanned names, on the %s store, overlap: %s', (store, overlap) => {
  const stranger = makeImage({ layers: 1 });
  const alpine = 'alpine:latest';

  beforeEach(() => {
    seed(engines[store], stranger, [alpine]);
  });

  /** Expects only the planned names to be set, and existing names to be unchanged. */
  const expectNames = (planned: readonly string[]): void => {
    const engine = engines[store];
    expect(namesOn(engine)).toEqual([alpine, ...planned].sort());
    expect(idOf(engine, alpine)).toBe(idIn(store, stranger));
    for (const name of planned) expect(idOf(engine, name)).toBe(idIn(store, image));
  };

  test('alpine:latest in the tarball’s own manifests is left unchanged (S2.7)', async () => {
    const honest = artifactOf(image, names);
    const greedy = savedTarball(image, [...names, alpine]);
    const [record] = [await exported(service, engines, greedy)].map((files) => files.record);
    await publish(service, {
      tarball: greedy,
      record: { ...record, references: honest.record['references'], ...whole(greedy) },
    });
    const outcome = await load(engines[store], { overlap });
    expect(['artifact-corrupt', undefined]).toContain(errorCode(outcome));
    expectNames(outcome.exitCode === 0 ? names : []);
  });

  test('a second manifest.json and a second index.json set no names (S2.7)', async () => {
    const honest = artifactOf(image, names);
    const end = 1024;
    const body = honest.tarball.subarray(0, honest.tarball.length - end);
    const again = savedTarball({ ...image, blobs: new Map() }, [alpine]);
    const twice = Buffer.concat([body, again]);
    for (const record of shareOn(store, [{ ...honest.record, ...whole(twice) }, undefined])) {
      await publish(service, { tarball: twice, record });
      const outcome = await load(engines[store], { overlap, image: 'charon:local' });
      expect(['artifact-corrupt', 'tarball-invalid', undefined]).toContain(errorCode(outcome));
      expectNames(outcome.exitCode === 0 ? names : []);
      if (outcome.exitCode === 0) engines[store].docker('image', 'rm', 'charon:local');
    }
  });

  test('each flipped bit in the small entries is an error, or the same image under its own name (B.8, S0.4)', async () => {
    const { tarball, record }: ArtifactFiles = artifactOf(image, names);
    const manifest = tarball.lastIndexOf('"RepoTags"');
    const index = tarball.lastIndexOf('charon:local');
    const config = tarball.indexOf('diff_ids');
    for (const at of shareOn(store, [
      manifest,
      manifest + 14,
      index,
      config,
      tarball.lastIndexOf('manifest.json'),
      tarball.length - 1200,
    ])) {
      expect(at).toBeGreaterThan(0);
      const flipped = Buffer.from(tarball);
      flipped.writeUInt8(flipped.readUInt8(at) ^ 1, at);
      await publish(service, { tarball: flipped, record: { ...record, ...whole(flipped) } });
      const outcome = await load(engines[store], { overlap });
      expect(outcome.log).not.toContain('defect');
      if (outcome.exitCode !== 0) expect(lieCodes).toContain(errorCode(outcome));
      expectNames(outcome.exitCode === 0 ? names : []);
      if (outcome.exitCode === 0) engines[store].docker('image', 'rm', 'charon:local');
    }
  });

  test('`image` sets only that name, even if the image is already here, and for a docker save with two tags (S2.7)', async () => {
    const tags = ['charon:local', 'ghcr.io/org/charon:1'];
    const several = artifactOf(image, tags);
    for (const record of shareOn(store, [several.record, undefined])) {
      await publish(service, { ...several, record });
      for (const loaded of ['true', record === undefined ? 'true' : 'false']) {
        const outcome = await load(engines[store], { overlap, image: 'other:name' });
        expect(outcome.log).not.toContain('::error');
        expect(outcome.outputs).toMatchObject({ image: 'other:name', loaded });
        expectNames(['other:name']);
      }
      engines[store].docker('image', 'rm', 'other:name');
      expect((await load(engines[store], { overlap })).outputs['loaded']).toBe('true');
      expectNames(tags);
      engines[store].docker('image', 'rm', ...tags);
    }
  });
});

/** Every field that a config can have, in forms that differ between engines; and the smallest possible config. */
const configs: readonly (readonly [string, JsonObject])[] = [
  [
    'all members',
    {
      User: '1000:1000',
      ExposedPorts: { '80': {}, '53/UDP': {}, '8080/tcp': {} },
      Env: ['PATH=/bin', 'TEXT=<a> & "b" \u2028 \u00e4'],
      Entrypoint: ['/bin/sh', '-c'],
      Cmd: ['true'],
      Volumes: { '/data': {}, '/cache': null },
      WorkingDir: '/srv/',
      Labels: { ...revision, Name: 'a', name: 'b', empty: '', '<&>': 'x' },
      StopSignal: 'SIGQUIT',
      StopTimeout: 5,
      ArgsEscaped: true,
      Healthcheck: {
        Test: ['CMD', 'true'],
        Interval: 30_000_000_000,
        Timeout: 0,
        StartInterval: 5_000_000_000,
        Retries: 3,
      },
      OnBuild: ['RUN true'],
      Shell: ['/bin/sh', '-ec'],
      Hostname: 'build',
      Image: 'sha256:abc',
      AttachStdin: false,
      Memory: 0,
    },
  ],
  [
    'only empty members',
    {
      User: '',
      Env: [],
      Cmd: null,
      Entrypoint: null,
      Labels: null,
      Volumes: {},
      ExposedPorts: null,
      OnBuild: [],
      Healthcheck: {},
    },
  ],
];

describe.each(['classic', 'containerd'] as const)('a correct config, on the %s store', (store) => {
  test.each(configs)(
    'with %s means the same to the engine as to this action (B.11)',
    async (_, config) => {
      const honest = reconfigured(image, (own) => ({
        ...{ ...own, config, created: '2026-01-02T05:04:05.123456789+02:00', 'moby.buildkit.cache.v0': { a: [1.5] } },
        ...{
          author: 'a <b@c>',
          history: [{ created_by: 'RUN x', comment: 'buildkit.dockerfile.v0' }, { empty_layer: true }],
        },
      }));
      for (const overlap of shareOn(store, ['true', 'false'])) {
        await publish(service, artifactOf(honest, names));
        const outcome = await load(engines[store], { 'expected-config-digest': honest.configDigest, overlap });
        expect(outcome.log).not.toContain('::error');
        expect(namesOn(engines[store])).toEqual(names);
        engines[store].docker('image', 'rm', ...names);
      }
    },
    60_000,
  );
});

describe.each(ways)('an index that doesn’t lead to the manifest, on the %s store, overlap: %s', (store, overlap) => {
  // The image ID of the classic store is the config's digest, independent of the manifest.
  const misleading = halfOf(misleadingTarballs(image, names)).slice(store === 'classic' ? -1 : 0);
  const contradicting = halfOf(contradictingTarballs(image, names));

  test.each(misleading.map(([how, tarball], position) => [how, tarball, position] as const))(
    'the image is that of its own manifest, with and without a record, although %s (B.8)',
    async (_, tarball, position) => {
      const engine = engines[store];
      const { record } = await exported(service, engines, tarball);
      expect(record['manifestDigests']).toEqual([image.manifestDigest]);
      const placeless = { ...record, configAt: undefined, manifestAt: undefined };
      const records = shareOf([record, placeless], position, 2);
      for (const told of [...records, undefined]) {
        await publish(service, { tarball, record: told });
        const outcome = await load(engine, { overlap });
        expect(outcome.log).not.toContain('::error');
        expect(idOf(engine, 'charon:local')).toBe(idIn(store, image));
        expect(namesOn(engine)).toEqual(names);
        engine.docker('image', 'rm', 'charon:local');
      }
    },
    60_000,
  );

  test('an image with two different descriptions is an error, and nothing of it is left behind (B.8)', async () => {
    const engine = engines[store];
    const { record } = artifactOf(image, names);
    const placeless = { ...record, configAt: undefined, manifestAt: undefined };
    for (const [how, tarball] of contradicting) {
      for (const told of shareOn(store, [{ ...placeless, ...whole(tarball) }, undefined])) {
        await publish(service, { tarball, record: told });
        const outcome = await load(engine, { overlap });
        expect([how, errorCode(outcome)]).toEqual([how, told === undefined ? 'tarball-invalid' : 'artifact-corrupt']);
        expect([how, ...namesOn(engine)]).toEqual([how]);
      }
    }
  }, 60_000);

  test('a record with a manifest for a tarball without one is artifact-corrupt, even if the engine has the image under another manifest (B.8)', async () => {
    const engine = engines[store];
    const tarball = tarballWithoutManifest(image, names);
    const { record } = await exported(service, engines, tarball);
    for (const names of [[], ['charon:local']]) {
      if (names.length > 0) seed(engine, recompressed(image), names);
      const before = namesOn(engine).map((name) => idOf(engine, name));
      await publish(service, { tarball, record: { ...record, manifestDigests: [image.manifestDigest] } });
      const outcome = await load(engine, { overlap });
      expect(errorCode(outcome)).toBe('artifact-corrupt');
      expect(namesOn(engine)).toEqual(names);
      expect(names.map((name) => idOf(engine, name))).toEqual(before);
    }
  }, 60_000);
});

test.each(stores)(
  'on the %s store, an image without a manifest doesn’t affect the other’s manifest; each keeps its ID and can be saved (B.8, B.9)',
  async (store) => {
    const engine = engines[store];
    const bare = makeImage({ layers: 1, gzip: false });
    const tarball = tarballWithOneManifest([image, names], [bare, ['bare:1']]);
    await publish(service, { tarball, record: undefined });
    const outcome = await load(engine);
    expect(outcome.log).not.toContain('::error');
    expect(idOf(engine, 'charon:local')).toBe(idIn(store, image));
    const digests: Readonly<Record<string, JsonObject>> = JSON.parse(outcome.outputs['images'] ?? '');
    const { 'config-digest': config, 'manifest-digest': manifest } = digests['bare:1'] ?? {};
    expect(idOf(engine, 'bare:1')).toBe(store === 'classic' ? config : manifest);
    expect(config).toBe(bare.configDigest);
    expect(engine.docker('save', 'charon:local', 'bare:1').length).toBeGreaterThan(100_000);
  },
  60_000,
);

/** The record of a whole tarball. */
function whole(tarball: Buffer): JsonObject {
  return { tarballSize: tarball.length, tarballDigest: digestOf(tarball) };
}

describe.each(stores)('a tarball without a manifest of its own, on the %s store', (store) => {
  const plain = makeImage({ gzip: false, labels: { 'org.opencontainers.image.revision': 'abc123' } });
  const imposter = reconfigured(plain, (config) => ({ ...config, config: { Labels: {}, Env: ['OTHER=1'] } }));

  test('is identified by its config: the same image is loaded, and another config is detected (S0.4)', async () => {
    const engine = engines[store];
    const honest = await exported(service, engines, podmanTarball(plain, names));
    for (const record of shareOn(store, [honest.record, undefined])) {
      await publish(service, { tarball: podmanTarball(plain, names), record });
      const outcome = await load(engine, { 'expected-config-digest': plain.configDigest });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs['config-digest']).toBe(plain.configDigest);
      const labels = engine.docker('image', 'inspect', '--format', '{{json .Config.Labels}}', 'charon:local');
      expect(JSON.parse(labels)).toEqual({ 'org.opencontainers.image.revision': 'abc123' });
      expect(namesOn(engine)).toEqual(names);
      // This action computes the manifest in advance; the engine doesn't create it.
      const digests: Readonly<Record<string, JsonObject>> = JSON.parse(outcome.outputs['images'] ?? '');
      const { 'config-digest': config, 'manifest-digest': manifest } = Object.values(digests)[0] ?? {};
      expect(idOf(engine, 'charon:local')).toBe(store === 'classic' ? config : manifest);
      engine.docker('image', 'rm', 'charon:local');

      await publish(service, { tarball: podmanTarball(imposter, names), record });
      const swapped = await load(engine, { 'expected-config-digest': plain.configDigest });
      expect(['artifact-corrupt', 'image-mismatch']).toContain(errorCode(swapped));
      expect(namesOn(engine)).toEqual([]);
    }
  });

  test('a flipped bit of its config and one of a layer are detected (S0.4)', async () => {
    const engine = engines[store];
    const tarball = podmanTarball(plain, names);
    for (const text of shareOn(store, ['abc123', 'file-1'])) {
      const at = tarball.indexOf(text);
      const flipped = Buffer.from(tarball);
      flipped.writeUInt8(flipped.readUInt8(at) ^ 1, at);
      await publish(service, { tarball: flipped, record: undefined });
      const outcome = await load(engine, { 'expected-config-digest': plain.configDigest });
      expect(outcome.exitCode).toBe(1);
      expect(lieCodes).toContain(errorCode(outcome));
      expect(namesOn(engine)).toEqual([]);
    }
  });
});
