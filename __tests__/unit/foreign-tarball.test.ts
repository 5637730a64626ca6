import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { constants, createZstdCompress, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { afterAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  type FixtureImage,
  json,
  makeImage,
  ociArchive,
  podmanTarball,
  savedTarball,
  savedTogether,
  tar,
  writeLayout,
} from '../fixtures/image.ts';
import {
  contradictingTarballs,
  tarballWithOneManifest,
  misleadingTarballs,
  tarballWithoutManifest,
} from '../fixtures/misleading-tarball.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { type PassingTarball, type TarballRequest, wholeTarball } from '../../load-image/into/whole-tarball.ts';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { objectsOf, stringsOf } from '../../shared/base/json.ts';
import { viewOf, copiedBytes } from '../../shared/bytes/chunks.ts';
import type { FoundArtifact } from '../../shared/handed-over/find.ts';
import type { IdentifiedImage } from '../../shared/handed-over/identity.ts';
import { resolveArtifact } from '../../shared/handed-over/opened-artifact.ts';
import { type Digest, digestOf, hexOf } from '../../shared/image/digest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatRecord, parseRecord } from '../../shared/image/record.ts';
import { parseTaggedReference, type Reference } from '../../shared/image/reference.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';
import { compressionOf, decompress } from '../../shared/tar/compression.ts';
import { chooseImage, imagesIn, type TarballImages } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';

const directory = mkdtempSync(join(tmpdir(), 'foreign-'));
afterAll(() => rmSync(directory, { recursive: true }));

const platform = parsePlatform('linux/amd64');

/** Returns the tarball of an artifact without a record, as the engine receives it. */
function passing(
  chunks: AsyncIterable<Buffer>,
  reference?: Reference,
  { record, identified, ...given }: Partial<TarballRequest & FoundArtifact> = {},
): PassingTarball {
  const content: ArtifactContent = {
    artifact: { id: 1, name: 'image', size: 1, digest: digestOf('zip') },
    downloaded: () => undefined,
    files: [{ name: 'image.tar', size: 1 }],
    text: () => Promise.resolve(undefined),
    read: () => chunks,
    ranges: () => Promise.resolve(undefined),
  };
  const wish = { reference, expectedConfigDigest: undefined, expectedRevision: undefined, host: undefined };
  const opened = resolveArtifact({ origin: 'artifact', content, record, identified }, wish);
  return wholeTarball({ opened, platform, repository: 'ours.invalid/x', ...given }, () => undefined);
}

async function see(bytes: Buffer, pieceBytes = 10_000): Promise<TarballImages> {
  return imagesIn(await seeTarball(inReusedMemory(bytes, pieceBytes)));
}

/** Returns a tarball in the format of Docker 24 and older, with a folder for each layer and links for repeated layers. */
function oldDockerTarball(image: FixtureImage, packing: (layer: Buffer) => Buffer = (layer) => layer): Buffer {
  const folder = mkdtempSync(join(directory, 'old-'));
  const config = `${hexOf(image.configDigest)}.json`;
  const layers = image.layerDigests.map((digest, position) => {
    mkdirSync(join(folder, `layer-${String(position)}`));
    const name = `layer-${String(position)}/layer.tar`;
    const first = image.layerDigests.indexOf(digest);
    if (first < position) symlinkSync(`../layer-${String(first)}/layer.tar`, join(folder, name));
    else writeFileSync(join(folder, name), packing(image.blobs.get(digest) ?? Buffer.alloc(0)));
    return name;
  });
  writeFileSync(join(folder, config), image.blobs.get(image.configDigest) ?? '');
  writeFileSync(join(folder, 'manifest.json'), json([{ Config: config, RepoTags: ['old:1'], Layers: layers }]));
  return execFileSync('tar', ['-C', folder, '-cf', '-', '.'], { maxBuffer: 1 << 28 });
}

const plain = makeImage({ gzip: false, layerBytes: 3000 });
const packed = makeImage({ gzip: true, layerBytes: 3000 });
const archives: readonly (readonly [string, FixtureImage, Buffer])[] = [
  ['docker save', packed, savedTarball(packed, ['a:1'])],
  ['podman save', plain, podmanTarball(plain, ['a:1'])],
  ['an OCI archive', packed, ociArchive([packed])],
  ['Docker 24', plain, oldDockerTarball(plain)],
  ['Docker 24 with gzip layers', plain, oldDockerTarball(plain, gzipSync)],
  ['Docker 24 with zstd layers', plain, oldDockerTarball(plain, zstdCompressSync)],
];

describe('reading a tarball', () => {
  test.each(archives)(
    'a tarball of %s contains the same image for any chunk sizes, in reused memory',
    async (_, image, bytes) => {
      const pieces = fc.integer({ min: 1, max: 3000 });
      await fc.assert(
        fc.asyncProperty(pieces, async (pieceBytes) => {
          const [found] = (await see(bytes, pieceBytes)).images;
          expect(found?.configDigest).toBe(image.configDigest);
          expect(found?.config.diffIds).toEqual(image.diffIds);
        }),
        { numRuns: 20, examples: [[1], [511], [512], [513]] },
      );
    },
  );

  test('a repeated layer can be a link', async () => {
    const twice = { ...plain, layerDigests: plain.layerDigests.flatMap((digest) => [digest, digest]) };
    const config = json({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: twice.layerDigests } });
    const image = {
      ...twice,
      blobs: new Map([...plain.blobs, [digestOf(config), config]]),
      configDigest: digestOf(config),
    };
    const [found] = (await see(oldDockerTarball(image))).images;
    expect(found?.layers.map(({ digest }) => digest)).toEqual(image.layerDigests);
  });

  test('a tarball can have the names of crane, which uses the config digest and the digests of gzip layers', async () => {
    const layers = packed.layerDigests.map((digest) => `${hexOf(digest)}.tar.gz`);
    const bytes = tar([
      [packed.configDigest, packed.blobs.get(packed.configDigest) ?? Buffer.alloc(0)],
      ...packed.layerDigests.map((digest): [string, Buffer] => [
        `${hexOf(digest)}.tar.gz`,
        packed.blobs.get(digest) ?? Buffer.alloc(0),
      ]),
      ['manifest.json', json([{ Config: packed.configDigest, RepoTags: ['a:1'], Layers: layers }])],
    ]);
    expect((await see(bytes)).images[0]?.configDigest).toBe(packed.configDigest);
  });

  test('names can have ./ in front, JSON can have white space in front, and a config can have no architecture', async () => {
    const image = makeImage({ leading: ' \t\r\n', architecture: 'none' });
    const dotted = tar(
      [...image.blobs]
        .map(([digest, bytes]): [string, Buffer] => [`./blobs/sha256/${hexOf(digest)}`, bytes])
        .concat([['./manifest.json', Buffer.concat([Buffer.from('\n '), archiveManifest(image)])]]),
    );
    const [found] = (await see(dotted)).images;
    expect(found?.configDigest).toBe(image.configDigest);
    expect(chooseImage(found === undefined ? [] : [found], undefined, platform)).toBe(found);
  });

  test.each(archives)(
    'a tarball of %s is rejected after a flipped bit in any layer or config',
    async (_, image, bytes) => {
      const blobs = [...image.layerDigests, image.configDigest].map(
        (digest) => image.blobs.get(digest) ?? Buffer.alloc(0),
      );
      for (const content of [
        ...blobs,
        ...blobs.map((blob) => gzipSync(blob)),
        ...blobs.map((blob) => zstdCompressSync(blob)),
      ]) {
        const at = bytes.indexOf(content);
        if (at < 0) continue;
        const damaged = withFlippedBit(bytes, at + Math.floor(content.length * 0.7));
        await expect(see(damaged)).rejects.toMatchObject({ code: 'tarball-invalid' });
      }
    },
  );

  test('a config of more than 4 MiB is rejected, and the error shows its size', async () => {
    const large = makeImage({ labels: { long: 'x'.repeat(5_000_000) } });
    await expect(see(savedTarball(large, ['a:1']))).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringMatching(/config has 5\d{6} bytes; 4194304/),
    });
    const layout = join(directory, 'large');
    await writeLayout(large, layout);
    await expect(readOciLayout(layout, platform)).rejects.toThrow('4 MiB');
  });

  test('an accepted config fits into a record, and creating a record that is too large to be read fails', async () => {
    const image = makeImage({ labels: { long: '\u2028"'.repeat(700_000) } });
    const [found] = (await see(savedTarball(image, ['a:1']))).images;
    const config = found?.config ?? { platform, diffIds: [], labels: {}, config: {} };
    const record = {
      ...config,
      references: [parseTaggedReference('a:1')],
      configDigest: image.configDigest,
      manifestDigests: [],
      layers: [],
      tarballName: 'a.tar',
      tarballSize: 1,
      tarballDigest: image.configDigest,
      tarballCompression: 'none' as const,
      producer: { repository: '', runId: '', runAttempt: 1, commit: '', jobKey: '' },
    };
    expect(parseRecord(formatRecord(record)).labels).toEqual(config.labels);
    expect(() => formatRecord({ ...record, further: [record, record] })).toThrow('more than 8 MiB');
  });
});

