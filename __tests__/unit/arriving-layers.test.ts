import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { viewOf, copiedBytes } from '../../shared/bytes/chunks.ts';
import { type Digest, digestOf, hexOf } from '../../shared/image/digest.ts';
import { arrivingLayers, begun } from '../../shared/layout/arriving-layers.ts';
import { type ArrivingLayer } from '../../shared/tar/tarball-writer.ts';

let directory: string;
beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), 'arriving-'))));
afterAll(() => rm(directory, { recursive: true }));

/** An OCI layout as BuildKit's client writes it: `ingest/<any>/{ref,total,data}`, renamed to `blobs/` when it is complete. */
class Layout {
  readonly path: string;
  readonly written: Promise<void>;
  end: () => void = () => undefined;
  fail: (error: Error) => void = () => undefined;

  constructor(name: string) {
    this.path = join(directory, name);
    this.written = new Promise((resolve, reject) => {
      this.end = resolve;
      this.fail = reject;
    });
    this.written.catch(() => undefined);
  }

  async whole(digest: Digest, bytes: Buffer): Promise<void> {
    await mkdir(join(this.path, 'blobs/sha256'), { recursive: true });
    await writeFile(join(this.path, 'blobs/sha256', hexOf(digest)), bytes);
  }

  ingest(digest: Digest): string {
    return join(this.path, 'ingest', hexOf(digest).slice(0, 8));
  }

  async begin(digest: Digest, first: Buffer, total: string, ref = `layer-${digest}`): Promise<void> {
    await mkdir(this.ingest(digest), { recursive: true });
    await writeFile(join(this.ingest(digest), 'ref'), ref);
    await writeFile(join(this.ingest(digest), 'data'), first);
    await writeFile(join(this.ingest(digest), 'total'), total);
  }

  async commit(digest: Digest): Promise<void> {
    await mkdir(join(this.path, 'blobs/sha256'), { recursive: true });
    await rename(join(this.ingest(digest), 'data'), join(this.path, 'blobs/sha256', hexOf(digest)));
    await rm(this.ingest(digest), { recursive: true });
  }

  layers(): AsyncGenerator<ArrivingLayer> {
    return arrivingLayers(this.path, this.written);
  }
}

const bytes = (length: number): Buffer => Buffer.alloc(length, 'layer of no tar ');

async function next(layers: AsyncGenerator<ArrivingLayer>): Promise<ArrivingLayer> {
  const result = await layers.next();
  if (result.done === true) throw new Error('there is no further layer');
  return result.value;
}

const read = (layer: ArrivingLayer): Promise<Buffer> => copiedBytes(layer.chunks());

describe('complete layers', () => {
  test('complete layers are returned while others are still being written, each exactly once, including those completed at the last moment', async () => {
    const layout = new Layout('whole');
    const layers = layout.layers();
    await layout.whole(digestOf('one'), Buffer.from('1'));
    expect(await layers.next()).toMatchObject({ done: false, value: { digest: digestOf('one'), size: 1 } });
    await writeFile(join(layout.path, 'blobs/sha256/not-a-digest'), '');
    await layout.whole(digestOf('two'), Buffer.from('2'));
    layout.end();
    const rest: string[] = [];
    for await (const { digest } of layers) rest.push(digest);
    expect(rest).toEqual([digestOf('two')]);
  });

  test('complete layers with bytes that do not match their digest throw tarball-invalid, and the error names the layer (B.8)', async () => {
    const layout = new Layout('damaged');
    const digest = digestOf(bytes(2_000_000));
    const damaged = bytes(2_000_000);
    damaged.writeUInt8(0, 1_500_000);
    await layout.whole(digest, damaged);
    await expect(read(await next(layout.layers()))).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: `The layer ${digest} in the OCI layout holds other bytes (${digestOf(damaged)}).`,
    });
  });

  test('complete layers are returned before layers that are still growing; configs and manifests are not returned', async () => {
    const layout = new Layout('before');
    await layout.begin(digestOf('growing'), bytes(10), '20');
    await layout.whole(digestOf('config'), Buffer.from('{"architecture":"amd64"}'));
    await layout.whole(digestOf('whole'), bytes(5));
    const layers = layout.layers();
    expect((await next(layers)).digest).toBe(digestOf('whole'));
    expect((await next(layers)).digest).toBe(digestOf('growing'));
  });

  test('complete layers reject with the failure of their writer, even a failure before the first layer', async () => {
    const layout = new Layout('failing');
    layout.fail(new Error('no disk'));
    await expect(begun(layout.layers())).rejects.toThrow('no disk');
  });
});

