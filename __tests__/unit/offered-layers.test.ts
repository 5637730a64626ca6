import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { setImmediate as settle, setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type FixtureImage, type FixtureOptions, json, makeImage, tar } from '../fixtures/image.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { identifyByRange, type IdentifiedImage } from '../../shared/handed-over/identity.ts';
import {
  LayerTurns,
  type LayerWatch,
  type LoopbackRegistry,
  loopbackRegistry,
  type Offer,
  type OfferedImage,
  offerImage,
} from '../../load-image/into/loopback-registry.ts';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { type JsonObject, objectsOf } from '../../shared/base/json.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { type Digest, digestOf, hexOf } from '../../shared/image/digest.ts';
import { parseManifest } from '../../shared/image/manifest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { imageStores } from '../../shared/image/image-store.ts';

type OfferedBlob = OfferedImage['blobs'] extends ReadonlyMap<Digest, infer Blob> ? Blob : never;

describe('the registry on the loopback interface', () => {
  const manifest = Buffer.from('{"schemaVersion":2}');
  const manifestDigest = digestOf(manifest);
  const broken = digestOf('broken');
  const served = (bytes: Buffer, mediaType: string): OfferedBlob => ({
    size: bytes.length,
    mediaType,
    chunks: () => Readable.from([bytes]),
  });
  const large = randomBytes(21_000_000);
  const failing = async function* (): AsyncGenerator<Buffer> {
    yield await Promise.resolve(Buffer.alloc(10));
    throw new Error('the link is down');
  };
  const blobs = new Map<Digest, OfferedBlob>([
    [manifestDigest, served(manifest, 'application/vnd.oci.image.manifest.v1+json')],
    [broken, { size: 20, mediaType: 'x', chunks: failing }],
    [digestOf(large), { size: large.length, mediaType: 'x', chunks: () => inReusedMemory(large, 2 * 2 ** 20) }],
  ]);
  let registry: LoopbackRegistry;
  const start = async (): Promise<string> => {
    registry = await loopbackRegistry({ manifestDigest, blobs }, 'handover-test');
    const [, host, repository] = /^([^/]+)\/([^@]+)@/.exec(registry.reference) ?? [];
    return `http://${host ?? ''}/v2/${repository ?? ''}`;
  };
  afterEach(async () => {
    await registry[Symbol.asyncDispose]();
  });

  test('the registry serves the manifest under its digest, and reports that it was reached', async () => {
    const url = await start();
    const head = await fetch(`${url}/manifests/${manifestDigest}`, { method: 'HEAD' });
    expect(head.headers.get('content-length')).toBe(String(manifest.length));
    const response = await fetch(`${url}/manifests/${manifestDigest}`);
    expect(response.headers.get('content-type')).toBe('application/vnd.oci.image.manifest.v1+json');
    expect(await response.text()).toBe(manifest.toString());
    await registry.reached;
  });

  test('the registry identifies itself, and serves nothing to clients that don’t know the repository', async () => {
    const url = await start();
    const root = url.replace(/v2\/.*/, 'v2/');
    expect((await fetch(root)).status).toBe(200);
    for (const path of [`guess/manifests/${manifestDigest}`, '_catalog', `../${manifestDigest}`]) {
      expect((await fetch(`${root}${path}`)).status).toBe(404);
    }
    expect((await fetch(`${url}/blobs/${digestOf('other')}`)).status).toBe(404);
    expect((await fetch(`${url}/blobs/latest`)).status).toBe(404);
  });

  test('the registry listens only on the loopback interface, with a new name each time', async () => {
    const first = await start();
    await registry[Symbol.asyncDispose]();
    const second = await start();
    expect(second).toMatch(/^http:\/\/127\.0\.0\.1:/);
    expect(second.split('/').at(-1)).not.toBe(first.split('/').at(-1));
  });

  test('the registry sends a large blob unchanged to a slow reader, although its parts share memory', async () => {
    const response = await fetch(`${await start()}/blobs/${digestOf(large)}`);
    const hash = createHash('sha256');
    for await (const chunk of response.body ?? []) {
      hash.update(chunk);
      await sleep(1);
    }
    expect(`sha256:${hash.digest('hex')}`).toBe(digestOf(large));
  });

  test('the registry cuts off a blob whose bytes can’t be read, and reports the error', async () => {
    const url = await start();
    await expect(fetch(`${url}/blobs/${broken}`).then((response) => response.text())).rejects.toThrow();
    expect(await registry.failed).toMatchObject({ message: 'the link is down' });
  });
});

