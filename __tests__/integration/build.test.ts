import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { provideBuildKit } from '../../dev/buildkit-image.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { freePort } from '../../dev/free-port.ts';
import { describeMissingGoParts } from '../../dev/go-parts.ts';
import { endChild, spawnOwn } from '../../dev/own-processes.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import { type Engines, type Inputs, startArtifactService, startEngines, stepOn } from '../fixtures/engines.ts';
import { errorCode, errorMessage, shortPauses } from '../fixtures/scenario.ts';

// Exports with several kinds of builders: the engine's own on both stores, and BuildKit 0.34 in a container.

let engines: Engines;
let service: ArtifactService;
let downloads: Server;
beforeAll(async () => {
  downloads = createServer((_, answer) => answer.end('from elsewhere\n'));
  const port = await freePort();
  [engines] = await Promise.all([
    startEngines(),
    new Promise<void>((done) => downloads.listen(port, '127.0.0.1', done)),
  ]);
  folder('labels', { Dockerfile: 'FROM scratch\nLABEL a=b\n' });
  const url = `http://127.0.0.1:${String(port)}/file`;
  const copies = `ADD ${url} /downloaded\nADD --link ${url} /linked\nCOPY --link a.txt /l.txt\nCOPY a.txt /a.txt\n`;
  folder('copies', { Dockerfile: `FROM scratch\n${copies}`, 'a.txt': `${String(Date.now())}\n` });
});
afterAll(async () => {
  downloads.close();
  await engines.stop();
});
beforeEach(async () => void (service = await startArtifactService({ tls: true })));
afterEach(async () => {
  await service.close();
});

function folder(name: string, files: Readonly<Record<string, string>>): string {
  const path = join(engines.directory, name);
  mkdirSync(path, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text);
  return path;
}

const exportOn = (engine: EngineClient, context: string, inputs: Inputs = {}, env = {}) =>
  stepOn(
    service,
    engine,
    'export-image',
    {
      context: context.includes(':') ? context : join(engines.directory, context),
      tarball: join(engines.directory, 'charon.tar'),
      ...inputs,
    },
    {},
    { env },
  );
const loadOn = (engine: EngineClient, inputs: Inputs = {}) =>
  stepOn(service, engine, 'load-image', inputs, { jobId: 'waf' });

test('an image without layers can be loaded on both stores; the classic store can’t save one, and the error shows that', async () => {
  const exported = await exportOn(engines.containerd, 'labels');
  expect(exported.log).not.toContain('::error');
  for (const engine of [engines.classic, engines.containerd]) {
    const loaded = await loadOn(engine, { 'expected-config-digest': exported.outputs['config-digest'] ?? '' });
    expect(loaded.log).not.toContain('::error');
    expect(engine.docker('image', 'inspect', '--format', '{{.Config.Labels.a}}', 'charon:local').trim()).toBe('b');
  }
  const build = await exportOn(engines.classic, 'labels', { 'artifact-name': 'built' });
  const saved = await exportOn(engines.classic, '.', { 'artifact-name': 'saved', 'source-image': 'charon:local' });
  for (const outcome of [build, saved]) {
    expect(errorCode(outcome)).toBe('unsupported-host');
    expect(errorMessage(outcome)).toContain("can't save an image without layers");
  }
});

test('an unknown builder is an error that lists the existing builders', async () => {
  engines.containerd.docker('buildx', 'create', '--name', 'other', '--driver', 'docker-container');
  const outcome = await exportOn(engines.containerd, 'labels', { builder: 'nope' });
  expect(errorCode(outcome)).toBe('builder-unsupported');
  expect(errorMessage(outcome)).toContain('There is no builder "nope" here. There are: ');
  expect(errorMessage(outcome)).toMatch(/There are: .*\bother\b/);
  expect(errorMessage(outcome)).toMatch(/There are: .*\bdefault\b/);
  expect(errorMessage(outcome)).not.toContain('Add this step before it');
});

