import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { type Login, type Registry, startRegistry } from '../../dev/docker-registry.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  type Engines,
  halfOf,
  type Inputs,
  oneOf,
  startArtifactService,
  startEngines,
  stores,
  stepOn,
} from '../fixtures/engines.ts';
import { errorCode, errorMessage, shortPauses } from '../fixtures/scenario.ts';

// Uses a registry from the distribution's packages, on loopback, and both image stores.

const login: Login = { user: 'tester', password: 'secret' };
let engines: Engines;
let registry: Registry;
let locked: Registry;
let service: ArtifactService;
beforeAll(async () => {
  [engines, registry, locked] = await Promise.all([startEngines(), startRegistry(), startRegistry({ login })]);
  const context = join(engines.directory, 'plain');
  await mkdir(context);
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY a.txt /a.txt\nCOPY Dockerfile /b.txt\n');
  writeFileSync(join(context, 'a.txt'), `${String(Date.now())}\n`);
});
afterAll(async () => {
  await Promise.all([registry.stop(), locked.stop(), engines.stop()]);
});
beforeEach(async () => void (service = await startArtifactService({ tls: true })));
afterEach(async () => {
  await service.close();
  for (const engine of [engines.classic, engines.containerd]) {
    const ids = engine.docker('image', 'ls', '--quiet', '--no-trunc').split('\n').filter(Boolean);
    if (ids.length > 0) engine.docker('image', 'rm', '-f', ...new Set(ids));
  }
});

const exporting = (change: Inputs): Inputs => ({
  context: join(engines.directory, 'plain'),
  tarball: join(engines.directory, 'charon.tar'),
  push: 'true',
  ...change,
});
const references = (engine: EngineClient): readonly string[] =>
  engine
    .docker('image', 'ls', '--all', '--digests', '--format', '{{.Repository}}:{{.Tag}}')
    .split('\n')
    .filter(Boolean);
const exportOn = (engine: EngineClient, inputs: Inputs) =>
  stepOn(service, engine, 'export-image', exporting(inputs), {}, { env: shortPauses });
const loadOn = (engine: EngineClient, inputs: Inputs) =>
  stepOn(service, engine, 'load-image', inputs, { jobId: 'waf' }, { env: shortPauses });

const pairs = halfOf([
  ['containerd', 'classic'],
  ['containerd', 'containerd'],
  ['classic', 'containerd'],
  ['classic', 'classic'],
]);
describe.each(pairs)('pushed from the %s store, pulled on the %s store', (from, to) => {
  test('the artifact and the registry have the same image, and a pull by digest is verified (S1.1, S1.7, S1.9)', async () => {
    const repository = `${registry.address}/org/${from}-${to}`;
    const exported = await exportOn(engines[from], { tags: `${repository}:pr-1\n${repository}:latest` });
    expect(exported.log).not.toContain('::error');
    const pushed = exported.outputs['pushed-reference'] ?? '';
    expect(pushed).toBe(`${repository}@${exported.outputs['manifest-digest'] ?? 'no digest'}`);
    expect(references(engines[from])).toEqual([]);
    expect(exported.leftInTemp).toEqual([]);

    const expected = { 'expected-config-digest': exported.outputs['config-digest'] ?? '' };
    const pulling = { ...expected, from: 'registry', 'registry-image': pushed };
    const loaded = await loadOn(engines[to], pulling);
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({
      source: 'registry',
      image: 'charon:local',
      'config-digest': exported.outputs['config-digest'],
    });
    expect(references(engines[to])).toEqual(['charon:local']);

    // The artifact has the same image, so loading it changes nothing.
    const again = await loadOn(engines[to], expected);
    expect(again.log).not.toContain('::error');
    expect(again.outputs['config-digest']).toBe(exported.outputs['config-digest']);
    // A push from the classic store compresses the layers in its own way, and the containerd store has them in that form.
    expect(again.log.includes('in a different form')).toBe(from === 'classic' && to === 'containerd');
    engines[to].docker('pull', `${repository}:latest`);
  });
});

