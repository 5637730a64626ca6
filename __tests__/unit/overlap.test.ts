import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { setImmediate as settle, setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type FixtureImage, type FixtureOptions, json, makeImage, tar } from '../fixtures/image.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { LayerTurns } from '../../load-image/overlap/layer-turns.ts';
import {
  type LoopbackRegistry,
  loopbackRegistry,
  type OfferedBlob,
} from '../../load-image/overlap/loopback-registry.ts';
import { type OfferedLayers, offerLayers } from '../../load-image/overlap/offered-layers.ts';
import { PassingTarball } from '../../load-image/overlap/passing-tarball.ts';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { type Digest, digestOf, hexOf } from '../../shared/image/digest.ts';
import { parseManifest } from '../../shared/image/manifest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { readSmallTar } from '../../shared/tar/entries.ts';

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
    registry = await loopbackRegistry({ manifestDigest, blobs });
    const [, host, repository] = /^([^/]+)\/([^@]+)@/.exec(registry.reference) ?? [];
    return `http://${host ?? ''}/v2/${repository ?? ''}`;
  };
  afterEach(async () => {
    await registry[Symbol.asyncDispose]();
  });

  test('serves the manifest under its digest, and tells that it was reached', async () => {
    const url = await start();
    const head = await fetch(`${url}/manifests/${manifestDigest}`, { method: 'HEAD' });
    expect(head.headers.get('content-length')).toBe(String(manifest.length));
    const response = await fetch(`${url}/manifests/${manifestDigest}`);
    expect(response.headers.get('content-type')).toBe('application/vnd.oci.image.manifest.v1+json');
    expect(await response.text()).toBe(manifest.toString());
    await registry.reached;
  });

  test('says that it is a registry, and gives nothing to whoever doesn’t know the repository', async () => {
    const url = await start();
    const root = url.replace(/v2\/.*/, 'v2/');
    expect((await fetch(root)).status).toBe(200);
    for (const path of [`guess/manifests/${manifestDigest}`, '_catalog', `../${manifestDigest}`]) {
      expect((await fetch(`${root}${path}`)).status).toBe(404);
    }
    expect((await fetch(`${url}/blobs/${digestOf('other')}`)).status).toBe(404);
    expect((await fetch(`${url}/blobs/latest`)).status).toBe(404);
  });

  test('listens on the loopback interface alone, under another name each time', async () => {
    const first = await start();
    await registry[Symbol.asyncDispose]();
    const second = await start();
    expect(second).toMatch(/^http:\/\/127\.0\.0\.1:/);
    expect(second.split('/').at(-1)).not.toBe(first.split('/').at(-1));
  });

  test('a large blob, whose parts share memory, arrives as it is at a slow reader', async () => {
    const response = await fetch(`${await start()}/blobs/${digestOf(large)}`);
    const hash = createHash('sha256');
    for await (const chunk of response.body ?? []) {
      hash.update(chunk);
      await sleep(1);
    }
    expect(`sha256:${hash.digest('hex')}`).toBe(digestOf(large));
  });

  test('a blob whose bytes can’t be had: cut off, and told', async () => {
    const url = await start();
    await expect(fetch(`${url}/blobs/${broken}`).then((response) => response.text())).rejects.toThrow();
    expect(await registry.failed).toMatchObject({ message: 'the link is down' });
  });
});

