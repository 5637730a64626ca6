import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { runStep } from '../../dev/action-runner.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { engines, pruneAfterEach, service, useEngines } from '../fixtures/engine-suite.ts';
import { imagesOn, type Inputs, shareOn, stores, stepOn } from '../fixtures/engines.ts';
import { makeImage, savedTarball } from '../fixtures/image.ts';
import { artifactOf, publish } from '../fixtures/lying-artifact.ts';
import { errorCode } from '../fixtures/scenario.ts';

useEngines();
pruneAfterEach();

const image = makeImage({
  layers: 2,
  layerBytes: 3_000_000,
  labels: { 'org.opencontainers.image.revision': 'abc123' },
});
const load = (engine: EngineClient, inputs: Inputs = {}): Promise<StepOutcome> =>
  stepOn(service, engine, 'load-image', inputs);

/** Puts the image into the engine without a name. */
async function seedNameless(engine: EngineClient): Promise<void> {
  await publish(service, { tarball: savedTarball(image, ['seed:1']), record: undefined });
  expect((await load(engine, { image: 'seed:1' })).exitCode).toBe(0);
  // The other image takes over the name.
  await publish(service, { tarball: savedTarball(makeImage(), ['other:1']), record: undefined });
  expect((await load(engine, { image: 'other:1' })).exitCode).toBe(0);
  engine.docker('image', 'tag', 'other:1', 'seed:1');
  engine.docker('image', 'rm', 'other:1');
  engine.docker('image', 'rm', 'seed:1');
}

describe.each(stores)('on the %s store', (store) => {
  test.each(shareOn(store, ['true', 'false']))(
    'an untagged image that existed before is kept when loading it again fails, overlap: %s',
    async (overlap) => {
      const engine = engines[store];
      await seedNameless(engine);
      const before = imagesOn(engine);
      expect(before).toEqual([expect.stringMatching(/^<none>:<none> sha256:/)]);
      // A foreign tarball is identified only after loading; a record identifies the image before.
      for (const record of [undefined, artifactOf(image, ['charon:local']).record]) {
        await publish(service, { tarball: savedTarball(image, ['charon:local']), record });
        const outcome = await load(engine, { image: 'charon:local', overlap, 'expected-revision': 'other' });
        expect(errorCode(outcome)).toBe('revision-mismatch');
        expect(imagesOn(engine)).toEqual(before);
      }
    },
  );

  test('an image that was just loaded is removed if it isn’t the expected one', async () => {
    const engine = engines[store];
    await publish(service, { tarball: savedTarball(image, ['charon:local']), record: undefined });
    const outcome = await load(engine, { 'expected-revision': 'other' });
    expect(errorCode(outcome)).toBe('revision-mismatch');
    expect(imagesOn(engine)).toEqual([]);
  });

  test('the next load removes what a killed load left in the engine and in RUNNER_TEMP', async () => {
    const engine = engines[store];
    await publish(service, artifactOf(image, ['charon:local']));
    const temp = await mkdtemp(join(tmpdir(), 'kept-temp-'));
    const env = { ...service.env(), ...engine.env, RUNNER_TEMP: temp };
    // The step is killed during the check of the loaded image, which then has only a temporary tag.
    const killing = new AbortController();
    const onOutput = (text: string): void => {
      if (/^Downloaded: /m.test(text)) killing.abort();
    };
    for (let tries = 0; tries < 20 && !imagesOn(engine).some((line) => line.includes('handover')); tries += 1) {
      await runStep({ action: 'load-image', env, signal: killing.signal, killWith: 'SIGKILL', onOutput });
      if (imagesOn(engine).some((line) => line.startsWith('charon:local')))
        engine.docker('image', 'rm', 'charon:local');
    }
    const left = imagesOn(engine).filter((line) => line.includes('handover'));
    expect(left).toHaveLength(1);
    const outcome = await runStep({ action: 'load-image', env });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.log).toContain('left behind by a killed step');
    expect(imagesOn(engine)).toEqual([expect.stringMatching(/^charon:local /)]);
    expect(await readdir(temp)).toEqual([]);
    await rm(temp, { recursive: true, force: true });
  });
});