test('the handover’s build pushes the same manifest as in the artifact, and the record contains it (S1.1)', async () => {
  const repository = `${registry.address}/org/one`;
  const exported = await exportOn(engines.containerd, { tags: `${repository}:1`, provenance: 'false' });
  expect(exported.log.match(/exporting to image$/gm)).toHaveLength(1);
  const loaded = await loadOn(engines.classic, { from: 'registry' });
  expect(loaded.log).not.toContain('::error');
  expect(loaded.outputs).toMatchObject({ source: 'registry', 'config-digest': exported.outputs['config-digest'] });
  engines.classic.docker('image', 'rm', 'charon:local');
  const other = await loadOn(engines.containerd, {});
  expect(other.outputs['image-id']).toBe(exported.outputs['manifest-digest']);
  const here = await loadOn(engines.containerd, { from: 'registry' });
  expect(here.outputs).toMatchObject({ source: 'engine', loaded: 'false' });
});

test.each(oneOf(stores, 1))(
  'a tag in the pulled repository is kept, and so are its other tags, on the %s store',
  async (store) => {
    const engine = engines[store];
    const repository = `${registry.address}/org/tags-${store}`;
    const exported = await exportOn(engines.containerd, { tags: `${repository}:1` });
    const pulling = { from: 'registry', 'registry-image': exported.outputs['pushed-reference'] ?? '' };
    const loaded = await loadOn(engine, { ...pulling, image: `${repository}:mine` });
    expect(loaded.log).not.toContain('::error');
    expect(references(engine)).toContain(`${repository}:mine`);
    engine.docker('image', 'inspect', `${repository}:mine`);
    expect((await loadOn(engine, pulling)).outputs['image']).toBe('charon:local');
    expect(references(engine)).toEqual(expect.arrayContaining([`${repository}:mine`, 'charon:local']));
  },
);

test('a list of two platforms is pushed and one platform is handed over, from the same cache (S1.11, S1.7)', async () => {
  const repository = `${registry.address}/org/multi`;
  const inputs = { tags: `${repository}:1`, 'push-platforms': 'linux/amd64,linux/arm64' };
  const exported = await exportOn(engines.containerd, inputs);
  expect(exported.log).not.toContain('::error');
  expect(exported.outputs['platform']).toBe('linux/amd64');
  const list = exported.outputs['pushed-reference'] ?? '';
  const raw = engines.containerd.docker('buildx', 'imagetools', 'inspect', '--raw', list);
  const pushed: { readonly manifests: readonly { readonly platform: { readonly architecture: string } }[] } =
    JSON.parse(raw);
  // Each image has its attestations.
  const architectures = pushed.manifests.map(({ platform }) => platform.architecture);
  expect(architectures).toEqual(['amd64', 'arm64', 'unknown', 'unknown']);
  expect(list).toContain(`@${exported.outputs['manifest-digest'] ?? 'no digest'}`);
  const pulling = {
    from: 'registry',
    'registry-image': list,
    'expected-config-digest': exported.outputs['config-digest'] ?? '',
  };
  for (const engine of oneOf([engines.classic, engines.containerd], 0)) {
    const loaded = await loadOn(engine, pulling);
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({ source: 'registry', platform: 'linux/amd64' });
    expect(references(engine)).toEqual(['charon:local']);
  }
  const classic = await exportOn(engines.classic, { ...inputs, 'artifact-name': 'other' });
  expect(errorCode(classic)).toBe('builder-unsupported');
});

describe.each(stores)('without a login, on the %s store', (store) => {
  test('push-failure: warn gives a warning, error fails the step, and the artifact exists in both cases (S0.6, S1.5)', async () => {
    const engine = engines[store];
    const tags = `${locked.address}/org/app:1`;
    const warned = await exportOn(engine, { tags, 'push-failure': 'warn', 'artifact-name': 'warned' });
    expect(warned.exitCode).toBe(0);
    expect(warned.outputs).toMatchObject({ 'run-integration': 'true', 'pushed-reference': '' });
    expect(warned.annotations.filter(({ level }) => level === 'warning')).toHaveLength(1);

    const failed = await exportOn(engine, { tags });
    expect(failed.exitCode).toBe(1);
    expect(errorCode(failed)).toBe('registry-failed');
    expect(errorMessage(failed)).toContain(tags);
    expect(failed.outputs['run-integration']).toBe('true');
    expect(references(engine)).toEqual([]);
    const loaded = await loadOn(engine, { 'expected-config-digest': failed.outputs['config-digest'] ?? '' });
    expect(loaded.outputs).toMatchObject({ source: 'artifact', loaded: 'true' });
  });

  test('the image is pushed and pulled with the login (S1.9)', async () => {
    const engine = engines[store];
    engine.docker('login', '-u', login.user, '-p', login.password, locked.address);
    try {
      const exported = await exportOn(engine, { tags: `${locked.address}/org/${store}:1` });
      expect(exported.log).not.toContain('::error');
      const from = { from: 'registry', 'registry-image': exported.outputs['pushed-reference'] ?? '' };
      expect((await loadOn(engine, from)).outputs['source']).toBe('registry');
    } finally {
      engine.docker('logout', locked.address);
    }
  });
});

