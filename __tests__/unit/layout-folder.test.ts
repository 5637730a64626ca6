import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { digestOf, hexOf } from '../../shared/image/digest.ts';
import { type ImageContents, mediaTypes, parseConfig, parseManifest } from '../../shared/image/manifest.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { layoutFolder } from '../../shared/layout/layout-folder.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';
import { type FixtureImage, makeImage } from '../fixtures/image.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'layout-folder-'));
  path = join(folder, 'base');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const image = makeImage();
const warnings: string[] = [];
const log = { warning: (line: string) => void warnings.push(line) };

function contentsOf({ blobs, configDigest, manifestDigest }: FixtureImage): ImageContents {
  const [configBytes = Buffer.alloc(0), manifestBytes = Buffer.alloc(0)] = [
    blobs.get(configDigest),
    blobs.get(manifestDigest),
  ];
  const { layers } = parseManifest(manifestBytes, 'manifest');
  const config = parseConfig(configBytes, 'config');
  return {
    configDigest,
    configBytes,
    config,
    manifestDigest,
    manifestBytes,
    manifestMediaType: mediaTypes.manifest,
    layers,
  };
}

const named = (of: FixtureImage) => [{ image: contentsOf(of), references: [parseTaggedReference('charon:local')] }];

async function write(of: FixtureImage, layers = of.layerDigests): Promise<void> {
  await using layout = await layoutFolder(path, log);
  for (const digest of layers) {
    const passed: Buffer[] = [];
    for await (const chunk of layout.tee(Readable.from([of.blobs.get(digest)]))) passed.push(chunk);
    expect(digestOf(Buffer.concat(passed))).toBe(digest);
  }
  expect(existsSync(path)).toBe(false);
  await layout.commit(named(of));
}

/** Reads all chunks and returns the number of bytes. */
async function drained(chunks: AsyncIterable<Buffer>): Promise<number> {
  let bytes = 0;
  for await (const chunk of chunks) bytes += chunk.length;
  return bytes;
}

const entries = (): readonly string[] => readdirSync(folder);

test('a written layout is complete, has its final name, and leaves nothing next to it', async () => {
  await write(image);
  expect(entries()).toEqual(['base']);
  expect(readdirSync(path).sort()).toEqual(['blobs', 'index.json', 'oci-layout']);
  expect(JSON.parse(readFileSync(join(path, 'oci-layout'), 'utf8'))).toEqual({ imageLayoutVersion: '1.0.0' });
  const { manifests } = JSON.parse(readFileSync(join(path, 'index.json'), 'utf8'));
  expect(manifests).toMatchObject([
    { digest: image.manifestDigest, annotations: { 'org.opencontainers.image.ref.name': 'local' } },
  ]);
  const blobs = readdirSync(join(path, 'blobs', 'sha256'));
  expect(blobs.sort()).toEqual([...image.blobs.keys()].map(hexOf).sort());
  for (const blob of blobs) expect(hexOf(digestOf(readFileSync(join(path, 'blobs', 'sha256', blob))))).toBe(blob);
  expect((await readOciLayout(path, { os: 'linux', architecture: 'amd64' })).manifestDigest).toBe(image.manifestDigest);
  expect(statSync(path).mode & 0o777).toBe(0o755);
});

test('an incomplete layout is removed', async () => {
  {
    await using layout = await layoutFolder(path, log);
    expect(await drained(layout.tee(Readable.from([Buffer.from('a layer')])))).toBe(7);
    expect(entries()).toHaveLength(1);
  }
  expect(entries()).toEqual([]);
});

test('a missing layer or a wrong layer causes an error, and nothing remains', async () => {
  await expect(write(image, image.layerDigests.slice(1))).rejects.toMatchObject({ code: 'tarball-invalid' });
  expect(entries()).toEqual([]);
});

test('an empty folder and a layout of an earlier step are replaced', async () => {
  mkdirSync(path);
  const fill = async (of: FixtureImage): Promise<void> => {
    await using layout = await layoutFolder(path, log);
    for (const digest of of.layerDigests) await drained(layout.tee(Readable.from([of.blobs.get(digest)])));
    await layout.commit(named(of));
  };
  await fill(makeImage());
  await fill(image);
  expect(readdirSync(join(path, 'blobs', 'sha256'))).toHaveLength(image.blobs.size);
  expect(entries()).toEqual(['base']);
});

test('the remains of a killed step next to the layout are removed', async () => {
  {
    await using layout = await layoutFolder(path, log);
    await drained(layout.tee(Readable.from([Buffer.from('a layer')])));
    const [partial = ''] = entries();
    mkdirSync(join(folder, partial.replace(/[0-9a-f]{16}$/, '0123456789abcdef'), 'blobs'), { recursive: true });
  }
  await write(image);
  expect(entries()).toEqual(['base']);
});

describe('refused paths', () => {
  test.each<[string, () => void, string]>([
    [
      'a folder with something else in it',
      () => {
        mkdirSync(path);
        writeFileSync(join(path, 'mine.txt'), '');
      },
      'the folder contains other files (mine.txt), which are kept',
    ],
    [
      'a layout of another tool',
      () => {
        mkdirSync(path);
        writeFileSync(join(path, 'index.json'), '{"manifests":[]}');
      },
      'the folder contains other files (index.json), which are kept',
    ],
    [
      'a file',
      () => {
        writeFileSync(path, '');
      },
      'it is not a folder',
    ],
    [
      'a path below a file',
      () => {
        writeFileSync(path, '');
        path = join(path, 'below');
      },
      'ENOTDIR',
    ],
  ])('a layout is refused when its path is %s', async (_, prepare, message) => {
    prepare();
    const before = entries();
    const work = layoutFolder(path, log);
    await expect(work).rejects.toMatchObject({ code: 'invalid-input' });
    await expect(work).rejects.toThrow(message);
    expect(entries()).toEqual(before);
  });
});
