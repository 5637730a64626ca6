import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type Podman, startPodman } from '../../dev/podman.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import { type Engines, type Inputs, shareOf, startArtifactService, startEngines, stepOn } from '../fixtures/engines.ts';
import { makeImage } from '../fixtures/image.ts';
import { artifactOf, handOverMade, publish } from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// Uses the packaged podman with separate storage, to load from and export to real Docker engines.

let engines: Engines;
let podman: Podman;
let service: ArtifactService;
beforeAll(async () => {
  engines = await startEngines();
  podman = await startPodman();
});
afterAll(async () => {
  podman.remove();
  await engines.stop();
});
beforeEach(async () => void (service = await startArtifactService()));
afterEach(async () => {
  await service.close();
  podman.podman('image', 'rm', '--all', '--force');
});

const image = makeImage({ layers: 2, layerBytes: 1_000_000 });
const withPodman = (inputs: Inputs = {}): Inputs => ({ engine: 'podman', ...inputs });
const exportPodman = (inputs: Inputs): Inputs =>
  withPodman({ tarball: join(engines.directory, 'podman.tar'), ...inputs });
const names = (): readonly string[] => {
  const list = podman.podman('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}').trim();
  return list === '' ? [] : list.split('\n').sort();
};
const idOf = (image: string): string => podman.podman('image', 'inspect', '--format', '{{.Id}}', image).trim();

async function exportHello(): Promise<Readonly<Record<string, string>>> {
  const exported = await stepOn(service, engines.containerd, 'export-image', {
    context: 'examples/hello',
    'build-contexts': `busybox=${engines.rootFilesystem}`,
    network: 'host',
    tarball: join(engines.directory, 'charon.tar'),
  });
  expect(exported.log).not.toContain('::error');
  return exported.outputs;
}

/** Builds an image with only podman: no instruction needs a container. */
function buildWithPodman(reference: string, text: string, format: 'oci' | 'docker' = 'oci'): void {
  const context = mkdtempSync(join(tmpdir(), 'podman-context-'));
  try {
    cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
    writeFileSync(join(context, 'text'), text);
    const check = format === 'docker' ? 'HEALTHCHECK CMD ["true"]\n' : '';
    writeFileSync(
      join(context, 'Containerfile'),
      `FROM scratch\nCOPY rootfs /\nCOPY text /text\n${check}CMD ["cat", "/text"]\n`,
    );
    podman.podman('build', '--quiet', '--format', format, '-t', reference, context);
  } finally {
    rmSync(context, { recursive: true, force: true });
  }
}

describe('from docker to podman', () => {
  test('an image that docker built is present under podman’s name for it, and under no other name (S0.4)', async () => {
    await service.close();
    service = await startArtifactService({ tls: true });
    const exported = await exportHello();
    const expected = withPodman({ 'expected-config-digest': exported['config-digest'] ?? '' });
    const loaded = await stepOn(service, podman, 'load-image', expected);
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({
      image: 'charon:local',
      'image-id': exported['config-digest'],
      loaded: 'true',
    });
    expect(loaded.leftInTemp).toEqual([]);
    expect(names()).toEqual(['localhost/charon:local']);
    expect(`sha256:${idOf('charon:local')}`).toBe(exported['config-digest']);
    expect(podman.readImageFile('charon:local', '/bin/busybox').length).toBeGreaterThan(100_000);

    const again = await stepOn(service, podman, 'load-image', expected);
    expect(again.outputs).toMatchObject({ loaded: 'false', size: '0' });
  });

  test('every reference of the image is present (S2.7)', async () => {
    await publish(service, artifactOf(image, ['charon:local', 'ghcr.io/org/charon:1', 'charon:two']));
    const loaded = await stepOn(service, podman, 'load-image', withPodman());
    expect(loaded.log).not.toContain('::error');
    expect(names()).toEqual(['ghcr.io/org/charon:1', 'localhost/charon:local', 'localhost/charon:two']);
    expect(new Set(names().map(idOf)).size).toBe(1);
  });

  test('an earlier image with the same full name keeps its name', async () => {
    buildWithPodman('docker.io/library/charon:local', 'the older one');
    const older = idOf('docker.io/library/charon:local');
    await handOverMade(service, image);
    const loaded = await stepOn(service, podman, 'load-image', withPodman());
    expect(loaded.log).not.toContain('::error');
    expect(idOf('docker.io/library/charon:local')).toBe(older);
    expect(`sha256:${idOf('charon:local')}`).toBe(image.configDigest);
  });

  test('a damaged blob is an error, and the tag is restored to the old image', async () => {
    buildWithPodman('charon:local', 'the older one');
    const older = idOf('charon:local');
    await handOverMade(service, image);
    await service.blobs.flipByte(service.artifacts[0]?.blob ?? '', 1_000_000);
    const loaded = await stepOn(service, podman, 'load-image', withPodman());
    expect(errorCode(loaded)).toBe('artifact-corrupt');
    expect([...loaded.leftInTemp, ...podman.leftInTemp()]).toEqual([]);
    expect(names()).toEqual(['localhost/charon:local']);
    expect(idOf('charon:local')).toBe(older);
  });

  test('an image that was swapped during the transfer into the store is detected, and its tag is removed (S0.4)', async () => {
    buildWithPodman('charon:local', 'the wrong one');
    const wrong = join(engines.directory, 'wrong.tar');
    podman.podman('save', '--output', wrong, 'charon:local');
    podman.podman('image', 'rm', 'charon:local');
    await handOverMade(service, image);
    const bin = join(engines.directory, 'swap');
    mkdirSync(bin, { recursive: true });
    const real = '/usr/bin/podman';
    // Every name of the loaded image is moved to another image.
    writeFileSync(
      join(bin, 'podman'),
      `#!/bin/sh
set -e
[ "$1" = load ] || exec ${real} "$@"
cat > ${bin}/given.tar
name=$(tar -xOf ${bin}/given.tar manifest.json | grep -o 'image-handover.invalid/[^"]*')
${real} load --quiet --input ${wrong} > /dev/null
${real} tag charon:local "$name"
${real} untag "$name" charon:local
echo "Loaded image: $name"
`,
    );
    chmodSync(join(bin, 'podman'), 0o755);
    const swapped = { env: { ...podman.env, PATH: [bin, process.env['PATH'] ?? ''].join(delimiter) } };
    const loaded = await stepOn(service, swapped, 'load-image', withPodman());
    expect(errorCode(loaded)).toBe('image-mismatch');
    expect(names()).toEqual([]);
  });
});