test('registry-then-artifact works without the registry, and artifact-then-registry without an artifact (S1.9)', async () => {
  const down = await startRegistry();
  const lost = await exportOn(engines.containerd, { tags: `${down.address}/org/app:1` });
  expect(lost.log).not.toContain('::error');
  await down.stop();
  const kept = await exportOn(engines.containerd, { tags: `${registry.address}/org/app:1`, 'artifact-name': 'kept' });
  for (const engine of oneOf([engines.classic, engines.containerd], 1)) {
    const loaded = await loadOn(engine, { from: 'registry-then-artifact' });
    expect(loaded.exitCode).toBe(0);
    expect(loaded.outputs).toMatchObject({ source: 'artifact', 'config-digest': lost.outputs['config-digest'] });
    // Two retries, and the reason for the fallback.
    expect(loaded.annotations.filter(({ level }) => level === 'warning')).toHaveLength(3);
    engine.docker('image', 'rm', 'charon:local');

    const without = { 'artifact-name': 'missing', 'registry-image': kept.outputs['pushed-reference'] ?? '' };
    const pulled = await loadOn(engine, { from: 'artifact-then-registry', ...without });
    expect(pulled.exitCode).toBe(0);
    expect(pulled.outputs['source']).toBe('registry');
    expect(pulled.annotations.map(({ message }) => message).join()).toContain('no artifact "missing"');
  }
});

test.each(stores)(
  'a registry that is available again after the handover gets the same image, from the %s store (S1.5)',
  async (store) => {
    // Refuses all requests until the artifact is finalised.
    const door = createServer((client) => {
      if (!service.artifacts.some(({ finalised }) => finalised)) {
        client.destroy();
        return;
      }
      const server = connect(Number(registry.address.split(':')[1]), '127.0.0.1');
      for (const socket of [client, server]) socket.on('error', () => socket.destroy());
      client.pipe(server).pipe(client);
    }).listen(0, '127.0.0.1');
    await once(door, 'listening');
    const address = door.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    try {
      const inputs = {
        tags: `127.0.0.1:${String(port)}/org/later-${store}:1`,
        'no-cache': 'true',
        provenance: 'false',
      };
      const exported = await exportOn(engines[store], inputs);
      expect(exported.log).not.toContain('::error');
      const retries = exported.annotations.filter(({ level }) => level === 'warning');
      expect(retries).toHaveLength(store === 'containerd' ? 1 : 0);
      expect(exported.outputs['pushed-reference']).toContain(exported.outputs['manifest-digest']);
      const expected = { 'expected-config-digest': exported.outputs['config-digest'] ?? '' };
      const loaded = await loadOn(engines.containerd, expected);
      if (store === 'containerd') expect(loaded.outputs['image-id']).toBe(exported.outputs['manifest-digest']);
      const pulling = { from: 'registry', 'registry-image': exported.outputs['pushed-reference'] ?? '' };
      const pulled = await loadOn(engines.classic, { ...expected, ...pulling });
      expect(pulled.outputs['source']).toBe('registry');
    } finally {
      door.close();
    }
  },
);

test('source-image is pushed unchanged and its tags are kept, on both stores (S1.1)', async () => {
  for (const engine of halfOf([engines.classic, engines.containerd])) {
    engine.docker('buildx', 'build', '--load', '-t', 'app:test', join(engines.directory, 'plain'));
    const exported = await exportOn(engine, {
      context: '.',
      'source-image': 'app:test',
      tags: `${registry.address}/org/source:${engine.store}`,
      'artifact-name': engine.store,
    });
    expect(exported.log).not.toContain('::error');
    expect(references(engine)).toEqual(['app:test']);
    const loaded = await loadOn(engine, {
      from: 'registry',
      'registry-image': exported.outputs['pushed-reference'] ?? '',
      'expected-config-digest': exported.outputs['config-digest'] ?? '',
    });
    expect(loaded.log).not.toContain('::error');
  }
});