describe('the layers of an artifact, one by one', () => {
  /** An artifact whose tarball begins with its layers, as export-image writes it. */
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
  const offer = async ({
    content,
    record,
  }: Pick<ReturnType<typeof handedOver>, 'content' | 'record'>): Promise<OfferedLayers> => {
    const offered = await offerLayers(content, record);
    if (offered === undefined) throw new Error('nothing was offered');
    return offered;
  };
  const missing = (): never => {
    throw new Error('it is not offered');
  };
  const nobody = { onAsked: () => undefined, onBytes: () => undefined };

  test('each blob has its bytes and its type; the rest of the tarball has none of the layers', async () => {
    const { record, content, image } = handedOver();
    const offered = await offer({ record, content });
    const asked: Digest[] = [];
    let bytes = 0;
    const { blobs } = offered.image({
      onAsked: (digest) => void asked.push(digest),
      onBytes: (more) => (bytes += more),
    });
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
    expect(offered.rest.length).toBeLessThan(record.tarballSize - bytes);
    expect(offered.rest.includes(hexOf(image.layerDigests[0] ?? record.configDigest))).toBe(true); // in the manifest
    expect(offered.rest.includes(`blobs/sha256/${hexOf(image.layerDigests[0] ?? record.configDigest)}`)).toBe(false);
  });

  const bytesOf = async ({ chunks }: OfferedBlob): Promise<Buffer> => copiedBytes(chunks());

  test('large gzip layers are offered unpacked, in a manifest of our own with the same config', async () => {
    const { record, content, image } = handedOver(undefined, { layers: 2, layerBytes: 8_000_000, compressible: true });
    const offered = await offer({ record, content });
    expect([offered.unpacked.size, offered.layers.size]).toEqual([2, 2]);
    const { blobs, manifestDigest } = offered.image(nobody);
    const manifest = parseManifest((await bytesOf(blobs.get(manifestDigest) ?? missing())).toString(), 'manifest');
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

  test('small layers, and those whose end doesn’t tell their length, stay as they are', async () => {
    const small = handedOver(undefined, { layers: 2, layerBytes: 100_000, compressible: true });
    expect((await offer(small)).unpacked.size).toBe(0);
    const incompressible = handedOver(undefined, { layers: 1, layerBytes: 20_000_000 });
    expect((await offer(incompressible)).unpacked.size).toBe(0);
  });

  test('docker load gets unpacked layers as they are in the tarball, and then the rest', async () => {
    const { record, content, image } = handedOver(undefined, { layers: 3, layerBytes: 8_000_000, compressible: true });
    const offered = await offer({ record, content });
    const tarball = new PassingTarball();
    const loaded = copiedBytes(tarball.chunks());
    const { blobs } = offered.image(nobody, tarball);
    await Promise.all(image.diffIds.map((digest) => bytesOf(blobs.get(digest) ?? missing())));
    await tarball.end(offered.rest);
    const files = await readSmallTar(await loaded);
    expect([...files.keys()].filter((name) => name.startsWith('blobs/sha256/')).sort()).toEqual(
      [...image.blobs.keys()].map((digest) => `blobs/sha256/${hexOf(digest)}`).sort(),
    );
    for (const [name, bytes] of files) expect(name).toContain(hexOf(digestOf(bytes)));
  });

  test('a manifest that doesn’t name its type is known by its layers', async () => {
    const changed = handedOver((manifest) => ({ ...manifest, mediaType: undefined }));
    const { blobs, manifestDigest } = (await offer(changed)).image(nobody);
    expect(blobs.get(manifestDigest)).toMatchObject({ mediaType: 'application/vnd.oci.image.manifest.v1+json' });
    expect(changed.record.manifestDigests).toEqual([manifestDigest]);
  });

  test.each<[string, (record: HandoverRecord) => HandoverRecord]>([
    ['names a manifest that the tarball lacks', (record) => ({ ...record, manifestDigests: [digestOf('other')] })],
    ['is of a compressed tarball', (record) => ({ ...record, tarballCompression: 'gzip' })],
    [
      'doesn’t tell where layers lie',
      (record) => ({
        ...record,
        layers: record.layers.map(({ digest, size, mediaType }) => ({ digest, size, mediaType })),
      }),
    ],
  ])('not when the record %s', async (_, change) => {
    const { record, content } = handedOver();
    expect(await offerLayers(content, change(record))).toBeUndefined();
  });

  test('not when the artifact can’t be read in parts', async () => {
    const { record, content } = handedOver();
    const whole = { ...content, ranges: () => Promise.resolve(undefined) };
    expect(await offerLayers(whole, record)).toBeUndefined();
  });
});

describe('a tarball of layers that pass by', () => {
  const layer = { digest: digestOf('x'), size: 300_000 };
  const bytes = randomBytes(layer.size);
  const sizes = async (chunks: AsyncIterable<Buffer>): Promise<number> => (await copiedBytes(chunks)).length;

  test('a slow docker load gets the same bytes, though all chunks come in the same memory', async () => {
    const tarball = new PassingTarball();
    const hash = createHash('sha256');
    const loading = (async () => {
      for await (const chunk of tarball.chunks()) {
        await sleep(5);
        if (chunk.length === 100_000) hash.update(chunk);
      }
    })();
    expect(await sizes(tarball.pass(layer, inReusedMemory(bytes, 100_000)))).toBe(layer.size);
    await tarball.end(Buffer.alloc(0));
    await loading;
    expect(`sha256:${hash.digest('hex')}`).toBe(digestOf(bytes));
  });

  test('a layer that isn’t taken to its end fails it', async () => {
    const tarball = new PassingTarball();
    const loading = sizes(tarball.chunks());
    for await (const chunk of tarball.pass(layer, inReusedMemory(bytes, 100_000))) {
      expect(chunk).toHaveLength(100_000);
      break;
    }
    await expect(loading).rejects.toMatchObject({
      code: 'load-failed',
      message: expect.stringContaining(layer.digest),
    });
    // What comes then passes all the same, but not into this tarball.
    expect(await sizes(tarball.pass(layer, inReusedMemory(bytes, 100_000)))).toBe(layer.size);
    await tarball.end(bytes);
  });

  test('a layer whose bytes can’t be had fails it, and the failure goes on', async () => {
    const tarball = new PassingTarball();
    const loading = sizes(tarball.chunks());
    const cut = Readable.from([bytes.subarray(0, 10), Promise.reject(new Error('cut'))]);
    await expect(sizes(tarball.pass(layer, cut))).rejects.toThrow('cut');
    await expect(loading).rejects.toMatchObject({ code: 'load-failed' });
  });

  test('a failure from elsewhere ends it, also while a chunk waits to be taken', async () => {
    const tarball = new PassingTarball();
    const passing = sizes(tarball.pass(layer, inReusedMemory(bytes, 100_000)));
    await settle();
    tarball.fail(new Error('the engine is gone'));
    await expect(sizes(tarball.chunks())).rejects.toThrow('the engine is gone');
    expect(await passing).toBe(layer.size);
  });

  test('a docker load that has ended holds nobody up', async () => {
    const tarball = new PassingTarball();
    const passing = sizes(tarball.pass(layer, inReusedMemory(bytes, 100_000)));
    for await (const chunk of tarball.chunks()) {
      expect(chunk).toHaveLength(512);
      break;
    }
    expect(await passing).toBe(layer.size);
    await tarball.end(bytes);
  });

  test('nor does one hold anybody up that never began', async () => {
    const tarball = new PassingTarball();
    const passing = sizes(tarball.pass(layer, inReusedMemory(bytes, 100_000)));
    tarball.fail(new Error('spawn docker ENOENT'));
    expect(await passing).toBe(layer.size);
  });
});

describe('turns', () => {
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

  test('one layer at a time, the lowest first, in whatever order the engine asks', async () => {
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

  test('a lower layer that isn’t asked for is waited for once, and comes next when it is asked for late', async () => {
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

  test('a layer that breaks off or isn’t wanted any more gives its turn away', async () => {
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
