import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
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
import { errorCode, errorMessage } from '../fixtures/scenario.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { type Registry, startRegistry } from '../../dev/docker-registry.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { digestOf, hexOf } from '../../shared/image/digest.ts';
import { parseArchiveManifest } from '../../shared/image/manifest.ts';
import { readSmallTar } from '../fixtures/tar-file.ts';

let engines: Engines;
let service: ArtifactService;
beforeAll(async () => void (engines = await startEngines()));
afterAll(() => engines.stop());
afterEach(() => service.close());

const base = 4_000_000;

/** A build context whose first layers don't depend on the application's text. */
function writeContext(folder: string, text: string): string {
  const context = join(engines.directory, folder, text);
  cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  writeFileSync(join(context, 'app.txt'), text);
  const noise = `RUN head -c ${String(base)} /dev/urandom > /noise`;
  writeFileSync(
    join(context, 'Dockerfile'),
    `FROM scratch\nCOPY rootfs /\n${noise}\nCOPY app.txt /app.txt\nCMD ["cat", "/app.txt"]\n`,
  );
  return context;
}

const pairs = halfOf([
  ['classic', 'classic'],
  ['containerd', 'classic'],
  ['containerd', 'containerd'],
  ['classic', 'containerd'],
]);
test.each(pairs)(
  'from %s to %s, the second version sends only the layers that the store lacks, and runs (S4.3)',
  async (from, to) => {
    service = await startArtifactService({ tls: true });
    const tarball = join(engines.directory, 'charon.tar');
    for (const text of ['one', 'two']) {
      const inputs = { context: writeContext(`${from}-${to}`, text), network: 'host', tarball, 'artifact-name': text };
      const exported = await stepOn(service, engines[from], 'export-image', inputs);
      expect(exported.log).not.toContain('::error');
      const loaded = await stepOn(service, engines[to], 'load-image', { 'artifact-name': text });
      expect(loaded.log).not.toContain('::error');
      expect(engines[to].docker('run', '--rm', '--network=none', 'charon:local')).toBe(text);
      const size = Number(loaded.outputs['size']);
      if (text === 'two') expect(size).toBeLessThan(100_000);
      // The containerd store has what its own BuildKit made.
      else expect(size > base).toBe(from === 'classic' || to === 'classic');
    }
    engines[to].docker('image', 'rm', '-f', 'charon:local');
    engines[to].docker('image', 'prune', '-f');
  },
);

test.each(stores)('an image with gzip layers is complete on the %s store (S4.3)', async (to) => {
  service = await startArtifactService({ tls: true });
  const context = join(engines.directory, `gzip-${to}`);
  mkdirSync(context);
  cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  writeFileSync(
    join(context, 'Dockerfile'),
    'FROM scratch\nCOPY rootfs /\nCOPY text /text\nCMD ["tail", "-c8", "/text"]\n',
  );
  writeFileSync(join(context, 'text'), randomBytes(6_000_000).toString('hex'));
  const inputs = { context, tarball: join(engines.directory, 'gzip.tar'), compression: 'gzip' };
  const exported = await stepOn(service, engines.containerd, 'export-image', inputs);
  expect(exported.log).not.toContain('::error');
  const engine = engines[to];
  // The engine's own BuildKit shouldn't have the layers either.
  engine.docker('builder', 'prune', '-af');
  const loaded = await stepOn(service, engine, 'load-image', {});
  // A containerd store keeps them unchanged; the classic store would only unpack them again.
  const unpacked = loaded.log.includes('Unpacked for the engine: 1 of the 2 layers that it requested.');
  expect(unpacked).toBe(to === 'classic');
  expect(loaded.log).not.toContain('Sending the whole tarball');
  expect(loaded.outputs).toMatchObject({ loaded: 'true', 'config-digest': exported.outputs['config-digest'] });
  const end = readFileSync(join(context, 'text'), 'utf8').slice(-8);
  expect(engine.docker('run', '--rm', '--network=none', 'charon:local')).toBe(end);
  expect(engine.docker('image', 'ls', '--digests')).not.toContain('handover-');
  await expectWhole(engine, to);
  engine.docker('image', 'rm', '-f', 'charon:local');
});

test.each(stores)('a changed byte of the gzip header is an error if the %s store would keep it', async (to) => {
  service = await startArtifactService({ tls: true });
  const context = join(engines.directory, `header-${to}`);
  mkdirSync(context);
  writeFileSync(join(context, 'text'), randomBytes(6_000_000).toString('hex'));
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY text /\n');
  const inputs = { context, tarball: join(engines.directory, 'gzip.tar'), compression: 'gzip' };
  await stepOn(service, engines.containerd, 'export-image', inputs);
  const engine = engines[to];
  engine.docker('builder', 'prune', '-af');
  // The headers of the zip and the tar are first, then that of gzip, with the time at byte 4 (RFC 1952 section 2.3).
  const blob = service.artifacts[0]?.blob ?? '';
  const head = await copiedBytes(service.blobs.read(blob, 0, 4096));
  const start = head.indexOf(Buffer.from([0x1f, 0x8b, 0x08]));
  expect(start).toBeGreaterThan(0);
  await service.blobs.flipByte(blob, start + 4);
  const loaded = await stepOn(service, engine, 'load-image', {});
  // The classic store keeps nothing of gzip: the unpacked content is correct.
  if (to === 'classic') expect(loaded.outputs['loaded']).toBe('true');
  else expect(errorCode(loaded)).toBe('artifact-corrupt');
  if (to === 'classic') engine.docker('image', 'rm', 'charon:local');
  expect(engine.docker('image', 'ls', '--all')).not.toMatch(/\n./);
});

