import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { type Registry, startRegistry } from '../../dev/docker-registry.ts';
import { digestOf, hexOf } from '../../shared/image/digest.ts';
import { readSmallTar } from '../fixtures/tar-file.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  type Engines,
  halfOf,
  oneOf,
  shareOn,
  startArtifactService,
  startEngines,
  stepOn,
  waysToLoad,
} from '../fixtures/engines.ts';
import { type FixtureImage, makeImage } from '../fixtures/image.ts';
import { artifactOf, publish, recompressed, reconfigured } from '../fixtures/lying-artifact.ts';

// A loaded image is either complete or missing. docker save, docker push and an import into another containerd work on it,
// independently of the layers that the engine had before (field-notes M19).

let engines: Engines;
let service: ArtifactService;
let registry: Registry;
beforeAll(async () => {
  [engines, registry] = await Promise.all([startEngines(), startRegistry()]);
});
afterAll(async () => {
  await registry.stop();
  await engines.stop();
});
beforeEach(async () => void (service = await startArtifactService()));
afterEach(async () => {
  await service.close();
  for (const engine of [engines.classic, engines.containerd]) engine.docker('system', 'prune', '-af');
});

const gzipped = makeImage({ layers: 3, gzip: true });
const name = 'charon:local';

/** Hands an image over and loads it under a name. */
async function load(engine: EngineClient, image: FixtureImage, reference: string, overlap: string): Promise<void> {
  await publish(service, artifactOf(image, [reference]));
  const outcome = await stepOn(service, engine, 'load-image', { overlap });
  expect(outcome.log).not.toContain('::error');
  expect(outcome.outputs['image']).toBe(reference);
}

/** Sends the image from this engine to each possible target. */
async function expectWhole(engine: EngineClient, image: FixtureImage): Promise<void> {
  const saved = join(engines.directory, 'saved.tar');
  engine.docker('save', name, '-o', saved);
  const blobs = await readSmallTar(readFileSync(saved));
  for (const digest of [image.configDigest, ...(engine.store === 'containerd' ? image.layerDigests : image.diffIds)]) {
    const bytes = blobs.get(`blobs/sha256/${hexOf(digest)}`);
    expect([digest, bytes === undefined ? 'missing' : digestOf(bytes)]).toEqual([digest, digest]);
  }

  const pushed = `${registry.address}/org/charon:${randomUUID()}`;
  engine.docker('tag', name, pushed);
  engine.docker('push', pushed);
  engine.docker('image', 'rm', pushed);

  // Sends it into the containerd of the other engine, which has never had it.
  const other = engine === engines.containerd ? engines.classic : engines.containerd;
  const ctr = (...args: readonly string[]): string =>
    execFileSync('ctr', ['--address', other.containerd, '--namespace', 'cluster', ...args], {
      env: { ...process.env, ...other.env },
    }).toString();
  ctr('images', 'import', '--no-unpack', saved);
  const [, line = ''] = ctr('images', 'check').split('\n');
  expect(line).toContain(name);
  expect(line).toMatch(/ complete \((\d+)\/\1\) /);
  ctr('images', 'rm', '--sync', ...ctr('images', 'ls', '--quiet').trim().split('\n'));
}

describe.each(waysToLoad())('on the %s store, overlap: %s', (store, overlap) => {
  const engine = (): EngineClient => engines[store];

  test('a store without any of its layers gets all, and then already has all (B.9)', async () => {
    await load(engine(), gzipped, name, overlap);
    await expectWhole(engine(), gzipped);
    await load(engine(), gzipped, name, overlap);
    await expectWhole(engine(), gzipped);
  });

  const forms = [
    ['uncompressed', 'gzip'],
    ['gzip', 'uncompressed'],
  ] as const;
  // The classic store keeps only the content of a layer, not its form.
  test.each(store === 'classic' ? oneOf(forms, 0) : forms)(
    'a store that had the layers %s has a complete image after loading it with %s layers (B.9)',
    async (before, after) => {
      const forms = { gzip: gzipped, uncompressed: recompressed(gzipped) };
      await load(engine(), forms[before], 'base:local', overlap);
      await load(engine(), forms[after], name, overlap);
      await expectWhole(engine(), forms[after]);
      engine().docker('image', 'rm', 'base:local');
      await expectWhole(engine(), forms[after]);
    },
  );

  test('the image is complete if the store had some layers in another form and others unchanged (B.9)', async () => {
    await load(engine(), recompressed(gzipped, 2), 'base:local', overlap);
    await load(engine(), gzipped, name, overlap);
    await expectWhole(engine(), gzipped);
  });

  test('the image is complete if the store had all of its layers, from an image with another config (B.9)', async () => {
    const other = reconfigured(gzipped, (config) => ({ ...config, config: { Env: ['OTHER=1'] } }));
    for (const before of shareOn(store, [other, recompressed(other)])) {
      await load(engine(), before, 'base:local', overlap);
      await load(engine(), gzipped, name, overlap);
      await expectWhole(engine(), gzipped);
      engine().docker('image', 'rm', 'base:local');
      await expectWhole(engine(), gzipped);
      engine().docker('system', 'prune', '-af');
    }
  });

  test('an image that contains one layer twice is complete (B.9)', async () => {
    const twice = makeImage({ layers: 1, repeated: 2 });
    await load(engine(), twice, name, overlap);
    await expectWhole(engine(), twice);
  });
});

describe.each(halfOf(['true', 'false']))('overlap: %s', (overlap) => {
  test('the containerd store has a complete image after a partial pull (B.9)', async () => {
    const engine = engines.containerd;
    const pushed = `${registry.address}/org/half:${overlap}`;
    await load(engines.containerd, gzipped, pushed, overlap);
    engine.docker('push', pushed);
    engine.docker('system', 'prune', '-af');
    await load(engine, recompressed(gzipped), 'base:local', overlap);
    engine.docker('pull', pushed);
    engine.docker('tag', pushed, name);
    await load(engine, gzipped, name, overlap);
    await expectWhole(engine, gzipped);
  });

  test('an image of the containerd store without any layer can be handed over (B.9)', async () => {
    const empty = makeImage({ layers: 0 });
    await load(engines.containerd, empty, name, overlap);
    await expectWhole(engines.containerd, empty);
    await load(engines.containerd, empty, name, overlap);
    await expectWhole(engines.containerd, empty);
  });

  test('an image of the classic store without any layer can be handed over, although that store itself can’t save it (B.9)', async () => {
    const empty = makeImage({ layers: 0 });
    await load(engines.classic, empty, name, overlap);
    expect(engines.classic.docker('image', 'inspect', '--format', '{{.Id}}', name).trim()).toBe(empty.configDigest);
    expect(() => engines.classic.docker('save', name, '-o', join(engines.directory, 'saved.tar'))).toThrow(
      'empty export - not implemented',
    );
  });
});