describe('an index of a tarball', () => {
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const manifestType = 'application/vnd.oci.image.manifest.v1+json';
  const blob = (bytes: Buffer): [string, Buffer] => [`blobs/sha256/${hexOf(digestOf(bytes))}`, bytes];
  const all = [...packed.blobs.values()].map(blob);
  const own = { mediaType: manifestType, digest: packed.manifestDigest, size: 1 };

  test('an index that contains another index many times over, on several levels, is refused without a deep search', async () => {
    const named = (bytes: Buffer): Buffer =>
      json({
        schemaVersion: 2,
        manifests: Array.from({ length: 400 }, () => ({ mediaType, digest: digestOf(bytes), size: bytes.length })),
      });
    const inner = json({ schemaVersion: 2, manifests: [own] });
    const [one, two] = [named(inner), named(named(inner))];
    const bytes = tar([...all, blob(inner), blob(one), blob(two), ['index.json', named(two)]]);
    await expect(see(bytes)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('too many'),
    });
  });

  test('an index can contain an artifact of another kind next to the image, which is ignored', async () => {
    const other = json({ mediaType: 'application/vnd.oci.artifact.manifest.v1+json', blobs: [] });
    const beside = {
      mediaType: 'application/vnd.oci.artifact.manifest.v1+json',
      digest: digestOf(other),
      size: other.length,
    };
    const index = json({ schemaVersion: 2, manifests: [own, beside] });
    const found = await see(tar([...all, blob(other), ['index.json', index]]));
    expect(found.images.map(({ configDigest }) => configDigest)).toEqual([packed.configDigest]);
  });

  test('a tarball is refused when its manifest.json contains more images than an artifact can have', async () => {
    const archive = objectsOf(JSON.parse(archiveManifest(packed).toString()));
    const many = json(Array.from({ length: 200 }, () => archive[0]));
    await expect(see(tar([...all, ['manifest.json', many]]))).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('200 images'),
    });
  });

  test.each([
    ['an OCI archive', true],
    ['docker save', false],
  ])('a tarball of %s is refused when its manifest has a wrong length for its config', async (_, isOci) => {
    const manifest = JSON.parse(String(packed.blobs.get(packed.manifestDigest)));
    const lying = json({ ...manifest, config: { ...manifest.config, size: 7 } });
    const index = json({ schemaVersion: 2, manifests: [{ ...own, digest: digestOf(lying) }] });
    const layers = all.filter(([name]) => !name.endsWith(hexOf(packed.manifestDigest)));
    const archive: [string, Buffer][] = isOci ? [] : [['manifest.json', archiveManifest(packed)]];
    await expect(see(tar([...layers, blob(lying), ['index.json', index], ...archive]))).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('config of 7 bytes'),
    });
  });
});