describe('the layers of an artifact, offered separately', () => {
  /** Returns an artifact whose tarball begins with its layers, as export-image writes it. */
  const handedOver = (
    changeManifest: (manifest: object) => object = (manifest) => manifest,
    options: FixtureOptions = { layers: 2, layerBytes: 3000, gzip: false },
  ): { readonly record: HandoverRecord; readonly content: ArtifactContent; readonly image: FixtureImage } => {
    const image = makeImage(options);
    const manifest = json(changeManifest(JSON.parse(image.blobs.get(image.manifestDigest)?.toString() ?? '')));
    const layers = image.layerDigests.map((digest) => image.blobs.get(digest) ?? Buffer.alloc(0));
    const name = (bytes: Buffer): string => `blobs/sha256/${hexOf(digestOf(bytes))}`;
    const config = image.blobs.get(image.configDigest) ?? Buffer.alloc(0);
    const tarball = tar([...layers, config, manifest].map((bytes): [string, Buffer] => [name(bytes), bytes]));
    const record: HandoverRecord = {
      references: [parseTaggedReference('charon:local')],
      platform: parsePlatform('linux/amd64'),
      configDigest: image.configDigest,
      manifestDigests: [digestOf(manifest)],
      diffIds: image.diffIds,
      labels: {},
      layers: layers.map((bytes) => ({
        digest: digestOf(bytes),
        size: bytes.length,
        mediaType: `application/vnd.oci.image.layer.v1.tar${options.gzip === false ? '' : '+gzip'}`,
        offset: tarball.indexOf(bytes),
      })),
      configAt: { offset: tarball.indexOf(config), size: config.length },
      manifestAt: { offset: tarball.indexOf(manifest), size: manifest.length },
      tarballName: 'charon.tar',
      tarballSize: tarball.length,
      tarballDigest: digestOf(tarball),
      tarballCompression: 'none',
      producer: { repository: '', runId: '', runAttempt: 1, commit: '', jobKey: '' },
    };
    const content: ArtifactContent = {
      artifact: { id: 1, name: 'docker-image', size: tarball.length },
      downloaded: () => undefined,
      files: [],
      text: () => Promise.resolve(undefined),
      read: () => Readable.from([tarball]),
      ranges: () =>
        Promise.resolve((start, end, onBytes) => {
          onBytes(end - start);
          return inReusedMemory(tarball.subarray(start, end), 700);
        }),
    };
    return { record, content, image };
  };
  const know = async (content: ArtifactContent, record: HandoverRecord): Promise<IdentifiedImage> => {
    const [image] = (await identifyByRange(content, record)) ?? [];
    if (image === undefined) throw new Error('nothing is known');
    return image;
  };
  const offer = async (
    { content, record }: Pick<ReturnType<typeof handedOver>, 'content' | 'record'>,
    watch: LayerWatch = nobody,
    store: 'classic' | 'containerd' = 'classic',
  ): Promise<Offer> => {
    const { ranged } = await know(content, record);
    return offerImage(ranged ?? missing(), imageStores[store], watch);
  };
  const manifestText = async (content: ArtifactContent, { manifestAt }: HandoverRecord): Promise<string> => {
    const bytes = await copiedBytes(content.read('charon.tar', () => undefined));
    return bytes.subarray(manifestAt?.offset, (manifestAt?.offset ?? 0) + (manifestAt?.size ?? 0)).toString();
  };
  const missing = (): never => {
    throw new Error('it is not offered');
  };
  const nobody = { onAsked: () => undefined, onBytes: () => undefined };
  const bytesOf = async ({ chunks }: OfferedBlob): Promise<Buffer> => copiedBytes(chunks());

  test('the offered blobs have their bytes and media types, in the original manifest of the image', async () => {
    const { record, content, image } = handedOver();
    const asked: Digest[] = [];
    let bytes = 0;
    const watch = {
      onAsked: (digest: Digest) => void asked.push(digest),
      onBytes: (more: number) => void (bytes += more),
    };
    const { blobs, manifestDigest } = await offer({ record, content }, watch);
    expect(manifestDigest).toBe(image.manifestDigest);
    for (const [digest, { size, chunks }] of blobs) {
      const bytes = await copiedBytes(chunks());
      expect([digestOf(bytes), bytes.length]).toEqual([digest, size]);
    }
    expect([...blobs.values()].map(({ mediaType }) => mediaType).sort()).toEqual([
      'application/vnd.oci.image.config.v1+json',
      'application/vnd.oci.image.layer.v1.tar',
      'application/vnd.oci.image.layer.v1.tar',
      'application/vnd.oci.image.manifest.v1+json',
    ]);
    expect(asked).toEqual(image.layerDigests);
    expect(bytes).toBe(record.layers.reduce((sum, { size }) => sum + size, 0));
  });

  test('large gzip layers are unpacked for the classic store, in a generated manifest with the same config', async () => {
    const { record, content, image } = handedOver(undefined, { layers: 2, layerBytes: 8_000_000, compressible: true });
    const { blobs, manifestDigest, unpacked } = await offer({ record, content });
    expect(unpacked.size).toBe(2);
    const manifest = parseManifest(await bytesOf(blobs.get(manifestDigest) ?? missing()), 'manifest');
    expect(manifest.config.digest).toBe(image.configDigest);
    expect(manifest.layers.map(({ digest }) => digest)).toEqual(image.diffIds);
    for (const { digest, size, mediaType } of [...manifest.layers, manifest.config]) {
      const bytes = await bytesOf(blobs.get(digest) ?? missing());
      expect([digestOf(bytes), bytes.length]).toEqual([digest, size]);
      expect(blobs.get(digest)).toMatchObject({ size, mediaType });
    }
    expect(manifest.layers.map(({ mediaType }) => mediaType)).toEqual(
      Array(2).fill('application/vnd.oci.image.layer.v1.tar'),
    );
  });

  test('layers are offered unchanged to the containerd store', async () => {
    const { record, content, image } = handedOver(undefined, { layers: 2, layerBytes: 8_000_000, compressible: true });
    const offered = await offer({ record, content }, nobody, 'containerd');
    expect(offered.unpacked.size).toBe(0);
    expect(offered.manifestDigest).toBe(image.manifestDigest);
    expect([...offered.blobs.keys()].sort()).toEqual([...image.blobs.keys()].sort());
  });

  test('layers are unchanged when they are small or when their end doesn’t contain their plain length', async () => {
    const small = handedOver(undefined, { layers: 2, layerBytes: 100_000, compressible: true });
    expect((await offer(small)).unpacked.size).toBe(0);
    const incompressible = handedOver(undefined, { layers: 1, layerBytes: 20_000_000 });
    expect((await offer(incompressible)).unpacked.size).toBe(0);
  });

  test('a manifest without a media type has the type that its layers show', async () => {
    const changed = handedOver((manifest) => ({ ...manifest, mediaType: undefined }));
    const { blobs, manifestDigest } = await offer(changed);
    expect(blobs.get(manifestDigest)).toMatchObject({ mediaType: 'application/vnd.oci.image.manifest.v1+json' });
    expect(changed.record.manifestDigests).toEqual([manifestDigest]);
  });

  test('the image is identified by its bytes, which are read together when they are contiguous', async () => {
    const { record, content, image } = handedOver();
    const read: number[] = [];
    const watched: ArtifactContent = {
      ...content,
      ranges: async (name) => {
        const range = await content.ranges(name);
        return range && ((start, end, onBytes) => (read.push(start), range(start, end, onBytes)));
      },
    };
    const { identity } = await know(watched, record);
    expect(identity).toMatchObject({
      configDigest: image.configDigest,
      manifestDigest: image.manifestDigest,
      diffIds: image.diffIds,
      platform: parsePlatform('linux/amd64'),
      labels: {},
    });
    expect(read).toEqual([record.configAt?.offset]);
  });

  const elsewhere = { offset: 512, size: 300 };
  test.each<[string, (record: HandoverRecord) => HandoverRecord, RegExp]>([
    ['config', (record) => ({ ...record, configDigest: digestOf('other') }), /its config digest/],
    ['manifest', (record) => ({ ...record, manifestDigests: [digestOf('other')] }), /its manifest digest/],
    ['diff ID', (record) => ({ ...record, diffIds: record.diffIds.map(() => digestOf('other')) }), /its diff IDs/],
    ['label', (record) => ({ ...record, labels: { 'org.opencontainers.image.revision': 'x' } }), /its labels/],
    ['platform', (record) => ({ ...record, platform: parsePlatform('linux/arm64') }), /its platform/],
    ['number of layers', (record) => ({ ...record, layers: record.layers.slice(1) }), /its number of layers/],
    [
      'layer',
      (record) => ({ ...record, layers: record.layers.map((layer) => ({ ...layer, digest: digestOf('other') })) }),
      /its layer 1/,
    ],
    [
      'size of a layer',
      (record) => ({ ...record, layers: record.layers.map((layer, at) => ({ ...layer, size: layer.size - at })) }),
      /its size of layer 2/,
    ],
    ['place of the config', (record) => ({ ...record, configAt: elsewhere }), /its config digest/],
    [
      'place of the manifest',
      (record) => ({ ...record, manifestAt: elsewhere }),
      /the manifest is not an image manifest/,
    ],
    [
      'manifest, which is at the place of the config',
      ({ configAt, ...record }) => ({
        ...record,
        ...(configAt === undefined ? {} : { configAt, manifestAt: configAt }),
      }),
      /is not an image manifest/,
    ],
  ])('a record is corrupt when it has another %s than the bytes', async (_, change, words) => {
    const { record, content } = handedOver();
    await expect(identifyByRange(content, change(record))).rejects.toMatchObject({
      code: 'artifact-corrupt',
      message: expect.stringMatching(words),
    });
  });

  test.each<[string, (manifest: JsonObject) => object, RegExp]>([
    [
      'a wrong length of its config',
      ({ config, ...rest }) => ({ ...rest, config: { ...Object(config), size: 7 } }),
      /config of 7 bytes/,
    ],
    [
      'a wrong kind of config',
      ({ config, ...rest }) => ({ ...rest, config: { ...Object(config), mediaType: 'application/vnd.x+json' } }),
      /not an image's/,
    ],
    [
      'fewer layers than its config',
      ({ layers, ...rest }) => ({ ...rest, layers: objectsOf(layers).slice(1) }),
      /has 1 layers; its config has 2/,
    ],
  ])(
    'a manifest is corrupt when it has %s, because the published image could not be pulled',
    async (_, change, words) => {
      const { record, content } = handedOver((manifest) => change(Object(manifest)));
      const listed = objectsOf(JSON.parse(await manifestText(content, record)).layers).length;
      const told = { ...record, layers: record.layers.slice(-listed) };
      await expect(identifyByRange(content, told)).rejects.toMatchObject({
        code: 'artifact-corrupt',
        message: expect.stringMatching(words),
      });
    },
  );

  test('images with the same place are not read a hundred times', async () => {
    const { record, content } = handedOver();
    const { manifestAt, ...image } = { ...record, configAt: { offset: 0, size: 4_000_000 } };
    expect(manifestAt).toBeDefined();
    const further = Array.from({ length: 99 }, () => ({ ...image, manifestDigests: [] }));
    const read = { ...content, ranges: () => Promise.reject(new Error('it is read')) };
    expect(await identifyByRange(read, { ...image, manifestDigests: [], further })).toBeUndefined();
  });

  test.each<[string, (record: HandoverRecord) => HandoverRecord]>([
    ['describes a compressed tarball', (record) => ({ ...record, tarballCompression: 'gzip' })],
    ['doesn’t contain the place of the config', ({ configAt, ...record }) => (expect(configAt).toBeDefined(), record)],
  ])('the whole tarball is required to identify the image when the record %s', async (_, change) => {
    const { record, content } = handedOver();
    expect(await identifyByRange(content, change(record))).toBeUndefined();
  });

  test('the whole tarball is required to identify the image when the artifact can’t be read in parts', async () => {
    const { record, content } = handedOver();
    const whole = { ...content, ranges: () => Promise.resolve(undefined) };
    expect(await identifyByRange(whole, record)).toBeUndefined();
  });
});

