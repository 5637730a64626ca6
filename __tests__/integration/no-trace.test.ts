import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { type Registry, startRegistry } from '../../dev/docker-registry.ts';
import { installPrograms } from '../../dev/podman.ts';
import { compressionOf } from '../../shared/tar/compression.ts';
import { engines, pruneAfterEach, service, useEngines } from '../fixtures/engine-suite.ts';
import { type Inputs, stepOn, stores } from '../fixtures/engines.ts';

// Checks what an export leaves in a builder, a cache or a registry, as other clients read it. podman and skopeo refuse zstd layers in a Docker manifest,
// which is what the engine's builder writes.

useEngines();
pruneAfterEach();

let registry: Registry;
beforeAll(async () => {
  await installPrograms({ skopeo: 'skopeo' });
  registry = await startRegistry();
});
afterAll(() => registry.stop());

/** A context that no builder has built before. */
function newContext(): string {
  const path = mkdtempSync(join(engines.directory, 'context-'));
  writeFileSync(join(path, 'Dockerfile'), 'FROM scratch\nCOPY a.txt /a.txt\nCOPY big /big\n');
  writeFileSync(join(path, 'a.txt'), path);
  writeFileSync(join(path, 'big'), Buffer.alloc(2_000_000, path));
  return path;
}

async function exportOn(engine: EngineClient, inputs: Inputs): Promise<StepOutcome> {
  const outcome = await stepOn(service, engine, 'export-image', {
    tarball: join(engines.directory, 'charon.tar'),
    ...inputs,
  });
  expect(outcome.log).not.toContain('::error');
  return outcome;
}

async function publish(tags: string): Promise<StepOutcome> {
  const outcome = await runStep({
    action: 'publish-image',
    inputs: { tags },
    expressions: { 'github.token': service.rest.token },
    env: service.env({ jobId: 'publish' }),
  });
  expect(outcome.log).not.toContain('::error');
  return outcome;
}

interface RawManifest {
  readonly layers?: readonly { readonly mediaType: unknown }[];
  /** In an index: first the image, then its attestations. */
  readonly manifests?: readonly { readonly digest: string }[];
}

/** Returns the media types of all layers under a tag. skopeo copies the image, so that a client has read it. */
function layersAt(repository: string): readonly unknown[] {
  const to = mkdtempSync(join(engines.directory, 'copied-'));
  execFileSync('skopeo', ['copy', '--all', '--src-tls-verify=false', `docker://${repository}:1`, `dir:${to}`]);
  const rawOf = (reference: string): RawManifest => {
    const args = ['inspect', '--raw', '--tls-verify=false', `docker://${repository}${reference}`];
    const raw: RawManifest = JSON.parse(execFileSync('skopeo', args).toString());
    return raw;
  };
  const top = rawOf(':1');
  const { layers = [] } = top.manifests === undefined ? top : rawOf(`@${top.manifests[0]?.digest ?? ''}`);
  return layers.map(({ mediaType }) => mediaType);
}

const layer = (compression: 'gzip' | 'zstd') => expect.stringMatching(new RegExp(`[.+]${compression}$`));
const gzipped = [layer('gzip'), layer('gzip')];

test.each(stores)('a user’s own push after an export sends gzip layers, on the %s store', async (store) => {
  const engine = engines[store];
  const context = newContext();
  const repository = `${registry.address}/org/own-${store}`;
  await exportOn(engine, { context });
  engine.docker('buildx', 'build', '--provenance=false', '--push', `--tag=${repository}:1`, context);
  expect(layersAt(repository)).toEqual(gzipped);
});

test('an export publishes gzip layers and writes them to its cache', async () => {
  const repository = `${registry.address}/org/all`;
  const cache = join(engines.directory, 'cache');
  await exportOn(engines.containerd, {
    context: newContext(),
    push: 'true',
    tags: `${repository}:1`,
    'cache-to': `type=local,dest=${cache},mode=max`,
  });
  expect(layersAt(repository)).toEqual(gzipped);
  const published = await publish(`${repository}-published:1`);
  expect(published.annotations).toEqual([]);
  expect(layersAt(`${repository}-published`)).toEqual(gzipped);
  const blobs = join(cache, 'blobs', 'sha256');
  const packings = readdirSync(blobs).map((name) => compressionOf(readFileSync(join(blobs, name)).subarray(0, 512)));
  // Two layers, a config and a manifest.
  expect(packings.toSorted()).toEqual(['gzip', 'gzip', 'none', 'none']);
});

test('a user’s own push after an export of a bake file sends gzip layers', async () => {
  const context = newContext();
  const repository = `${registry.address}/org/baked`;
  const file = join(context, 'docker-bake.hcl');
  writeFileSync(file, `target "app" {\n  context = "${context}"\n  tags = ["${repository}:1"]\n}\n`);
  await exportOn(engines.containerd, { 'bake-files': file, 'bake-targets': 'app', allow: `fs.read=${context}` });
  engines.containerd.docker('buildx', 'build', '--provenance=false', '--push', `--tag=${repository}:1`, context);
  expect(layersAt(repository)).toEqual(gzipped);
});

test('`compression: zstd` publishes zstd layers in an OCI manifest, which other clients read', async () => {
  const repository = `${registry.address}/org/zstd`;
  const inputs = { context: newContext(), compression: 'zstd', push: 'true', tags: `${repository}:1` };
  await exportOn(engines.containerd, inputs);
  expect(layersAt(repository)).toEqual([layer('zstd'), layer('zstd')]);
});

test('publish-image shows a notice for zstd layers, which an export from the classic store has', async () => {
  const repository = `${registry.address}/org/saved`;
  await exportOn(engines.classic, { context: newContext() });
  const published = await publish(`${repository}:1`);
  expect(layersAt(repository)).toEqual([layer('zstd'), layer('zstd')]);
  expect(published.annotations).toEqual([
    { level: 'notice', title: '', message: expect.stringContaining('`compression: gzip`') },
  ]);
});