test('an OCI archive with sha512 digests is refused with an error that names sha512, in an export and in a load', async () => {
  const image = makeImage();
  const digests = new Map<string, string>([...image.blobs].map(([digest, bytes]) => [digest, sha512Of(bytes)]));
  const renamed = (text: string): string => text.replace(/sha256:[0-9a-f]{64}/g, (one) => digests.get(one) ?? one);
  const manifest = Buffer.from(renamed(String(image.blobs.get(image.manifestDigest))));
  const descriptor = { mediaType: 'application/vnd.oci.image.manifest.v1+json', size: manifest.length };
  // These names are too long for the tar of the other tests.
  const archive = (index: unknown, digest: string): Buffer => {
    const folder = mkdtempSync(join(directory, 'sha512-'));
    const [algorithm = '', hex = ''] = digest.split(':');
    mkdirSync(join(folder, 'blobs', algorithm), { recursive: true });
    writeFileSync(join(folder, 'blobs', algorithm, hex), manifest);
    writeFileSync(join(folder, 'index.json'), json({ schemaVersion: 2, manifests: [index] }));
    return execFileSync('tar', ['-C', folder, '-c', '.']);
  };
  const inIndex = archive({ ...descriptor, digest: sha512Of(manifest) }, sha512Of(manifest));
  const inManifest = archive({ ...descriptor, digest: digestOf(manifest) }, digestOf(manifest));
  for (const bytes of [inIndex, inManifest]) {
    const refused = /has the digest sha512:[0-9a-f]+….*only sha256 digests are supported/;
    await expect(see(bytes)).rejects.toThrow(refused);
    await expect(copiedBytes(passing(Readable.from([bytes])).chunks)).rejects.toThrow(refused);
  }
});

