import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import { engines, service, useEngines } from '../fixtures/engine-suite.ts';
import { imagesOn, type Inputs, oneOf, stores, stepOn } from '../fixtures/engines.ts';

// Simulates `background: true`: several steps of one job run at once, with one engine and one RUNNER_TEMP. `cancel:` sends SIGINT.

useEngines({ tls: true });

async function handOver(name: string): Promise<void> {
  const context = join(engines.directory, name);
  rmSync(context, { recursive: true, force: true });
  cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  writeFileSync(join(context, 'app.txt'), name);
  const steps = 'COPY rootfs /\nCOPY app.txt /app.txt\nCMD ["cat", "/app.txt"]\n';
  writeFileSync(join(context, 'Dockerfile'), `FROM scratch\n${steps}`);
  const tarball = join(engines.directory, `${name}.tar`);
  const inputs = { context, image: `${name}:local`, tarball, 'artifact-name': name };
  expect((await stepOn(service, engines.containerd, 'export-image', inputs)).exitCode).toBe(0);
  engines.containerd.docker('image', 'rm', '-f', `${name}:local`);
}

test.each(oneOf(stores, 0))(
  'four loads at once into one %s engine, two of them of one artifact and one of them cancelled, all end correctly (B.7)',
  async (store) => {
    const { docker, env } = engines[store];
    const temp = join(engines.directory, `temp-${store}`);
    mkdirSync(temp);
    for (const name of ['one', 'two']) await handOver(name);
    const before = imagesOn(engines[store]);
    const start = (inputs: Inputs, cancel?: AbortController): Promise<StepOutcome> =>
      runStep({
        action: 'load-image',
        inputs,
        env: { ...service.env({ jobId: 'integration' }), ...env, RUNNER_TEMP: temp },
        ...(cancel === undefined ? {} : { signal: cancel.signal, onOutput: () => cancel.abort() }),
      });
    const [first, twin, other, cancelled] = await Promise.all([
      start({ 'artifact-name': 'one' }),
      start({ 'artifact-name': 'one' }),
      start({ 'artifact-name': 'two' }),
      start({ 'artifact-name': 'two', image: 'cancelled:local' }, new AbortController()),
    ]);
    for (const { exitCode, log, annotations } of [first, twin, other]) {
      expect([exitCode, annotations]).toEqual([0, []]);
      expect(log).toMatch(/^Verified: (one|two):local is the image/m);
    }
    expect([cancelled.exitCode, cancelled.annotations.map(({ title }) => title)]).toEqual([
      1,
      ['load-image: cancelled'],
    ]);
    for (const name of ['one', 'two']) expect(docker('run', '--rm', '--network=none', `${name}:local`)).toBe(name);
    expect(readdirSync(temp)).toEqual([]);
    docker('image', 'rm', '-f', 'one:local', 'two:local');
    expect(imagesOn(engines[store])).toEqual(before);
    rmSync(temp, { recursive: true });
  },
);

test.each(oneOf(stores, 1))(
  'of two loads of one reference at once into one %s engine, one may be cancelled, and a verified image is kept (B.7)',
  async (store) => {
    const { docker, env } = engines[store];
    for (const name of ['one', 'two']) await handOver(name);
    const before = imagesOn(engines[store]);
    const start = (name: string, cancel?: AbortController): Promise<StepOutcome> =>
      runStep({
        action: 'load-image',
        inputs: { 'artifact-name': name, image: 'shared:1' },
        env: { ...service.env({ jobId: 'integration' }), ...env },
        ...(cancel === undefined
          ? {}
          : {
              signal: cancel.signal,
              onOutput: (text: string) => (text.includes('Verified') ? cancel.abort() : undefined),
            }),
      });
    for (const [first, second] of [
      ['one', 'one'],
      ['one', 'two'],
    ] as const) {
      const outcomes = await Promise.all([start(first), start(second, new AbortController())]);
      const green = [first, second].filter((_, position) => outcomes[position]?.exitCode === 0);
      expect([outcomes[0].exitCode, outcomes[0].annotations]).toEqual([0, []]);
      expect(green).toContain(docker('run', '--rm', '--network=none', 'shared:1'));
      docker('image', 'rm', '-f', 'shared:1');
      // If two images were verified one after the other, the first has lost its only name.
      if (new Set(green).size > 1) docker('image', 'prune', '-f');
      expect(imagesOn(engines[store])).toEqual(before);
    }
  },
  180_000,
);
