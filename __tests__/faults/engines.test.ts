import { execFileSync } from 'node:child_process';
import { closeSync, openSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { type DockerEngine, startDockerEngine } from '../../dev/docker-engine.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  imagesOn,
  type Inputs,
  shareOn,
  startArtifactService,
  stepOn,
  stores,
  testedDocker,
} from '../fixtures/engines.ts';
import { type FixtureImage, makeImage, savedTarball } from '../fixtures/image.ts';
import { errorCode } from '../fixtures/scenario.ts';

let folder: string;
let tarballs: string;
let engine: DockerEngine;
let service: ArtifactService;
const mountBytes = 300_000_000;

beforeEach(async () => {
  service = await startArtifactService();
  tarballs = await mkdtemp(join(tmpdir(), 'tarballs-'));
  folder = await mkdtemp(join(tmpdir(), 'small-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${String(mountBytes)}`, 'tmpfs', folder]);
});
afterEach(async () => {
  await engine.stop();
  execFileSync('umount', ['-l', folder]);
  await rm(folder, { recursive: true });
  await rm(tarballs, { recursive: true });
  await service.close();
});

const load = (inputs: Inputs = {}): Promise<StepOutcome> => stepOn(service, engine, 'load-image', inputs);
async function handOver(image: FixtureImage, artifact: string, reference: string): Promise<void> {
  const tarball = join(tarballs, `${artifact}.tar`);
  writeFileSync(tarball, savedTarball(image, [reference]));
  const inputs = { 'source-tarball': tarball, 'artifact-name': artifact, image: reference };
  expect((await stepOn(service, engine, 'export-image', inputs)).outputs['run-integration']).toBe('true');
}

/** Fills the disk except for that number of bytes. */
function fill(freeBytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  const file = openSync(join(folder, 'filler'), 'w');
  const chunk = Buffer.alloc(1_000_000);
  for (let left = bavail * bsize - freeBytes; left > 0; left -= chunk.length) writeSync(file, chunk);
  closeSync(file);
}

describe.each(stores)('the disk of an engine with the %s store', (store) => {
  beforeEach(async () => void (engine = await startDockerEngine({ store, version: testedDocker(), folder })));

  test.each(shareOn(store, ['false', 'true']))(
    'fills up during unpacking, overlap: %s: the step fails with a code and restores everything, and passes with more space',
    async (overlap) => {
      // The artifact is half as large as the unpacked image, so the space looks sufficient.
      const image = makeImage({ layers: 2, layerBytes: 40_000_000, compressible: true });
      await handOver(image, 'docker-image', 'charon:local');
      fill(store === 'classic' ? 90_000_000 : 60_000_000);
      const outcome = await load({ overlap });
      expect(outcome.exitCode).toBe(1);
      expect(['load-failed', 'not-enough-space']).toContain(errorCode(outcome));
      expect(outcome.log).toMatch(/no space left on device|free/i);
      expect(outcome.log).toContain('df -h');
      expect(outcome.leftInTemp).toEqual([]);
      expect(imagesOn(engine)).toEqual([]);
      rmSync(join(folder, 'filler'));
      const again = await load({ overlap });
      expect(again.log).not.toContain('::error');
      expect(imagesOn(engine)).toEqual([expect.stringMatching(/^charon:local /)]);
    },
  );

  test.each(shareOn(store, [2, 5]))(
    'is shared by %i concurrent loads of two images with a common layer: each loads its own image',
    async (count) => {
      const [one, other] = [
        makeImage({ layers: 3, layerBytes: 4_000_000 }),
        makeImage({ layers: 1, layerBytes: 4_000_000 }),
      ];
      for (const [name, image] of [
        ['one', one],
        ['other', other],
      ] as const) {
        await handOver(image, name, `${name}:local`);
      }
      const names = Array.from({ length: count }, (_, at) => (at % 2 === 0 ? 'one' : 'other'));
      const outcomes = await Promise.all(names.map((name) => load({ 'artifact-name': name })));
      for (const [at, outcome] of outcomes.entries()) {
        expect(outcome.log).not.toContain('::error');
        expect(outcome.outputs['config-digest']).toBe((names[at] === 'one' ? one : other).configDigest);
      }
      expect(imagesOn(engine).map((line) => line.split(' ')[0])).toEqual(
        expect.arrayContaining(['one:local', 'other:local']),
      );
      expect(imagesOn(engine)).toHaveLength(2);
      engine.docker('save', '--output', join(folder, 'saved.tar'), 'one:local', 'other:local');
    },
  );
});