function sha512Of(bytes: Buffer): string {
  return `sha512:${createHash('sha512').update(bytes).digest('hex')}`;
}

describe('a tarball of several platforms', () => {
  const amd64 = makeImage();
  const arm64 = makeImage({ architecture: 'arm64' });

  test('the image for the requested platform is selected', async () => {
    const { kind, images } = await see(ociArchive([arm64, amd64]));
    expect(kind).toBe('oci');
    expect(chooseImage(images, undefined, platform).configDigest).toBe(amd64.configDigest);
    expect(chooseImage(images, undefined, parsePlatform('linux/arm64')).configDigest).toBe(arm64.configDigest);
  });

  test('the error lists the platforms of the tarball when none is the requested one', async () => {
    const { images } = await see(ociArchive([arm64, makeImage({ architecture: 's390x' })]));
    expect(() => chooseImage(images, undefined, platform)).toThrow(
      'linux/arm64, linux/s390x; linux/amd64 was requested',
    );
  });

  test('an image whose layers are not in the tarball is ignored', async () => {
    const bare = {
      ...arm64,
      blobs: new Map([...arm64.blobs].filter(([digest]) => !arm64.layerDigests.includes(digest))),
    };
    const { images } = await see(ociArchive([bare, amd64]));
    expect(images.map(({ configDigest }) => configDigest)).toEqual([amd64.configDigest]);
    await expect(see(ociArchive([bare]))).rejects.toThrow('which is not in the tarball');
  });
});

