import { execFileSync } from 'node:child_process';
import { createReadStream, mkdirSync, readdirSync, watch, writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { extract } from 'tar-stream';
import { json, makeImage, podmanTarball, savedTarball, tar, writeLayout } from '../fixtures/image.ts';
import { type Rewriting, rewritten } from '../fixtures/lying-artifact.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { parseManifest } from '../../shared/image/manifest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { arrivingLayers } from '../../shared/layout/arriving-layers.ts';
import { blobPath, readOciLayout } from '../../shared/layout/read-layout.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';
import { compressionOf, decompress } from '../../shared/tar/compression.ts';
import { tarHeader } from '../../shared/tar/header.ts';
import { chooseImage, imagesIn, type TarballImage } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';
import { tarballChunks, type WrittenTarball } from '../../shared/tar/tarball-writer.ts';

let directory: string;
beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), 'tarball-'))));
afterAll(() => rm(directory, { recursive: true }));

const platform = parsePlatform('linux/amd64');
const references = [parseTaggedReference('charon:local'), parseTaggedReference('ghcr.io/org/charon:1')];

async function inspect(bytes: Buffer, pieceBytes = 10_000): Promise<readonly TarballImage[]> {
  return imagesIn(await seeTarball(inReusedMemory(bytes, pieceBytes))).images;
}

async function writeTarball(layout: string): Promise<{ bytes: Buffer; written: WrittenTarball | undefined }> {
  let written: WrittenTarball | undefined;
  const image = await readOciLayout(layout, platform);
  const images = () => Promise.resolve([{ image, references }]);
  const layers = arrivingLayers(layout, Promise.resolve());
  const bytes = await copiedBytes(tarballChunks(layers, images, (facts) => (written = facts)));
  return { bytes, written };
}

describe('writing', () => {
  test('the tarball has the announced length, can be read by tar, and contains the same image', async () => {
    const image = makeImage({ layers: 3 });
    const layout = join(directory, 'layout');
    await writeLayout(image, layout);
    const { bytes, written } = await writeTarball(layout);
    expect(written?.size).toBe(bytes.length);
    for (const digest of image.blobs.keys()) {
      const offset = written?.offsets.get(digest) ?? 0;
      const size = image.blobs.get(digest)?.length ?? 0;
      expect(digestOf(bytes.subarray(offset, offset + size))).toBe(digest);
    }
    const path = join(directory, 'image.tar');
    await writeFile(path, bytes);
    const names = execFileSync('tar', ['-tf', path]).toString().trim().split('\n');
    expect(names.slice(-3)).toEqual(['oci-layout', 'index.json', 'manifest.json']);
    const [found] = await inspect(bytes);
    expect(found).toMatchObject({
      configDigest: image.configDigest,
      manifests: [{ digest: image.manifestDigest, around: [] }],
      config: { diffIds: image.diffIds },
      references: [
        { repository: 'charon', tag: 'local' },
        { repository: 'ghcr.io/org/charon', tag: '1' },
      ],
    });
    expect(found?.layers.map((layer) => layer.digest)).toEqual(image.layerDigests);
  });

  test('the same image always gives the same bytes', async () => {
    const image = makeImage();
    const twice = [join(directory, 'one'), join(directory, 'two')].map(async (layout) => {
      await writeLayout(image, layout);
      return (await writeTarball(layout)).bytes;
    });
    const [one, two] = await Promise.all(twice);
    expect(one?.equals(two ?? Buffer.alloc(0))).toBe(true);
  });

  test('property: a header is read back by another tar reader, up to sizes above 8 GiB', async () => {
    await fc.assert(
      fc.asyncProperty(fc.stringMatching(/^[a-z0-9/._-]{1,99}[a-z]$/), fc.nat({ max: 2 ** 40 }), async (name, size) => {
        const parser = extract();
        const header = new Promise<{ name: string; size: number }>((resolve) => {
          parser.once('entry', (found: { name: string; size: number }) => {
            resolve(found);
          });
        });
        parser.on('error', () => undefined);
        parser.write(tarHeader(name, size));
        const found = await header;
        expect({ name: found.name, size: found.size }).toEqual({ name, size });
        parser.destroy();
      }),
    );
  });

  test('a blob that is missing or too short is detected before anything is written', async () => {
    const image = makeImage();
    const layout = join(directory, 'broken');
    await writeLayout(image, layout);
    const [layer = ''] = image.layerDigests;
    await writeFile(join(layout, 'blobs', 'sha256', layer.slice(7)), 'short');
    await expect(readOciLayout(layout, platform)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('has 5 bytes'),
    });
    await expect(readOciLayout(layout, parsePlatform('linux/arm64'))).rejects.toMatchObject({
      code: 'platform-mismatch',
    });
  });

  test.each<[string, Rewriting]>([
    ['two configs', { manifest: (text) => text.replace('"layers":', '"Config":{},"layers":') }],
    ['two sets of labels', { config: (text) => text.replace('"Labels":', '"labels":{},"Labels":') }],
    [
      'a layer that is stored elsewhere',
      { manifest: (text) => text.replace('"digest"', '"urls":["http://x"],"digest"') },
    ],
    ['a layer of an unknown type', { manifest: (text) => text.replace('tar+gzip', 'tar+zstd') }],
  ])('an image with %s isn’t handed over, from a build or from docker save (B.11)', async (what, change) => {
    const image = rewritten(makeImage({ labels: { a: 'b' } }), change);
    const layout = join(directory, `built with ${what}`);
    await writeLayout(image, layout);
    await expect(readOciLayout(layout, platform)).rejects.toMatchObject({ code: 'tarball-invalid' });
    const saved = join(directory, `saved with ${what}`);
    await writeOciLayout(Readable.from([savedTarball(image, ['a:1'])]), saved, { format: 'gzip', level: undefined });
    await expect(readOciLayout(saved, platform)).rejects.toMatchObject({ code: 'tarball-invalid' });
    await expect(inspect(savedTarball(image, ['a:1']))).rejects.toMatchObject({ code: 'tarball-invalid' });
  });

  test('no tarball is created from an incomplete list of the image’s layers', async () => {
    const layout = join(directory, 'lacking');
    await writeLayout(makeImage(), layout);
    const image = await readOciLayout(layout, platform);
    const chunks = tarballChunks(
      arrivingLayers(join(directory, 'nowhere'), Promise.resolve()),
      () => Promise.resolve([{ image, references }]),
      () => 0,
    );
    await expect(copiedBytes(chunks)).rejects.toMatchObject({ code: 'tarball-invalid' });
  });
});

