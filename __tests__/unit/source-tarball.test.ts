import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import type { TarballPlan } from '../../export-image/plan/plan.ts';
import { openSourceTarball } from '../../export-image/source/from-tarball.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { indexJson, makeImage, tar } from '../fixtures/image.ts';

const directory = mkdtempSync(join(tmpdir(), 'source-'));
afterAll(() => rmSync(directory, { recursive: true }));

test('the record of an OCI archive with two entries of one name points to the layer, not to the entry before it', async () => {
  const image = makeImage({ layers: 1, layerBytes: 3000 });
  const other = makeImage({ layers: 1, layerBytes: 3000 });
  const layerOf = ({ blobs, layerDigests }: typeof image): Buffer =>
    blobs.get(layerDigests[0] ?? digestOf('')) ?? Buffer.alloc(0);
  const [config, manifest] = [image.configDigest, image.manifestDigest].map((digest): [string, Buffer] => [
    `small/${digest}`,
    image.blobs.get(digest) ?? Buffer.alloc(0),
  ]);
  const path = join(directory, 'archive.tar');
  writeFileSync(
    path,
    tar([
      ['layer', layerOf(other)],
      ['layer', layerOf(image)],
      ...[config, manifest].filter((one) => one !== undefined),
      ['index.json', indexJson(image)],
    ]),
  );
  const reference = parseTaggedReference('charon:local');
  const plan: TarballPlan = {
    kind: 'tarball',
    source: { kind: 'tarball', path },
    reference,
    push: undefined,
    tags: [],
    immutableTag: undefined,
    platform: parsePlatform('linux/amd64'),
    artifactName: 'docker-image',
    retentionDays: 1,
    whenTaken: 'fail',
    engine: 'docker',
    jobKey: '',
    remarks: [],
    notices: [],
    warnings: [],
    tarballPath: join(directory, 'charon.tar'),
  };
  const opened = await openSourceTarball(plan);
  const bytes = await copiedBytes(opened.chunks);
  const [layer] = (await opened.unsealed()).record.layers;
  const start = layer?.offset ?? 0;
  expect(digestOf(bytes.subarray(start, start + (layer?.size ?? 0)))).toBe(image.layerDigests[0]);
  expect(bytes.includes(layerOf(other))).toBe(false);
});