describe('compression', () => {
  const bytes = savedTarball(packed, ['a:1']);
  const skippable = Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('size')]);
  // A stream that is written in parts contains no size, so it uses the whole window.
  const compressor = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: 28 } });
  const longWindow = buffer(Readable.from([bytes.subarray(0, 9), bytes.subarray(9)]).pipe(compressor));

  test.each([
    ['a skippable frame in front', Buffer.concat([skippable, zstdCompressSync(bytes)])],
    ['skippable frames in the middle and at the end', Buffer.concat([zstdCompressSync(bytes), skippable, skippable])],
    ['a window of 256 MiB', longWindow],
  ])('a zstd tarball is read with %s', async (_, made) => {
    const compressed = await made;
    expect(compressionOf(compressed)).toBe('zstd');
    for (const pieceBytes of [7, compressed.length]) {
      const pieces = Array.from({ length: Math.ceil(compressed.length / pieceBytes) }, (_none, at) =>
        compressed.subarray(at * pieceBytes, (at + 1) * pieceBytes),
      );
      expect((await buffer(decompress(Readable.from(pieces), 'zstd'))).equals(bytes)).toBe(true);
    }
  });

  test('a zstd tarball with that window is too large for the default of Node', async () => {
    const compressed = await longWindow;
    expect(() => zstdDecompressSync(compressed)).toThrow();
  });

  test.each([
    ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]), 'unxz'],
    ['bzip2', Buffer.from('BZh91AY'), 'bunzip2'],
  ])(
    'a tarball with %s compression causes an error that names the format and the command to unpack it',
    (format, head, command) => {
      expect(() => compressionOf(head)).toThrow(expect.objectContaining({ hint: expect.stringContaining(command) }));
      expect(() => compressionOf(head)).toThrow(`compressed with ${format}`);
    },
  );
});

describe('a tarball that is sent to the engine', () => {
  test.each(archives)(
    'a tarball from %s is sent to the engine with unchanged layers and one temporary name',
    async (_, image, bytes) => {
      const reference = parseTaggedReference('charon:local');
      const tarball = passing(inReusedMemory(bytes, 997), reference);
      const path = join(directory, 'passed.tar');
      writeFileSync(path, await copiedBytes(tarball.chunks));
      const file = (name: string): Buffer => execFileSync('tar', ['-xOf', path, name], { maxBuffer: 1 << 28 });
      const [found, ...others] = JSON.parse(file('manifest.json').toString());
      expect(others).toEqual([]);
      expect(found.RepoTags).toEqual(['ours.invalid/x:1']);
      expect(digestOf(file(found.Config))).toBe(image.configDigest);
      const [again] = (await see(readFileSync(path))).images;
      expect(again?.config.diffIds).toEqual(image.diffIds);
      const [passed, ...more] = tarball.images();
      expect(more).toEqual([]);
      expect(passed).toMatchObject({ name: 'ours.invalid/x:1', references: [reference] });
      expect(passed?.identity.configDigest).toBe(image.configDigest);
      expect(passed?.identity.manifestDigest).toEqual(again?.manifests[0]?.digest);
    },
  );

  test('a damaged tarball is cut off before its end', async () => {
    const [, layer = packed.configDigest] = packed.layerDigests;
    const whole = ociArchive([packed]);
    const bytes = withFlippedBit(whole, whole.indexOf(packed.blobs.get(layer) ?? '') + 100);
    const given: Buffer[] = [];
    const { chunks } = passing(inReusedMemory(bytes, 997));
    const taken = (async () => {
      for await (const chunk of chunks) given.push(Buffer.from(viewOf(chunk)));
    })();
    await expect(taken).rejects.toThrow('is damaged');
    expect(Buffer.concat(given).includes('manifest.json')).toBe(false);
  });

  test('an image has its name from containerd or a complete reference by default, and charon:local without such a name', async () => {
    const namesOf = async (annotations: Readonly<Record<string, string>>): Promise<unknown> => {
      const tarball = passing(Readable.from([ociArchive([packed], annotations)]));
      await buffer(tarball.chunks);
      const [image] = tarball.images();
      return image?.references.map(({ repository, tag }) => `${repository}:${tag ?? ''}`);
    };
    expect(await namesOf({ 'io.containerd.image.name': 'docker.io/library/app:1' })).toEqual(['app:1']);
    expect(await namesOf({ 'org.opencontainers.image.ref.name': 'ghcr.io/org/app:2' })).toEqual(['ghcr.io/org/app:2']);
    // skopeo copy … oci-archive:FILE:app:v1
    expect(await namesOf({ 'org.opencontainers.image.ref.name': 'app:v1' })).toEqual(['app:v1']);
    for (const tag of ['2.0', 'latest', 'v1', ':v1'])
      expect(await namesOf({ 'org.opencontainers.image.ref.name': tag })).toEqual(['charon:local']);
    expect(await namesOf({ 'io.containerd.image.name': 'not a name' })).toEqual(['charon:local']);
  });
});

