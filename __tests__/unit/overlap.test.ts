import { setImmediate as settle } from 'node:timers/promises';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { LayerTurns } from '../../load-image/layer-turns.ts';
import { type LoopbackRegistry, loopbackRegistry } from '../../shared/docker/loopback-registry.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import type { OfferedBlob } from '../../shared/image/offered-image.ts';

describe('the registry on the loopback interface', () => {
  const manifest = Buffer.from('{"schemaVersion":2}');
  const manifestDigest = digestOf(manifest);
  const broken = digestOf('broken');
  const served = (bytes: Buffer, mediaType: string): OfferedBlob => ({
    size: bytes.length,
    mediaType,
    chunks: () => Readable.from([bytes]),
  });
  const failing = async function* (): AsyncGenerator<Buffer> {
    yield await Promise.resolve(Buffer.alloc(10));
    throw new Error('the link is down');
  };
  const blobs = new Map<Digest, OfferedBlob>([
    [manifestDigest, served(manifest, 'application/vnd.oci.image.manifest.v1+json')],
    [broken, { size: 20, mediaType: 'x', chunks: failing }],
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

  test('a blob whose bytes can’t be had: cut off, and told', async () => {
    const url = await start();
    await expect(fetch(`${url}/blobs/${broken}`).then((response) => response.text())).rejects.toThrow();
    expect(await registry.failed).toMatchObject({ message: 'the link is down' });
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

  test('one layer at a time, the lowest of those that wait first', async () => {
    const turns = new LayerTurns();
    const log: string[] = [];
    await Promise.all([
      drain(turns.pass(1, () => layer(log, 'b'))),
      drain(turns.pass(2, () => layer(log, 'c'))),
      drain(turns.pass(0, () => layer(log, 'a'))),
    ]);
    expect(log.join(' ')).toBe('b1 b2 a1 a2 c1 c2');
    await drain(turns.pass(3, () => layer(log, 'd')));
    expect(log.at(-1)).toBe('d2');
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
