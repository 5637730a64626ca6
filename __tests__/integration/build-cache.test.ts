import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import { provideBuildKit } from '../../dev/buildkit-image.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { freePort } from '../../dev/free-port.ts';
import { describeMissingGoParts } from '../../dev/go-parts.ts';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import type { CacheAccess } from '../fakes/artifact-service/token.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  type Engines,
  type Inputs,
  oneOf,
  shareOf,
  startArtifactService,
  startEngines,
  stepOn,
} from '../fixtures/engines.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// Build caches that are refused, unreachable or damaged, with real builders: BuildKit 0.34 in a container, and the engines' own.

const noGo = describeMissingGoParts(['buildkit', 'runc']);
const contained = 'contained';
const builders: readonly (readonly [string, Inputs])[] = [
  ['the docker driver on the containerd store', {}],
  ...(noGo === undefined ? ([['BuildKit 0.34 in a container', { builder: contained }]] as const) : []),
];

let engines: Engines;
let service: ArtifactService;
let seed = 0;
beforeAll(async () => {
  engines = await startEngines();
  if (noGo !== undefined) return;
  await provideBuildKit(engines.containerd);
  const create = ['buildx', 'create', '--driver', 'docker-container', '--driver-opt', 'network=host'];
  engines.containerd.docker(...create, '--name', contained, '--bootstrap');
}, 600_000);
afterAll(async () => {
  if (noGo === undefined) engines.containerd.docker('buildx', 'rm', contained);
  await engines.stop();
}, 60_000);
beforeEach(async () => void (service = await startArtifactService()));
afterEach(async () => {
  await service.close();
});

/** A context that no builder has built before: two stages, one of them not part of the image, and a layer of 3 MB. */
function newContext(): string {
  const path = join(engines.directory, `context-${String((seed += 1))}`);
  mkdirSync(path, { recursive: true });
  const dockerfile = [
    'FROM scratch AS tools',
    'COPY tool.txt /tool.txt',
    'FROM scratch',
    'COPY --from=tools /tool.txt /tool.txt',
    'COPY big /big',
  ];
  writeFileSync(join(path, 'Dockerfile'), `${dockerfile.join('\n')}\n`);
  writeFileSync(join(path, 'tool.txt'), `${String(Date.now())} ${String(seed)}\n`);
  writeFileSync(join(path, 'big'), Buffer.alloc(3_000_000, `${String(Date.now())} ${String(seed)}`));
  return path;
}

interface More {
  readonly cache?: CacheAccess;
  readonly env?: Readonly<Record<string, string>>;
  readonly action?: '.' | 'export-image';
}

const exportOn = (engine: EngineClient, inputs: Inputs, { cache = 'write', env = {}, action }: More = {}) =>
  runStep({
    action: action ?? 'export-image',
    inputs: { tarball: join(engines.directory, 'charon.tar'), ...inputs },
    expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
    env: { ...service.env({ cache }), ...engine.env, ACTIONS_CACHE_SERVICE_V2: 'true', ...env },
  });

const notices = (outcome: StepOutcome): readonly string[] =>
  outcome.annotations.filter(({ level }) => level === 'notice').map(({ message }) => message);

/** Expects a green step with the reason in one notice. */
function expectGreen(outcome: StepOutcome, why: RegExp): void {
  expect(outcome.log).not.toContain('::error');
  expect(outcome.exitCode).toBe(0);
  expect(outcome.outputs['run-integration']).toBe('true');
  expect(outcome.annotations.map(({ level }) => level)).toEqual(['notice']);
  expect(notices(outcome).join()).toMatch(/^A build cache failed, which doesn’t affect the image: /);
  expect(notices(outcome).join()).toMatch(why);
  expect(outcome.leftInTemp).toEqual([]);
}