describe('the turns of offered layers', () => {
  const layer = async function* (log: string[], name: string): AsyncGenerator<Buffer> {
    for (const part of [1, 2]) {
      await settle();
      log.push(`${name}${String(part)}`);
      yield Buffer.from(name);
    }
  };
  const drain = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of chunks) expect(chunk.length).toBe(1);
  };

  test('turns allow one layer at a time, the lowest layer first, in any order of requests', async () => {
    const turns = new LayerTurns();
    const log: string[] = [];
    await Promise.all([
      drain(turns.pass(1, () => layer(log, 'b'))),
      drain(turns.pass(2, () => layer(log, 'c'))),
      drain(turns.pass(0, () => layer(log, 'a'))),
    ]);
    expect(log.join(' ')).toBe('a1 a2 b1 b2 c1 c2');
    await drain(turns.pass(3, () => layer(log, 'd')));
    expect(log.at(-1)).toBe('d2');
  });

  test('turns wait once for a lower layer that isn’t requested, and continue with it when it is requested late', async () => {
    const turns = new LayerTurns();
    const log: string[] = [];
    const higher = [drain(turns.pass(3, () => layer(log, 'd'))), drain(turns.pass(2, () => layer(log, 'c')))];
    await settle();
    expect(log).toEqual([]);
    await Promise.race(higher);
    await Promise.all([...higher, drain(turns.pass(0, () => layer(log, 'a')))]);
    expect(log.join(' ')).toBe('c1 c2 d1 d2 a1 a2');
    await drain(turns.pass(5, () => layer(log, 'f')));
    expect(log.at(-1)).toBe('f2');
  });

  test('turns continue when a layer breaks off or is no longer read', async () => {
    const turns = new LayerTurns();
    const log: string[] = [];
    const broken = turns.pass(0, () => Readable.from([Promise.reject(new Error('cut'))]));
    await expect(drain(broken)).rejects.toThrow('cut');
    for await (const chunk of turns.pass(1, () => layer(log, 'b'))) {
      expect(chunk.toString()).toBe('b');
      break;
    }
    await drain(turns.pass(2, () => layer(log, 'c')));
    expect(log).toEqual(['b1', 'c1', 'c2']);
  });
});