describe('from podman', () => {
  const forms = [
    ['oci', 'classic'],
    ['oci', 'containerd'],
    ['docker', 'containerd'],
    ['docker', 'classic'],
  ] as const;
  test.each(shareOf(forms, 0, 2))(
    'an image that podman built in the %s format runs on the %s store, with the same config (S2.1)',
    async (format, store) => {
      buildWithPodman('charon:built', `from podman, ${format}`, format);
      const inputs = exportPodman({ 'source-image': 'charon:built', image: 'charon:local' });
      const exported = await stepOn(service, podman, 'export-image', inputs);
      expect(exported.log).not.toContain('::error');
      expect(exported.leftInTemp).toEqual([]);
      expect(exported.outputs['config-digest']).toBe(`sha256:${idOf('charon:built')}`);
      expect(names()).toEqual(['localhost/charon:built']);

      const { docker } = engines[store];
      const loaded = await stepOn(service, engines[store], 'load-image', {});
      expect(loaded.log).not.toContain('::error');
      expect(docker('run', '--rm', '--network=none', 'charon:local')).toBe(`from podman, ${format}`);
      const config = docker('image', 'inspect', '--format', '{{json .Config}}', 'charon:local');
      expect(config.includes('Healthcheck')).toBe(format === 'docker');
      docker('image', 'rm', 'charon:local');
    },
  );

  test('an image is handed over from podman to podman with unchanged layers (S2.1)', async () => {
    buildWithPodman('localhost/charon:built', 'round trip');
    const id = idOf('charon:built');
    const inputs = exportPodman({ 'source-image': 'charon:built', compression: 'uncompressed' });
    const exported = await stepOn(service, podman, 'export-image', inputs);
    expect(exported.log).not.toContain('::error');
    podman.podman('image', 'rm', '--all', '--force');
    const loaded = await stepOn(service, podman, 'load-image', withPodman());
    expect(loaded.log).not.toContain('::error');
    expect(names()).toEqual(['localhost/charon:built']);
    expect(idOf('charon:built')).toBe(id);
    expect(podman.readImageFile('charon:built', '/text').toString()).toBe('round trip');
  });

  test('podman loads Docker archives of one and of two images whose layers aren’t named by their digests (S2.7)', async () => {
    buildWithPodman('localhost/one:1', 'one');
    buildWithPodman('localhost/two:1', 'two');
    const before = ['one:1', 'two:1'].map(idOf);
    const archives = [['one:1'], ['one:1', 'two:1']].map((images) => {
      const file = join(engines.directory, `archive-${String(images.length)}.tar`);
      podman.podman('save', '--multi-image-archive', '--format', 'docker-archive', '--output', file, ...images);
      return { images, tarball: readFileSync(file) };
    });
    for (const { images, tarball } of archives) {
      podman.podman('image', 'rm', '--all', '--force');
      await publish(service, { tarball, record: undefined });
      const loaded = await stepOn(service, podman, 'load-image', withPodman());
      expect(loaded.log).not.toContain('::error');
      expect(names()).toEqual(images.map((name) => `localhost/${name}`));
      expect(images.map(idOf)).toEqual(before.slice(0, images.length));
    }
  }, 120_000);

  test('a missing tag is an error that lists similar tags, and no artifact is uploaded (S2.3)', async () => {
    buildWithPodman('charon:pr-2', 'near');
    const outcome = await stepOn(service, podman, 'export-image', exportPodman({ 'source-image': 'charon:pr-1' }));
    expect(errorCode(outcome)).toBe('image-not-found');
    expect(errorMessage(outcome)).toContain('It has localhost/charon:pr-2.');
    expect(outcome.outputs).toEqual({ 'run-integration': 'false' });
    expect(service.artifacts).toEqual([]);
    expect(existsSync(join(engines.directory, 'podman.tar.partial'))).toBe(false);
  });
});
