import fc from 'fast-check';
import { describe, expect, test } from '@jest/globals';
import { parseExpectedDigest, requireExpected } from '../../shared/handed-over/expectations.ts';
import type { Identity } from '../../shared/handed-over/identity.ts';
import { differences, requireNames } from '../../load-image/into/prove.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { InspectedImage } from '../../shared/docker/output.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { type ImageStore, imageStores } from '../../shared/image/image-store.ts';
import { parsePlatform, platformOf } from '../../shared/image/platform.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { RacingStore } from '../fixtures/racing-store.ts';

const expected: Identity = {
  configDigest: digestOf('config'),
  manifestDigest: digestOf('manifest'),
  diffIds: [digestOf('1'), digestOf('2')],
  platform: parsePlatform('linux/arm64'),
  labels: {},
  config: {},
};
const found: InspectedImage = {
  imageId: digestOf('config'),
  repoTags: ['charon:local'],
  platform: platformOf('linux', 'arm64', 'v8'),
  diffIds: expected.diffIds,
  labels: {},
  config: {},
};
const nothing = { expectedConfigDigest: undefined, expectedRevision: undefined };
const host = platformOf('linux', 'aarch64');

/** Verifies the reference charon:local of an engine that returns this image. */
async function verify(image: InspectedImage, imageStore: ImageStore): Promise<void> {
  const engine: Engine = {
    ...new RacingStore().engine(() => Promise.resolve()),
    inspect: () => Promise.resolve(image),
  };
  const info = { platform: image.platform, imageStore, dataRoot: '', hostName: '' };
  await requireNames({ engine, info }, [{ identity: expected, references: [parseTaggedReference('charon:local')] }]);
}

describe('requireNames', () => {
  test('the same image passes with any spelling of its platform that an engine uses (S0.4)', async () => {
    const inContainerd = { ...found, imageId: digestOf('manifest') };
    await expect(verify(found, imageStores.classic)).resolves.toBeUndefined();
    await expect(verify(inContainerd, imageStores.containerd)).resolves.toBeUndefined();
    await expect(verify(found, imageStores.podman)).resolves.toBeUndefined();
  });

  test('another image under the tag is image-mismatch, and the error shows all differences and the tag', async () => {
    const other = { ...found, imageId: digestOf('other'), diffIds: [], platform: platformOf('linux', 'amd64') };
    const message = [
      `charon:local is not the image that was handed over: image ID ${digestOf('other')} instead of ` +
        digestOf('config'),
      `layers none instead of 2 up to ${digestOf('2').slice(0, 19)}…`,
      'platform linux/amd64 instead of linux/arm64.',
    ].join('; ');
    await expect(verify(other, imageStores.classic)).rejects.toMatchObject({ code: 'image-mismatch', message });
  });

  test('property: any change of the layers is one difference, and unchanged layers are no difference', () => {
    const digests = fc.array(fc.nat({ max: 3 }), { maxLength: 4 }).map((list) => list.map((n) => digestOf(String(n))));
    fc.assert(
      fc.property(digests, digests, (one, other) => {
        const same = one.join() === other.join();
        const said = differences({ ...expected, diffIds: one }, { ...found, diffIds: other }, imageStores.classic);
        expect(said).toHaveLength(same ? 0 : 1);
      }),
    );
  });
});