/** Expects that another engine can load the image of the step. */
async function expectLoadable(outcome: StepOutcome): Promise<void> {
  const expected = { 'expected-config-digest': outcome.outputs['config-digest'] ?? '' };
  const loaded = await stepOn(service, engines.classic, 'load-image', expected, { jobId: 'waf' });
  expect(loaded.log).not.toContain('::error');
  expect(loaded.exitCode).toBe(0);
}

const gha = 'type=gha,mode=max';
const status = (on: string, code: number): Fault => ({
  on,
  times: 1000,
  effect: { kind: 'status', status: code },
});

/** Expects that the step stored that number of layers, and that BuildKit only added its index. */
function expectStored({ log }: StepOutcome, layers: number): void {
  expect(log).toContain(`Stored ${String(layers)} layers of the build cache`);
  const entries = service.cacheEntries.map(({ key, finalised }) => [key.replace(/1-.*/, ''), finalised]);
  expect(entries.sort()).toEqual([
    ...Array.from({ length: layers }, () => ['buildkit-blob-', true]),
    ['index-buildkit-', true],
  ]);
}

/** Exports an image on the containerd engine, with one of its builders. */
const exportsWith =
  (builder: Inputs) =>
  (inputs: Inputs, more?: More): Promise<StepOutcome> =>
    exportOn(engines.containerd, { ...builder, ...inputs }, more);

// Docker 28.5 doesn't print the rest of the service's message.
const refused = 'error writing layer blob: failed to reserve cache';

/** Empties a builder's cache. */
function pruneCacheOf({ builder: named }: Inputs): void {
  const chosen = named === undefined ? [] : ['--builder', named];
  engines.containerd.docker('buildx', 'prune', ...chosen, '--all', '--force');
}

describe.each(builders)('with %s', (name, builder) => {
  const way = builders.findIndex((each) => each[0] === name);
  const exports = exportsWith(builder);

  test('a builder with an empty cache reads everything that another builder wrote (B.12, S0.3)', async () => {
    const context = newContext();
    const first = await exports({ context, 'cache-to': gha });
    expect(first.annotations).toEqual([]);
    expectStored(first, 2);
    pruneCacheOf(builder);
    const again = await exports({ context, 'require-cache': 'true', 'artifact-name': 'again' });
    expect(again.annotations).toEqual([]);
    expect(again.outputs).toMatchObject({ 'cached-steps': '3', 'executed-steps': '0' });
    expect(again.outputs['config-digest']).toBe(first.outputs['config-digest']);
    expect(again.outputs['manifest-digest']).toBe(first.outputs['manifest-digest']);
  }, 120_000);

  type Row = readonly [string, Inputs, More, readonly Fault[], RegExp];
  const failing: readonly Row[] = [
    [
      'refuses to write',
      { 'cache-to': gha },
      { cache: 'read' },
      [],
      /type=gha,mode=max was not written: .*failed to reserve cache.*pull_request_target/,
    ],
    [
      'refuses to write, with ignore-error=true',
      { 'cache-to': `${gha},ignore-error=true` },
      { cache: 'read' },
      [],
      /failed to reserve cache/,
    ],
    [
      'fails when an entry is finalised',
      { 'cache-to': gha },
      {},
      [status('FinalizeCacheEntryUpload', 403)],
      /was not written: unavailable/,
    ],
    [
      'fails during an upload',
      { 'cache-to': gha },
      {},
      ['put-block', 'put-blob'].map((on) => ({ ...status(on, 403), name: 'buildkit-blob-' })),
      /was not written: .*403/,
    ],
    [
      'can’t be read from its start',
      { 'cache-from': 'type=gha' },
      {},
      [status('GetCacheEntryDownloadURL', 500)],
      /type=gha was not read: unavailable/,
    ],
    [
      'is a folder that can’t be created',
      { 'cache-to': 'type=local,dest=/proc/none' },
      {},
      [],
      /type=local,dest=\/proc\/none was not written: mkdir/,
    ],
    [
      'lacks its settings',
      { 'cache-to': 'type=s3,region=eu' },
      { env: { AWS_EC2_METADATA_DISABLED: 'true' } },
      [],
      /type=s3 was not written: (?:.*bucket|unknown cache exporter)/,
    ],
  ];
  test.each(shareOf(failing, way, builders.length))(
    'a cache that %s causes one notice (B.12)',
    async (_title, inputs, more, faults, why) => {
      for (const fault of faults) service.faults.add(fault);
      expectGreen(await exports({ context: newContext(), ...inputs }, more), why);
    },
    120_000,
  );

  const damaged: readonly (readonly [string, Fault['effect']])[] = [
    ['are refused', { kind: 'status', status: 403 }],
    ['are cut off', { kind: 'reset', afterBytes: 100 }],
    ['have other bytes', { kind: 'flip', offset: 20 }],
  ];
  test.each(shareOf(damaged, way, builders.length))(
    'a build works without the cache if its layers %s (B.12)',
    async (_title, effect) => {
      const context = newContext();
      expect((await exports({ context, 'cache-to': gha, 'artifact-name': 'seed' })).annotations).toEqual([]);
      pruneCacheOf(builder);
      // The index is read first, and this read succeeds.
      service.faults.add({ on: 'get', after: 1, times: 1000, effect });
      const outcome = await exports({ context });
      service.faults.clear();
      expectGreen(outcome, /cache-from was ignored: /);
      await expectLoadable(outcome);
      // Small layers may have arrived before the failure.
      expect(outcome.outputs['executed-steps']).not.toBe('0');
    },
    120_000,
  );
});