describe('the manifest that identifies the image', () => {
  const names = ['a:1'];
  const [misleading, contradicting] = [misleadingTarballs(packed, names), contradictingTarballs(packed, names)];

  test.each(misleading)('the manifest is found and sent to the engine although %s (B.8)', async (_, bytes) => {
    const tarball = passing(inReusedMemory(bytes, 997));
    const made = await copiedBytes(tarball.chunks);
    expect(tarball.images()[0]?.identity).toMatchObject({
      configDigest: packed.configDigest,
      manifestDigest: packed.manifestDigest,
    });
    const [loaded] = (await see(made)).images;
    expect(loaded?.manifests.map(({ digest }) => digest)).toEqual([packed.manifestDigest]);
    expect(indexed(made)).toEqual([packed.manifestDigest]);
  });

  test.each(contradicting)('the tarball is invalid when %s (B.8)', async (_, bytes) => {
    const { chunks } = passing(inReusedMemory(bytes, 997));
    await expect(copiedBytes(chunks)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining('manifest sha256:'),
    });
  });

  test('a manifest is generated for the one image that has none, and the other images keep their manifests (B.8)', async () => {
    const tarball = passing(inReusedMemory(tarballWithOneManifest([packed, ['a:1']], [plain, ['b:1']]), 997));
    const made = await copiedBytes(tarball.chunks);
    const digests = tarball.images().map(({ identity }) => identity.manifestDigest);
    expect(digests).toEqual([packed.manifestDigest, expect.stringMatching(/^sha256:/)]);
    expect(indexed(made)).toEqual(digests);
  });

  test('a layer that is in the tarball twice is used only once, under its name in manifest.json (B.8)', async () => {
    const [layer = packed.configDigest] = packed.layerDigests;
    const twice = tar([['elsewhere/layer', packed.blobs.get(layer) ?? Buffer.alloc(0)]]);
    const bytes = Buffer.concat([twice.subarray(0, -1024), savedTarball(packed, names)]);
    const made = await copiedBytes(passing(inReusedMemory(bytes, 997)).chunks);
    const [{ Layers: layers }] = JSON.parse(fileIn(made, 'manifest.json'));
    expect(stringsOf(layers).map((name) => made.includes(`${name}\0`))).toEqual([true, true]);
  });
});

test.each([
  ['no reference', ['a:1', '<none>:<none>'], '<none>:<none>'],
  ['hundreds of references', Array.from({ length: 300 }, (_, at) => `a:${String(at)}`), '300 references'],
])('%s in manifest.json causes the error tarball-invalid, not invalid-input', async (_, tags, words) => {
  await expect(see(savedTarball(packed, tags))).rejects.toMatchObject({
    code: 'tarball-invalid',
    message: expect.stringContaining(words),
    hint: expect.stringContaining('docker save'),
  });
});

test('two images with the same reference are refused, because the second would replace the first', async () => {
  const two = savedTogether([
    [packed, ['a:1', 'x:1']],
    [plain, ['b:1', 'x:1']],
  ]);
  await expect(copiedBytes(passing(inReusedMemory(two, 997)).chunks)).rejects.toMatchObject({
    code: 'tarball-invalid',
    message: expect.stringContaining('x:1'),
  });
  // If only one of them is requested, the names of the other don't matter.
  await copiedBytes(passing(inReusedMemory(two, 997), parseTaggedReference('a:1')).chunks);
});