describe('the image ID', () => {
  test.each([
    ['classic', digestOf('manifest')],
    ['classic', digestOf('other')],
    ['containerd', digestOf('config')],
    ['containerd', digestOf('other')],
    ['podman', digestOf('manifest')],
  ] as const)('%s: only the one right digest is accepted', (store, imageId) => {
    expect(differences(expected, { ...found, imageId }, imageStores[store])).toEqual([
      expect.stringContaining(imageId),
    ]);
  });

  test.each(['classic', 'containerd'] as const)(
    '%s: a config that the engine reads differently is detected (B.11)',
    (store) => {
      const imageId = store === 'classic' ? expected.configDigest : expected.manifestDigest;
      const own: Identity = { ...expected, config: { Env: ['A=1'], Labels: { a: 'b' } } };
      const image: InspectedImage = { ...found, imageId: imageId ?? '', config: own.config };
      expect(differences(own, image, imageStores[store])).toEqual([]);
      expect(differences(own, { ...image, config: { Env: ['A=1'], Labels: { a: 'c' } } }, imageStores[store])).toEqual([
        'Labels {"a":"c"} instead of {"a":"b"}',
      ]);
      expect(differences(own, { ...image, config: {} }, imageStores[store])).toHaveLength(2);
      expect(differences(own, { ...image, configDigest: digestOf('other') }, imageStores[store])).toEqual([
        `config digest ${digestOf('other')} instead of ${digestOf('config')}`,
      ]);
    },
  );

  describe('every field that affects containers counts if a containerd store generates the manifest', () => {
    const config = { Env: ['A=1'], Cmd: ['sh'], Labels: { a: 'b' }, Healthcheck: { Test: ['CMD', 'x'], Interval: 5 } };
    const identity: Identity = { ...expected, manifestDigest: undefined, created: '2026-01-02T03:04:05Z', config };
    const image: InspectedImage = {
      ...found,
      imageId: digestOf('made here'),
      created: '2026-01-02T03:04:05.000Z',
      config,
    };

    test.each<[string, Partial<InspectedImage>]>([
      ['unchanged fields', {}],
      [
        'with empty values omitted or written out',
        { config: { ...config, User: '', ExposedPorts: null, Volumes: {} } },
      ],
      [
        'without members that Docker 28 no longer shows, and with ports in the form of Docker 29',
        { config: { ...config, Hostname: 'x', Image: 'y', ExposedPorts: null } },
      ],
      [
        'members in another order',
        { config: { Healthcheck: { Interval: 5, Test: ['CMD', 'x'] }, Labels: { a: 'b' }, Cmd: ['sh'], Env: ['A=1'] } },
      ],
    ])('%s: the image is the same', (_, change) => {
      expect(differences(identity, { ...image, ...change }, imageStores.containerd)).toEqual([]);
    });

    test('an image of the year 1, as made by crane, is the same if the engine omits the time', () => {
      const { created, ...undated } = image;
      const zero = { ...identity, created: '0001-01-01T00:00:00Z' };
      expect(created).toBeDefined();
      expect(differences(zero, undated, imageStores.containerd)).toEqual([]);
      expect(differences(zero, { ...undated, created: '0001-01-01T00:00:00Z' }, imageStores.containerd)).toEqual([]);
    });

    test('ports and folders are sets, which can be written in more than one way', () => {
      const of = (ExposedPorts: object, Volumes: object): Identity & InspectedImage => ({
        ...{ ...identity, ...image },
        config: { ExposedPorts, Volumes },
      });
      const one = of({ '80': {}, '53/UDP': {} }, { '/a': {}, '/b': {} });
      expect(
        differences(one, of({ '53/udp': {}, '80/tcp': {} }, { '/b': null, '/a': {} }), imageStores.containerd),
      ).toEqual([]);
      expect(differences(one, of({ '53/udp': {} }, { '/b': {}, '/a': {} }), imageStores.containerd)).toHaveLength(1);
    });

    test.each<[string, Partial<InspectedImage>]>([
      ['Env', { config: { ...config, Env: ['A=2'] } }],
      ['Cmd', { config: { ...config, Cmd: null } }],
      ['ExposedPorts', { config: { ...config, ExposedPorts: { '80/tcp': {} } } }],
      ['Volumes', { config: { ...config, Volumes: { '/data': {} } } }],
      ['StopSignal', { config: { ...config, StopSignal: 'SIGKILL' } }],
      ['User', { config: { ...config, User: 'root' } }],
      ['Healthcheck', { config: { ...config, Healthcheck: { Test: ['CMD', 'y'], Interval: 5 } } }],
      ['created', { created: '2026-01-02T03:04:06Z' }],
      ['platform', { platform: platformOf('linux', 'amd64') }],
      ['layers', { diffIds: [digestOf('1')] }],
    ])('another %s is a difference', (name, change) => {
      const said = differences(identity, { ...image, ...change }, imageStores.containerd);
      expect(said).toEqual([expect.stringMatching(new RegExp(`^${name} `))]);
    });
  });
});

describe('requireExpected', () => {
  const check =
    (expectations: Partial<{ expectedConfigDigest: Digest; expectedRevision: string; host: undefined }>) =>
    (image: Partial<Identity>, engine = host) =>
    () => {
      requireExpected({ ...nothing, host: engine, ...expectations }, [{ ...expected, ...image }]);
    };
  const revision = (value: string) => ({ labels: { 'org.opencontainers.image.revision': value } });

  test.each([
    ['the expected revision (S1.8)', check({ expectedRevision: 'abc' })(revision('abc'))],
    ['the expected config digest', check({ expectedConfigDigest: digestOf('config') })({})],
    ['an image without a revision if none is expected', check({})({})],
    ['an image with a revision if none is expected', check({})(revision('abc'))],
    ['another variant of the engine’s architecture', check({})({ platform: platformOf('linux', 'arm64', 'v9') })],
    ['an emulated platform', check({ host: undefined })({ platform: platformOf('linux', 'x86_64') })],
  ])('%s passes', (_, work) => {
    expect(work).not.toThrow();
  });

  test.each([
    [
      'another commit (S1.8)',
      check({ expectedRevision: 'abc' })(revision('def')),
      'revision-mismatch',
      'was built from def',
    ],
    ['a part of the commit (S1.8)', check({ expectedRevision: 'abc' })(revision('abcd')), 'revision-mismatch', 'abcd'],
    ['no revision label (S1.8)', check({ expectedRevision: 'abc' })({}), 'revision-mismatch', 'has no label'],
    ['another image', check({ expectedConfigDigest: digestOf('x') })({}), 'image-mismatch', digestOf('config')],
    ['another platform', check({})({}, platformOf('linux', 'x86_64')), 'platform-mismatch', 'engine is linux/amd64'],
    ['another system', check({})({}, platformOf('windows', 'arm64')), 'platform-mismatch', 'windows/arm64'],
  ])('%s fails', (_, work, code, words) => {
    expect(work).toThrow(expect.objectContaining({ code, message: expect.stringContaining(words) }));
  });

  test('an expected digest is read whole, and another text is shown with what was expected', () => {
    expect(parseExpectedDigest(digestOf('config'))).toBe(digestOf('config'));
    expect(() => parseExpectedDigest('sha256:1')).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining('is "sha256:1"; expected sha256:'),
      }),
    );
  });

  test('a label of a third party can’t start a new line in the message', () => {
    expect(check({ expectedRevision: 'abc' })(revision('x\n::error::y'))).toThrow('was built from x ::error::y');
  });
});