// All builders behave the same in these cases, so one of them is enough.
describe.each(oneOf(builders, 0))('with %s only', (_, builder) => {
  const exports = exportsWith(builder);

  test('a small change stores the new layers only (B.12)', async () => {
    const context = newContext();
    expect((await exports({ context, 'cache-to': gha })).annotations).toEqual([]);
    pruneCacheOf(builder);
    const [before, sent] = [service.cacheEntries.length, service.traffic.up];
    writeFileSync(join(context, 'big'), Buffer.alloc(3_000_000, `${String(Date.now())} changed`));
    const changed = await exports({ context, 'cache-to': gha, 'artifact-name': 'changed' });
    expect(changed.annotations).toEqual([]);
    expect(changed.outputs).toMatchObject({ 'cached-steps': '2', 'executed-steps': '1' });
    expect(changed.log).toContain('Stored 1 layers of the build cache');
    // One layer and the index.
    expect(service.cacheEntries).toHaveLength(before + 2);
    expect(service.traffic.up).toBeGreaterThan(sent);
  }, 120_000);

  test('an unreachable registry and an unreachable address, both read and written, cause one notice (B.12)', async () => {
    const at = `127.0.0.1:${String(await freePort())}`;
    const nowhere = `type=registry,ref=${at}/org/app:cache`;
    const gone = `type=gha,scope=gone,version=2,token=${service.env()['ACTIONS_RUNTIME_TOKEN'] ?? ''},url_v2=http://${at}/`;
    const caches = `${nowhere}\n${gone}`;
    const outcome = await exports({ context: newContext(), 'cache-from': caches, 'cache-to': caches });
    expectGreen(
      outcome,
      /type=gha was not read: .*refused.* was not written: .*refused.*type=gha,scope=gone was not written: .*refused/,
    );
    expect(outcome.log).not.toContain(service.env()['ACTIONS_RUNTIME_TOKEN']?.split('.')[2] ?? 'no token');
  }, 60_000);

  test('the same refusal fails the step with ignore-error=false, with BuildKit’s own message (B.12)', async () => {
    const inputs = { context: newContext(), 'cache-to': `${gha},ignore-error=false` };
    const outcome = await exports(inputs, { cache: 'read' });
    expect(errorCode(outcome)).toBe('build-failed');
    expect(errorMessage(outcome)).toContain(refused);
    expect(outcome.outputs['run-integration']).toBe('false');
    expect(service.artifacts.filter(({ finalised }) => finalised)).toEqual([]);
  }, 60_000);

  test('failing caches of bake targets and of bake-set don’t fail the step, and working caches are written (B.12, B.6)', async () => {
    const context = newContext();
    const folder = join(engines.directory, `bake-${String(seed)}`);
    mkdirSync(folder);
    const local = join(folder, 'written');
    const target = (name: string, more: string): string =>
      `target "${name}" {\n  context = "${context}"\n  tags = ["${name}:1"]\n  output = ["type=cacheonly"]\n${more}}\n`;
    writeFileSync(
      join(folder, 'docker-bake.hcl'),
      target('one', `  cache-to = ["type=gha,mode=max", "type=local,dest=${local}"]\n  no-cache = true\n`) +
        target('two', ''),
    );
    const outcome = await runStep({
      action: 'export-image',
      inputs: {
        ...builder,
        tarball: join(folder, 'charon.tar'),
        'bake-targets': 'one,two',
        'bake-set': 'two.cache-to=type=gha,scope=two',
        allow: `fs.read=${context},fs.write=${local}`,
      },
      expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
      env: { ...service.env({ cache: 'read' }), ...engines.containerd.env, ACTIONS_CACHE_SERVICE_V2: 'true' },
      cwd: folder,
    });
    expect(outcome.log).not.toContain('::error');
    expect(notices(outcome)).toEqual([
      expect.stringMatching(
        /type=gha,mode=max was not written: .*failed to reserve.* type=gha,scope=two was not written: .*failed to reserve/,
      ),
    ]);
    expect(execFileSync('ls', [local], { encoding: 'utf8' })).toContain('index.json');
  }, 120_000);

  test('the joined action also tolerates a failing cache (B.12)', async () => {
    const inputs = { ...builder, context: newContext(), 'cache-to': gha, image: 'charon:joined' };
    const outcome = await exportOn(engines.containerd, inputs, { cache: 'read', action: '.' });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs['source']).toBe('build');
    expect(notices(outcome)).toEqual([expect.stringContaining(refused)]);
  }, 60_000);
});