// Docker 29.1.2 and newer describe an image as complete although its layers are missing (moby 2e3a23c8ec).
describe('an image whose layers are uncompressed in the containerd store', () => {
  const compressions = ['zstd', 'gzip'] as const;
  let registry: Registry;
  const load = (inputs: Inputs) =>
    stepOn(service, engines.containerd, 'load-image', { 'artifact-name': 'packed', ...inputs });

  beforeEach(async () => {
    [service, registry] = await Promise.all([startArtifactService({ tls: true }), startRegistry()]);
  });
  afterEach(async () => {
    engines.containerd.docker('system', 'prune', '-af');
    await registry.stop();
  });

  /**
   * Hands an image over, pushes it, and gives the engine its layers uncompressed.
   * @returns the reference of the pushed image
   */
  async function prepare(compression: 'zstd' | 'gzip'): Promise<string> {
    const context = join(engines.directory, `forms-${compression}`);
    mkdirSync(context, { recursive: true });
    writeFileSync(join(context, 'text'), randomBytes(3_000_000).toString('hex'));
    writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY text /\nCOPY Dockerfile /\n');
    const inputs = { context, tarball: join(engines.directory, 'forms.tar') };
    const packed = { compression, 'artifact-name': 'packed', push: 'true', tags: `${registry.address}/org/app:1` };
    const exported = await stepOn(service, engines.containerd, 'export-image', { ...inputs, ...packed });
    const plain = { compression: 'uncompressed', 'artifact-name': 'plain', image: 'base:local' };
    // Built by the other engine: BuildKit keeps each form of a layer for the same time.
    await stepOn(service, engines.classic, 'export-image', { ...inputs, ...plain });
    // Otherwise the engine wouldn't need to pull the content that its own BuildKit created.
    engines.containerd.docker('system', 'prune', '-af');
    const base = await load({ 'artifact-name': 'plain' });
    expect(base.outputs['loaded']).toBe('true');
    return exported.outputs['pushed-reference'] ?? '';
  }

  test.each(oneOf(compressions, 0))(
    'an image from the artifact, %s, is complete for docker save, even after a partial pull',
    async (compression) => {
      const pushed = await prepare(compression);
      engines.containerd.docker('pull', pushed);
      engines.containerd.docker('tag', pushed, 'charon:local');
      for (const loadedNow of ['true', 'false']) {
        const loaded = await load({});
        expect(loaded.log).not.toContain('::error');
        expect(loaded.outputs['loaded']).toBe(loadedNow);
        expect(await savedLayers(engines.containerd)).toHaveLength(2);
      }
    },
  );

  test.each(oneOf(compressions, 1))(
    'an image from the registry, %s, is an error that shows why and leaves nothing; with the artifact as the fallback, it is complete',
    async (compression) => {
      const pushed = await prepare(compression);
      const failed = await load({ from: 'registry', 'registry-image': pushed });
      expect(errorCode(failed)).toBe('registry-failed');
      expect(errorMessage(failed)).toContain(`did not pull all of ${pushed}`);
      expect(engines.containerd.docker('image', 'ls', '--format', '{{.Repository}}')).toBe('base\n');
      const loaded = await load({ from: 'registry-then-artifact', 'registry-image': pushed });
      expect(loaded.outputs).toMatchObject({ loaded: 'true', source: 'artifact' });
      expect(await savedLayers(engines.containerd)).toHaveLength(2);
    },
  );
});

/**
 * Exports the image from the engine with docker save, and checks each layer against its digest. Returns the sizes of the layers in bytes.
 */
async function savedLayers(engine: EngineClient): Promise<readonly number[]> {
  const saved = join(engines.directory, 'saved.tar');
  engine.docker('save', 'charon:local', '-o', saved);
  const files = await readSmallTar(readFileSync(saved));
  const [image] = parseArchiveManifest(files.get('manifest.json') ?? Buffer.alloc(0), 'manifest.json');
  const layers = (image?.layers ?? []).map((name) => ({ name, bytes: files.get(name) ?? Buffer.alloc(0) }));
  expect(layers.length).toBeGreaterThan(0);
  for (const { name, bytes } of layers) expect(name).toContain(hexOf(digestOf(bytes)));
  return layers.map(({ bytes }) => bytes.length);
}

async function expectWhole(engine: EngineClient, store: string): Promise<void> {
  const sizes = await savedLayers(engine);
  // The containerd store keeps the layers as they arrived: gzip compresses the text to a bit more than half.
  expect(sizes.some((size) => size > 12_000_000)).toBe(store === 'classic');
  expect(Math.max(...sizes)).toBeGreaterThan(6_000_000);
}