describe('a growing layer', () => {
  const content = bytes(2_500_000);
  const digest = digestOf(content);

  test('a growing layer returns its bytes as they arrive, in full chunks, including the bytes that arrive at the end', async () => {
    const layout = new Layout('growing');
    await layout.begin(digest, content.subarray(0, 1_100_000), String(content.length));
    const layers = layout.layers();
    const layer = await next(layers);
    expect(layer).toMatchObject({ digest, size: content.length });
    const chunks = layer.chunks()[Symbol.asyncIterator]();
    const taken: Buffer[] = [];
    const take = async (): Promise<number> => {
      const result = await chunks.next();
      if (result.done === true) return 0;
      taken.push(Buffer.from(viewOf(result.value)));
      return result.value.length;
    };
    expect(await take()).toBe(1024 * 1024); // while the layer is incomplete
    await appendFile(join(layout.ingest(digest), 'data'), content.subarray(1_100_000, 2_200_000));
    expect(await take()).toBe(1024 * 1024);
    await appendFile(join(layout.ingest(digest), 'data'), content.subarray(2_200_000));
    await layout.commit(digest);
    layout.end();
    while ((await take()) > 0);
    expect(Buffer.concat(taken).equals(content)).toBe(true);
    expect((await layers.next()).done).toBe(true);
  });

  test('the first growing layer is the most complete one that has already received bytes', async () => {
    const layout = new Layout('furthest');
    await layout.begin(digestOf('a'), bytes(10), '1000');
    await layout.begin(digestOf('b'), bytes(8), '16');
    await layout.begin(digestOf('c'), bytes(0), '1');
    const layers = layout.layers();
    expect((await next(layers)).digest).toBe(digestOf('b'));
    expect((await next(layers)).digest).toBe(digestOf('a'));
  });

  test.each([
    ['a config', `config-${digest}`, '9'],
    ['a reference in another form', digest, '9'],
    ['a layer of unknown size', `layer-${digest}`, '0'],
    ['a layer whose size is not written yet', `layer-${digest}`, ''],
  ])('%s is returned only when it is complete', async (_what, ref, total) => {
    const layout = new Layout(`waits-${ref.slice(0, 3)}-${total}`);
    await layout.begin(digest, content, total, ref);
    const layers = layout.layers();
    const first = next(layers);
    expect(await Promise.race([first, sleep(80, 'waits')])).toBe('waits');
    await layout.commit(digest);
    layout.end();
    expect(await first).toMatchObject({ digest, size: content.length });
  });

  test('a growing layer is read from its final place when it is completed between the look-up and the read', async () => {
    const layout = new Layout('renamed');
    await layout.begin(digest, content.subarray(0, 9), String(content.length));
    const layer = await next(layout.layers());
    await writeFile(join(layout.ingest(digest), 'data'), content);
    await layout.commit(digest);
    layout.end();
    expect((await read(layer)).equals(content)).toBe(true);
  });

  test('a growing layer with bytes that do not match its digest throws tarball-invalid, and the error names the layer (B.8)', async () => {
    const layout = new Layout('other-bytes');
    await layout.begin(digest, bytes(9), '9');
    const layer = await next(layout.layers());
    await layout.commit(digest);
    layout.end();
    await expect(read(layer)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: `The layer ${digest} in the OCI layout holds other bytes (${digestOf(bytes(9))}).`,
    });
  });

  test.each([
    ['too short', 5],
    ['longer than its declared size', 2_000_000],
  ])('a growing layer that ends up %s throws tarball-invalid', async (what, length) => {
    const layout = new Layout(what);
    await layout.begin(digest, bytes(length), '9');
    const layer = await next(layout.layers());
    await layout.commit(digest);
    layout.end();
    await expect(read(layer)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('bytes instead of 9'),
    });
  });

  test('a growing layer rejects with the failure of its writer', async () => {
    const layout = new Layout('broken');
    await layout.begin(digest, bytes(5), '9');
    const layer = await next(layout.layers());
    const reading = read(layer);
    await sleep(30);
    layout.fail(new Error('no disk'));
    await expect(reading).rejects.toThrow('no disk');
  });

  test('a growing layer rejects with the failure of its writer even if that happened before the first read', async () => {
    const layout = new Layout('broken-before');
    await layout.begin(digest, bytes(5), '9');
    const layer = await next(layout.layers());
    layout.fail(new Error('no disk'));
    await expect(read(layer)).rejects.toThrow('no disk');
  });
});