describe.each(oneOf(builders, 1))('with %s only', (_, builder) => {
  const exports = exportsWith(builder);

  test('a new build stores the layers of all stages (B.12)', async () => {
    const context = newContext();
    const dockerfile = ['FROM scratch AS tools', 'COPY big /kept', 'COPY tool.txt /tool.txt', 'FROM scratch'];
    writeFileSync(join(context, 'Dockerfile'), [...dockerfile, 'COPY --from=tools /tool.txt /copied.txt'].join('\n'));
    const first = await exports({ context, 'cache-to': gha });
    expect(first.annotations).toEqual([]);
    expectStored(first, 3);
    pruneCacheOf(builder);
    const again = await exports({ context, 'require-cache': 'true', 'artifact-name': 'again' });
    expect(again.outputs['manifest-digest']).toBe(first.outputs['manifest-digest']);
  }, 120_000);

  test('a change in another stage stores the new layers of all stages, and downloads no cached stage (B.12)', async () => {
    const context = newContext();
    const stages = ['FROM scratch AS kept', 'COPY kept /kept', 'COPY tool.txt /kept.txt', 'FROM scratch AS changed'];
    const copies = ['COPY src /src', 'FROM scratch', 'COPY --from=kept /kept.txt /', 'COPY --from=changed /src /src'];
    writeFileSync(join(context, 'Dockerfile'), [...stages, ...copies].join('\n'));
    writeFileSync(join(context, 'kept'), randomBytes(2_000_000));
    writeFileSync(join(context, 'src'), randomBytes(200_000));
    expect((await exports({ context, 'cache-to': gha })).annotations).toEqual([]);
    pruneCacheOf(builder);
    const [entries, down] = [service.cacheEntries.length, service.traffic.down];
    writeFileSync(join(context, 'src'), randomBytes(200_000));
    const changed = await exports({ context, 'cache-to': gha, 'artifact-name': 'changed' });
    expect(changed.annotations).toEqual([]);
    expect(changed.outputs).toMatchObject({ 'cached-steps': '3', 'executed-steps': '2' });
    expect(changed.log).toContain('Stored 2 layers of the build cache');
    // Including BuildKit's index.
    expect(service.cacheEntries).toHaveLength(entries + 3);
    expect(service.traffic.down - down).toBeLessThan(1_000_000);
    expect(changed.leftInTemp).toEqual([]);
    pruneCacheOf(builder);
    const again = await exports({ context, 'require-cache': 'true', 'artifact-name': 'again' });
    expect(again.annotations).toEqual([]);
    expect(again.outputs['manifest-digest']).toBe(changed.outputs['manifest-digest']);
  }, 120_000);

  test('a run after an interrupted upload builds the missing step again (B.12)', async () => {
    const context = newContext();
    service.faults.add({ on: 'FinalizeCacheEntryUpload', effect: { kind: 'status', status: 403 } });
    expectGreen(
      await exports({ context, 'cache-to': gha }),
      /type=gha,mode=max was not written: an upload was interrupted, so a layer is missing: HTTP 403/,
    );
    expect(service.cacheEntries.filter(({ finalised }) => !finalised)).toHaveLength(1);
    pruneCacheOf(builder);
    const again = await exports({ context, 'artifact-name': 'again' });
    expect(again.log).not.toContain('::error');
    expect(again.outputs['run-integration']).toBe('true');
    expect(again.exitCode).toBe(0);
    expect(Number(again.outputs['executed-steps'])).toBeGreaterThan(0);
  }, 120_000);

  test('a failure of the default Actions cache is shown in the log only (B.12)', async () => {
    service.faults.add(status('GetCacheEntryDownloadURL', 500));
    const outcome = await exports({ context: newContext() });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.annotations).toEqual([]);
    expect(outcome.log).toContain('type=gha was not read: unavailable.');
  }, 60_000);

  test('a cache causes one notice in a job whose cache-mode is read, and BuildKit writes no cache (B.12)', async () => {
    expectGreen(
      await exports({ context: newContext(), 'cache-to': gha }, { env: { ACTIONS_CACHE_MODE: 'read' } }),
      /`cache-mode` is `read` \(ACTIONS_CACHE_MODE\)/,
    );
    expect(service.cacheEntries).toEqual([]);
  }, 60_000);

  test('the outputs are set when the artifact is finalised, and wait for no cache (B.12)', async () => {
    service.faults.add({ on: 'CreateCacheEntry', times: 99, effect: { kind: 'hang', ms: 600_000 } });
    const stop = new AbortController();
    const context = newContext();
    const outcome = await runStep({
      action: 'export-image',
      inputs: { ...builder, context, tarball: join(context, 'charon.tar'), 'cache-to': gha },
      expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
      env: { ...service.env(), ...engines.containerd.env, ACTIONS_CACHE_SERVICE_V2: 'true' },
      // The cache hangs, so this is the last line.
      onOutput: (text) => {
        if (text.includes('Waiting for the build cache')) stop.abort();
      },
      signal: stop.signal,
      killWith: 'SIGKILL',
    });
    expect(outcome.exitCode).not.toBe(0);
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'artifact-name': 'docker-image' });
    expect(service.artifacts.map(({ finalised }) => finalised)).toEqual([true]);
  }, 60_000);

  test('the joined action loads the image while the cache is written (B.12)', async () => {
    service.faults.add({ on: 'CreateCacheEntry', times: 99, effect: { kind: 'hang', ms: 600_000 } });
    const stop = new AbortController();
    const context = newContext();
    const outcome = await runStep({
      action: '.',
      inputs: { ...builder, context, 'cache-to': gha },
      expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
      env: { ...service.env(), ...engines.containerd.env, ACTIONS_CACHE_SERVICE_V2: 'true' },
      // The cache hangs, so this is the last line.
      onOutput: (text) => {
        if (text.includes('Verified: charon:local')) stop.abort();
      },
      signal: stop.signal,
    });
    expect(outcome.log).toContain('Waiting for the build cache');
    expect(outcome.log).toContain('Verified: charon:local');
    expect(outcome.leftInTemp).toEqual([]);
  }, 120_000);

  test('caches that exceed the step’s time limit together are abandoned, and the step is green (B.12)', async () => {
    service.faults.add({ on: 'CreateCacheEntry', times: 99, effect: { kind: 'hang', ms: 600_000 } });
    const caches = Array.from({ length: 6 }, (_none, at) => `${gha},scope=s${String(at)}`);
    const limit = { 'timeout-minutes': '0.3' };
    const outcome = await exports({ context: newContext(), 'cache-to': caches.join('\n'), ...limit });
    expectGreen(
      outcome,
      /scope=s0,mode=max was not written: it made no progress for 4\.5 s.*scope=s5,mode=max was not written/,
    );
    await expectLoadable(outcome);
  }, 120_000);

  test('a build that fails for its own reasons reports its own error once, independent of its caches (B.12)', async () => {
    const context = newContext();
    expect((await exports({ context, 'cache-to': gha, 'artifact-name': 'seed' })).exitCode).toBe(0);
    writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY tool.txt /tool.txt\nCOPY gone.txt /gone.txt\n');
    const outcome = await exports({ context, 'cache-to': gha }, { cache: 'read' });
    expect(errorCode(outcome)).toBe('build-failed');
    expect(errorMessage(outcome)).toMatch(/gone\.txt.*not found/);
    expect(notices(outcome)).toEqual([]);
    expect(outcome.log).not.toContain('Building again');
  }, 120_000);

  test('failing caches of a target that is the base of another target don’t fail the step (B.12, B.6)', async () => {
    const context = newContext();
    const folder = join(engines.directory, `linked-${String(seed)}`);
    mkdirSync(folder);
    const local = join(folder, 'written');
    const target = (name: string, more: string): string =>
      `target "${name}" {\n  context = "${context}"\n  tags = ["${name}:1"]\n${more}}\n`;
    writeFileSync(join(context, 'app.Dockerfile'), 'FROM base\nCOPY big /big\n');
    writeFileSync(
      join(folder, 'docker-bake.hcl'),
      target('base', `  target = "tools"\n  cache-to = ["type=gha,mode=max"]\n  no-cache = true\n`) +
        target(
          'app',
          `  dockerfile = "app.Dockerfile"\n  contexts = { base = "target:base" }\n  cache-to = ["type=local,dest=${local}"]\n`,
        ),
    );
    const outcome = await runStep({
      action: 'export-image',
      inputs: {
        ...builder,
        tarball: join(folder, 'charon.tar'),
        'bake-targets': 'app',
        allow: `fs.read=${context},fs.write=${local}`,
      },
      expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
      env: { ...service.env({ cache: 'read' }), ...engines.containerd.env, ACTIONS_CACHE_SERVICE_V2: 'true' },
      cwd: folder,
    });
    expect(outcome.log).not.toContain('::error');
    expect(notices(outcome)).toEqual([
      expect.stringMatching(/^A build cache failed, [^:]*: type=gha,mode=max was not written: .*failed to reserve/),
    ]);
    expect(execFileSync('ls', [local], { encoding: 'utf8' })).toContain('index.json');
  }, 120_000);
});

test('the docker driver on the classic store writes no cache: one notice, or an error if the cache is required (B.12)', async () => {
  const inputs = { context: newContext(), 'cache-to': gha };
  expectGreen(await exportOn(engines.classic, inputs), /docker driver on the classic image store.*setup-buildx-action/);
  const required = await exportOn(engines.classic, {
    ...inputs,
    'artifact-name': 'required',
    'cache-to': `${gha},ignore-error=false`,
  });
  expect(errorCode(required)).toBe('builder-unsupported');
}, 60_000);