describe('reading', () => {
  test('docker save’s tar is converted to an OCI layout, and other paths in it are ignored', async () => {
    const image = makeImage();
    const layout = join(directory, 'unpacked');
    const evil = tar([['../../escaped', Buffer.from('x')]]).subarray(0, 1024);
    const saved = Readable.from([Buffer.concat([evil, savedTarball(image, ['a:1'])])]);
    await writeOciLayout(saved, layout, { format: 'uncompressed', level: undefined });
    expect((await readOciLayout(layout, platform)).configDigest).toBe(image.configDigest);
    expect(execFileSync('find', [directory, '-name', 'escaped']).toString()).toBe('');
  });

  test.each([
    ['gzip', 65_000],
    ['zstd', 65_000],
    ['zstd', 333],
  ] as const)(
    'uncompressed layers from docker save are stored as %s with the same content (pieces of %d bytes)',
    async (format, pieceBytes) => {
      const image = makeImage({ gzip: false, layerBytes: 9_000_000 });
      const layout = join(directory, `recompressed-${format}-${String(pieceBytes)}`);
      const saved = inReusedMemory(savedTarball(image, ['a:1']), pieceBytes);
      const replaced = await writeOciLayout(saved, layout, { format, level: 1 });
      const contents = await readOciLayout(layout, platform, replaced);
      expect(contents.configDigest).toBe(image.configDigest);
      expect(contents.manifestDigest).toBe(digestOf(contents.manifestBytes));
      const manifest = parseManifest(contents.manifestBytes, 'the manifest');
      expect(manifest.layers.map(({ mediaType }) => mediaType)).toEqual(
        image.diffIds.map(() => `application/vnd.oci.image.layer.v1.tar+${format}`),
      );
      const plain = manifest.layers.map(({ digest }) => decompress(createReadStream(blobPath(layout, digest)), format));
      const digests = await Promise.all(plain.map(async (chunks) => digestOf(await buffer(chunks))));
      expect(digests).toEqual(image.diffIds);
    },
  );

  test.each([
    ['docker', 'zstd', savedTarball],
    ['docker', 'uncompressed', savedTarball],
    ['podman', 'zstd', podmanTarball],
    ['podman', 'uncompressed', podmanTarball],
  ] as const)(
    'an incomplete blob is never visible, because each one is renamed when it is complete (%s save, %s)',
    async (by, format, archive) => {
      const layout = join(directory, `renamed-${by}-${format}`);
      const blobs = join(layout, 'blobs', 'sha256');
      mkdirSync(blobs, { recursive: true });
      const events: string[] = [];
      const watcher = watch(blobs, (event) => void events.push(event));
      const image = makeImage({ gzip: false });
      await writeOciLayout(Readable.from([archive(image, ['a:1'])]), layout, { format, level: 1 });
      // inotify reports events in order, so all earlier ones have been reported.
      writeFileSync(join(blobs, 'last'), 'x');
      while (!events.includes('change')) await sleep(5);
      watcher.close();
      // One for each blob, and one for the file at the end.
      expect(events.slice(0, events.indexOf('change'))).toEqual(Array(readdirSync(blobs).length).fill('rename'));
    },
  );

  test('layers that are already compressed are reused unchanged', async () => {
    const image = makeImage({ gzip: true });
    const layout = join(directory, 'reused');
    const saved = Readable.from([savedTarball(image, ['a:1'])]);
    expect((await writeOciLayout(saved, layout, { format: 'zstd', level: 1 })).size).toBe(0);
    expect((await readOciLayout(layout, platform)).manifestDigest).toBe(image.manifestDigest);
  });

  test('the format of Docker 24 and older is recognised, without manifest digests', async () => {
    const config = json({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(Buffer.alloc(600))] } });
    const name = `${digestOf(config).slice(7)}.json`;
    const bytes = tar([
      ['abc/layer.tar', Buffer.alloc(600)],
      [name, config],
      ['manifest.json', json([{ Config: name, RepoTags: ['old:1'], Layers: ['abc/layer.tar'] }])],
    ]);
    const [image] = await inspect(bytes);
    expect(image).toMatchObject({
      configDigest: digestOf(config),
      manifests: [],
      references: [{ repository: 'old', tag: '1' }],
    });
  });

  test.each([
    ['no image', tar([['index.json', json({ manifests: [] })]]), 'index.json names no image'],
    ['no index', tar([['etc/passwd', Buffer.from('root')]]), 'it holds: etc/passwd'],
    [
      'a missing layer',
      tar([
        ['manifest.json', json([{ Config: 'c', RepoTags: [], Layers: ['l'] }])],
        ['c', json({ rootfs: {} })],
      ]),
      'names l, which is not in the tarball',
    ],
    ['a manifest that isn’t a list', tar([['manifest.json', json({})]]), 'not a list of images'],
    ['a tar that is cut at the end', savedTarball(makeImage(), ['a:1']).subarray(0, 30_000), 'not a whole tar archive'],
    ['a file that isn’t a tar', Buffer.from('hello '.repeat(500)), 'not a whole tar archive'],
  ])('%s is tarball-invalid', async (_, bytes, message) => {
    await expect(inspect(bytes)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining(message),
    });
  });

  test('the requested image is chosen from several; without a name the error lists them', async () => {
    const config = json({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } });
    const images = ['a:1', 'b:2'].map((name) => ({ Config: 'config.json', RepoTags: [name], Layers: [] }));
    const found = await inspect(
      tar([
        ['config.json', config],
        ['manifest.json', json(images)],
      ]),
    );
    expect(chooseImage(found, parseTaggedReference('b:2'), platform).references[0]?.repository).toBe('b');
    expect(() => chooseImage(found, undefined, platform)).toThrow('a:1; b:2');
  });

  test('compression is recognised by the first bytes, and undone', async () => {
    const plain = savedTarball(makeImage(), ['a:1']);
    expect(compressionOf(plain)).toBe('none');
    expect(compressionOf(gzipSync(plain))).toBe('gzip');
    expect(await buffer(decompress(Readable.from([gzipSync(plain)]), 'gzip'))).toEqual(plain);
  });
});