test('the export works with the Git context of the main build and with the folder, although these are different contexts (S0.3)', async () => {
  const work = folder('repository/app', { Dockerfile: 'FROM scratch\nCOPY . /\n', 'a.txt': 'a\n' });
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', work, '-c', 'user.name=T', '-c', 'user.email=t@example.com', ...args])
      .toString()
      .trim();
  git('init', '--quiet', '--initial-branch=main');
  git('add', '.');
  git('commit', '--quiet', '--message=One');
  const port = await freePort();
  const base = join(engines.directory, 'repository');
  const daemon = [
    'daemon',
    '--export-all',
    '--listen=127.0.0.1',
    `--port=${String(port)}`,
    `--base-path=${base}`,
    base,
  ];
  const server = spawnOwn('git', daemon, { stdio: 'ignore' });
  try {
    const context = `git://127.0.0.1:${String(port)}/app/.git#${git('rev-parse', 'HEAD')}`;
    for (let tries = 0; tries < 1200 && !answers(context); tries += 1) await sleep(100);
    const { docker } = engines.containerd;
    const cache = join(engines.directory, 'git-cache');
    docker('buildx', 'build', `--cache-to=type=local,dest=${cache},mode=max`, '--output=type=cacheonly', context);
    docker('buildx', 'prune', '--all', '--force');
    const inputs = { 'cache-from': `type=local,src=${cache}`, 'require-cache': 'true' };
    const missed = await exportOn(engines.containerd, 'repository/app', inputs);
    expect(errorCode(missed)).toBe('cache-missed');
    expect(errorMessage(missed)).toMatch(/^The export, with the context ".*repository\/app".*the same `context`/s);
    expect(missed.outputs).toEqual({ 'run-integration': 'false', 'cached-steps': '0', 'executed-steps': '1' });
    docker('buildx', 'prune', '--all', '--force');
    const met = await exportOn(engines.containerd, context, inputs);
    expect(met.log).not.toContain('::error');
    expect(met.outputs).toMatchObject({ 'cached-steps': '1', 'executed-steps': '0' });
  } finally {
    await endChild(server, 5000);
  }
});

function answers(context: string): boolean {
  try {
    execFileSync('git', ['ls-remote', context.split('#')[0] ?? ''], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

test('downloads and linked copies don’t count as uncached steps, so require-cache accepts a Dockerfile with them (S0.3)', async () => {
  const first = await exportOn(engines.containerd, 'copies');
  expect(first.outputs).toMatchObject({ 'cached-steps': '0', 'executed-steps': '4' });
  const again = await exportOn(engines.containerd, 'copies', { 'require-cache': 'true', 'artifact-name': 'again' });
  expect(again.log).not.toContain('::error');
  expect(again.outputs).toMatchObject({ 'cached-steps': '4', 'executed-steps': '0' });
});

const noGo = describeMissingGoParts(['buildkit', 'runc']);
const withGo = noGo === undefined ? describe : describe.skip;
withGo(`BuildKit 0.34 in a container${noGo === undefined ? '' : ` (left out: ${noGo})`}`, () => {
  const builder = { builder: 'contained' };
  beforeAll(async () => {
    await provideBuildKit(engines.containerd);
    const create = ['buildx', 'create', '--driver', 'docker-container', '--driver-opt', 'network=host'];
    engines.containerd.docker(...create, '--name', builder.builder, '--bootstrap');
  }, 600_000);
  afterAll(() => {
    engines.containerd.docker('buildx', 'rm', builder.builder);
  });

  test.each([
    ['error', 1],
    ['warn', 0],
  ])('a failed push doesn’t affect the artifact (push-failure: %s) (S0.6, S1.5)', async (how, exitCode) => {
    const tags = `127.0.0.1:${String(await freePort())}/org/app:1`;
    const pushing = { ...builder, push: 'true', tags, 'push-failure': how };
    const exported = await exportOn(engines.containerd, 'copies', pushing, shortPauses);
    expect(exported.exitCode).toBe(exitCode);
    expect(exported.outputs).toMatchObject({ 'run-integration': 'true', 'pushed-reference': '' });
    if (how === 'error') expect(errorCode(exported)).toBe('registry-failed');
    const loaded = await loadOn(engines.classic, {
      'expected-config-digest': exported.outputs['config-digest'] ?? '',
    });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.exitCode).toBe(0);
  });

  test('the export finds every step in the cache of another builder (S0.3)', async () => {
    const cache = join(engines.directory, 'cache');
    const main = await exportOn(engines.containerd, 'copies', { 'cache-to': `type=local,dest=${cache},mode=max` });
    expect(main.log).not.toContain('::error');
    engines.containerd.docker('buildx', 'prune', '--builder', builder.builder, '--all', '--force');
    const inputs = { ...builder, 'cache-from': `type=local,src=${cache}`, 'require-cache': 'true' };
    const again = { ...inputs, 'artifact-name': 'again' };
    const exported = await exportOn(engines.containerd, 'copies', again);
    expect(exported.log).not.toContain('::error');
    expect(exported.outputs).toMatchObject({ 'cached-steps': '4', 'executed-steps': '0' });
  });
});
