import { mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { digestOf } from '../../shared/image/digest.ts';
import { parseIndex } from '../../shared/image/manifest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatReference, parseTaggedReference } from '../../shared/image/reference.ts';
import { blobPath, type NamedLayoutImage, readNamedImage } from '../../shared/layout/read-layout.ts';
import { attested, type FixtureImage, json, makeImage, writeAttestedLayout, writeLayout } from '../fixtures/image.ts';

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), 'layout-'))));
afterEach(() => rmSync(directory, { recursive: true }));

const read = (wanted?: string, platform = 'linux/amd64'): Promise<NamedLayoutImage> =>
  readNamedImage(directory, parsePlatform(platform), wanted === undefined ? undefined : parseTaggedReference(wanted));
const descriptorOf = ({ manifestDigest, blobs }: FixtureImage, more: object = {}): object => ({
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  digest: manifestDigest,
  size: blobs.get(manifestDigest)?.length,
  ...more,
});
const writeIndex = (...manifests: readonly object[]): void =>
  writeFileSync(join(directory, 'index.json'), json({ schemaVersion: 2, manifests }));
const named = (name: string): object => ({ annotations: { 'io.containerd.image.name': name } });

test('an image without a name is read, and has no attestations', async () => {
  const image = makeImage();
  await writeLayout(image, directory);
  const found = await read();
  expect(found).toMatchObject({ references: [], attestations: undefined });
  expect(found.image.configDigest).toBe(image.configDigest);
});

test('an image with attestations has the index of the build, all names, and the blobs of the attestations', async () => {
  const image = makeImage();
  const { index, blobs } = attested(image);
  await writeAttestedLayout(image, { index, blobs }, directory);
  const found = await read();
  expect(found.references.map(formatReference)).toEqual(['app:1']);
  expect(found.image.manifestDigest).toBe(image.manifestDigest);
  expect(found.attestations?.index).toEqual(index);
  expect(found.attestations?.blobs.map(({ digest }) => digest).sort()).toEqual([...blobs.keys()].sort());
});

test('one of several platforms has its own index, with its own attestations', async () => {
  const [image, arm] = [makeImage(), makeImage({ architecture: 'arm64' })];
  const ofArm = attested(arm, [], 'arm64');
  const { index, blobs } = attested(image, JSON.parse(ofArm.index.toString()).manifests);
  await writeLayout(arm, directory);
  await writeAttestedLayout(image, { index, blobs: new Map([...blobs, ...ofArm.blobs]) }, directory);
  const found = await read(undefined, 'linux/arm64');
  expect(found.image.configDigest).toBe(arm.configDigest);
  expect(found.attestations?.index).toEqual(ofArm.index);
});

test('an index that lists the image next to its attestations works as well', async () => {
  const image = makeImage();
  const { index, blobs } = attested(image);
  await writeAttestedLayout(image, { index, blobs }, directory);
  writeFileSync(join(directory, 'index.json'), index);
  expect((await read()).attestations?.index).toEqual(index);
});

describe('of several images', () => {
  const [one, other] = [makeImage(), makeImage()];
  beforeEach(async () => {
    await writeLayout(one, directory);
    await writeLayout(other, directory);
    writeIndex(
      descriptorOf(one, named('docker.io/library/app:1')),
      descriptorOf(other, named('docker.io/library/app:2')),
      descriptorOf(other, named('docker.io/library/app:latest')),
    );
  });

  test('the requested one is read', async () => {
    const found = await read('app:2');
    expect(found.image.configDigest).toBe(other.configDigest);
    expect(found.references.map(formatReference)).toEqual(['app:2']);
  });

  test.each([undefined, 'app:3'])('none is guessed for the name %s', async (wanted) => {
    await expect(read(wanted)).rejects.toMatchObject({
      code: 'image-not-found',
      message: expect.stringContaining(`(app:1; app:2; app:latest), and ${wanted ?? 'no reference'} was requested`),
    });
  });
});

test('an image for another platform is platform-mismatch', async () => {
  await writeLayout(makeImage({ architecture: 'arm64' }), directory);
  await expect(read()).rejects.toMatchObject({ code: 'platform-mismatch' });
});

describe('an incomplete layout is tarball-invalid', () => {
  const image = makeImage({ layers: 1 });
  const made = attested(image);
  const [, attestation] = parseIndex(made.index, 'index');
  beforeEach(() => writeAttestedLayout(image, made, directory));
  const refused = (message: string): object => ({ code: 'tarball-invalid', message: expect.stringContaining(message) });

  test.each([
    ['a layer', image.layerDigests[0]],
    ['the config', image.configDigest],
    ['the manifest', image.manifestDigest],
    ['the index of a build', digestOf(made.index)],
    ['an attestation', attestation?.digest],
  ])('without %s', async (_, digest = digestOf('')) => {
    unlinkSync(blobPath(directory, digest));
    await expect(read()).rejects.toMatchObject(refused(`Blob ${digest} is missing`));
  });

  test('with another config of the same size', async () => {
    const path = blobPath(directory, image.configDigest);
    writeFileSync(path, readFileSync(path, 'utf8').replace('2026', '2027'));
    await expect(read()).rejects.toMatchObject(refused('holds other bytes'));
  });

  test('without an index', async () => {
    unlinkSync(join(directory, 'index.json'));
    await expect(read()).rejects.toMatchObject(refused('has no index.json'));
  });

  test('with a digest of sha512', async () => {
    writeIndex(descriptorOf(image, { digest: `sha512:${'a'.repeat(128)}` }));
    await expect(read()).rejects.toMatchObject(refused('only sha256 digests are supported'));
  });

  test.each([
    ['more layers than in its manifest', { extra: true }, 'has 1 layers; its config has 2'],
    ['another diff ID than its uncompressed layer', { extra: false }, 'in the config'],
  ])('with a config that has %s', async (_, { extra }, message) => {
    const plain = makeImage({ layers: 1, gzip: false });
    const config = JSON.parse(String(plain.blobs.get(plain.configDigest)));
    config.rootfs.diff_ids = extra ? [...plain.diffIds, digestOf('')] : [digestOf('other')];
    const configBytes = json(config);
    const manifest = JSON.parse(String(plain.blobs.get(plain.manifestDigest)));
    manifest.config = { ...manifest.config, digest: digestOf(configBytes), size: configBytes.length };
    const manifestBytes = json(manifest);
    const blobs = new Map([
      ...plain.blobs,
      [digestOf(configBytes), configBytes],
      [digestOf(manifestBytes), manifestBytes],
    ]);
    const changed = { ...plain, blobs, configDigest: digestOf(configBytes), manifestDigest: digestOf(manifestBytes) };
    await writeLayout(changed, directory);
    await expect(read()).rejects.toMatchObject(refused(message));
  });
});