describe('an artifact with a record', () => {
  const names = ['a:1'];
  const bytes = savedTarball(packed, names);
  const bare = tarballWithoutManifest(packed, names);
  const place = (digest: Digest): { offset: number; size: number } => {
    const content = packed.blobs.get(digest) ?? Buffer.alloc(0);
    return { offset: bytes.indexOf(content), size: content.length };
  };

  /** Passes a tarball with a record that describes another one. */
  async function passed(
    tarball: Buffer,
    manifestDigests: readonly Digest[],
    known?: readonly IdentifiedImage[],
  ): Promise<string | undefined> {
    const [image] = (await see(bytes)).images;
    const record = {
      ...{ references: [parseTaggedReference('a:1')], platform, configDigest: packed.configDigest, manifestDigests },
      ...{ diffIds: packed.diffIds, labels: image?.config.labels ?? {} },
      layers: packed.layerDigests.map((digest) => ({ digest, mediaType: '', ...place(digest) })),
      ...{ tarballName: 'a.tar', tarballSize: tarball.length, tarballDigest: digestOf(tarball) },
      tarballCompression: 'none' as const,
      producer: { repository: '', runId: '', runAttempt: 1, commit: '', jobKey: '' },
    };
    const on = passing(Readable.from([tarball]), undefined, { record, identified: known });
    await copiedBytes(on.chunks);
    return on.images()[0]?.identity.manifestDigest;
  }

  test('an image with a recorded manifest digest has that manifest, or throws artifact-corrupt (B.8)', async () => {
    const index = digestOf('an index around it');
    expect(await passed(bytes, [packed.manifestDigest])).toBe(packed.manifestDigest);
    expect(await passed(bytes, [index, packed.manifestDigest])).toBe(packed.manifestDigest);
    expect(await passed(bytes, [])).toBe(packed.manifestDigest);
    const corrupt = { code: 'artifact-corrupt', message: expect.stringContaining('its manifest digest') };
    await expect(passed(bytes, [index])).rejects.toMatchObject(corrupt);
    await expect(passed(bare, [packed.manifestDigest])).rejects.toMatchObject(corrupt);
    for (const [, misleading] of misleadingTarballs(packed, names))
      expect(await passed(misleading, [packed.manifestDigest])).toBe(packed.manifestDigest);
  });

  test('an image whose manifest was read from its recorded place has that manifest, independent of other contents of the tarball (B.8)', async () => {
    const [image] = (await see(bytes)).images;
    const identity = {
      ...(image?.config ?? { platform, diffIds: [], labels: {}, config: {} }),
      configDigest: packed.configDigest,
    };
    const known = (manifestDigest: Digest): readonly IdentifiedImage[] => [
      {
        identity: { ...identity, manifestDigest },
        references: [parseTaggedReference('a:1')],
        ranged: undefined,
      },
    ];
    expect(await passed(bytes, [], known(packed.manifestDigest))).toBe(packed.manifestDigest);
    for (const tarball of [bytes, bare])
      await expect(passed(tarball, [], known(digestOf('inside a layer')))).rejects.toMatchObject({
        code: 'artifact-corrupt',
        message: expect.stringContaining('its manifest digest'),
      });
  });
});

function fileIn(made: Buffer, name: string): string {
  const path = join(directory, 'made.tar');
  writeFileSync(path, made);
  return execFileSync('tar', ['-xOf', path, name], { encoding: 'utf8' });
}

/** Returns the manifests in a tarball's index.json. */
function indexed(made: Buffer): readonly unknown[] {
  return objectsOf(JSON.parse(fileIn(made, 'index.json')).manifests).map(({ digest }) => digest);
}

function withFlippedBit(bytes: Buffer, at: number): Buffer {
  const flipped = Buffer.from(bytes);
  flipped.writeUInt8(flipped.readUInt8(at) ^ 4, at);
  return flipped;
}

function archiveManifest(image: FixtureImage): Buffer {
  const blob = (digest: Digest): string => `blobs/sha256/${hexOf(digest)}`;
  return json([{ Config: blob(image.configDigest), RepoTags: ['a:1'], Layers: image.layerDigests.map(blob) }]);
}
