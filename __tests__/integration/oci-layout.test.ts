import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from '@jest/globals';
import { provideBuildKit } from '../../dev/buildkit-image.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import { describeMissingGoParts } from '../../dev/go-parts.ts';
import { writeRootFilesystem } from '../../dev/test-images.ts';
import { type ArtifactService, startArtifactService } from '../fakes/artifact-service/service.ts';
import { borrowedEngine, emptyEngine, stepOn } from '../fixtures/engines.ts';

// Uses the loaded image as the base of a build, with both kinds of builders.

let engine: EngineClient;
let service: ArtifactService;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'oci-layout-'));
  await writeRootFilesystem(join(folder, 'rootfs'));
  engine = await borrowedEngine('containerd', folder);
  mkdirSync(join(folder, 'derived'));
  writeFileSync(join(folder, 'derived', 'Dockerfile'), 'FROM base\nRUN cp /etc/hello /etc/derived\n');
});
afterAll(() => {
  emptyEngine(engine);
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => void (service = await startArtifactService({ tls: true })));
afterEach(() => service.close());

/** Hands an image over, and loads it as an OCI layout. */
async function layoutOfHello(): Promise<string> {
  const context = join(folder, 'hello');
  mkdirSync(context, { recursive: true });
  writeFileSync(join(context, 'hello'), `hello ${String(Date.now())}\n`);
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY --from=rootfs / /\nCOPY hello /etc/hello\n');
  const exported = await stepOn(service, engine, 'export-image', {
    context,
    'build-contexts': `rootfs=${join(folder, 'rootfs')}`,
    tarball: join(folder, 'charon.tar'),
  });
  expect(exported.log).not.toContain('::error');
  const path = join(folder, 'base');
  const inputs = {
    into: 'none',
    'oci-layout': path,
    'expected-config-digest': exported.outputs['config-digest'] ?? '',
  };
  const loaded = await stepOn(service, engine, 'load-image', inputs, { jobId: 'derived' });
  expect(loaded.log).not.toContain('::error');
  return path;
}

function buildsOn(base: string, builder: readonly string[]): void {
  const derived = join(folder, 'derived');
  const out = join(folder, `out-${String(builder.length)}-${String(Date.now())}`);
  const args = ['buildx', 'build', ...builder, '--network=none', `--build-context=base=${base}`];
  engine.docker(...args, `--output=type=docker,dest=${out}.tar`, '--tag=derived:local', derived);
  engine.docker('load', '--input', `${out}.tar`);
  const run = ['run', '--rm', '--network=none', 'derived:local', '/bin/cat', '/etc/derived'];
  expect(engine.docker(...run)).toMatch(/^hello \d+\n$/);
}

test('a build with the engine’s own builder uses the layout as its base (B.5)', async () => {
  const path = await layoutOfHello();
  buildsOn(`oci-layout://${path}`, []);
  buildsOn(`oci-layout://${path}:local`, []);
});

test('export-image uses the layout as its base, like any build (B.5)', async () => {
  const path = await layoutOfHello();
  const exported = await stepOn(service, engine, 'export-image', {
    context: join(folder, 'derived'),
    'build-contexts': `base=oci-layout://${path}`,
    network: 'none',
    'artifact-name': 'derived',
    image: 'derived:local',
    tarball: join(folder, 'derived.tar'),
  });
  expect(exported.log).not.toContain('::error');
});

const noGo = describeMissingGoParts(['buildkit', 'runc']);
const withGo = noGo === undefined ? describe : describe.skip;
withGo(`BuildKit 0.34 in a container${noGo === undefined ? '' : ` (left out: ${noGo})`}`, () => {
  beforeAll(async () => {
    await provideBuildKit(engine);
    const create = ['buildx', 'create', '--driver', 'docker-container', '--driver-opt', 'network=host'];
    engine.docker(...create, '--name', 'contained', '--bootstrap');
  }, 600_000);

  test('a build with the driver docker-container uses the layout as its base', async () => {
    buildsOn(`oci-layout://${await layoutOfHello()}`, ['--builder=contained']);
  });
});
