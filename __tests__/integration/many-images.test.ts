import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { writeNoise } from '../../dev/test-images.ts';
import { engines, service, useEngines } from '../fixtures/engine-suite.ts';
import { halfOf, stores, stepOn } from '../fixtures/engines.ts';

useEngines({ tls: true });

const components = ['engine', 'operate-ui', 'runtime'] as const;

test('three images that share layers are loaded at the same time, run, and have the digests of the mapping (S3.1, S3.2)', async () => {
  for (const name of components) {
    const context = join(engines.directory, name);
    cpSync(engines.rootFilesystem, join(context, 'rootfs'), { recursive: true, verbatimSymlinks: true });
    writeFileSync(join(context, 'app.txt'), name);
    writeFileSync(
      join(context, 'Dockerfile'),
      'FROM scratch\nCOPY rootfs /\nCOPY app.txt /app.txt\nCMD ["cat", "/app.txt"]\n',
    );
    const tarball = join(engines.directory, `${name}.tar`);
    const inputs = { context, image: `${name}:local`, tarball, 'artifact-name': `docker-image-${name}` };
    const exported = await stepOn(service, engines.containerd, 'export-image', inputs);
    expect(exported.log).not.toContain('::error');
  }
  const digests = await stepOn(service, engines.classic, 'load-image', {
    'artifact-name': 'docker-image-*',
    load: 'false',
    'digests-artifact': 'docker-image-digests',
  });
  const mapping: unknown = JSON.parse(digests.outputs['images'] ?? '');
  for (const store of ['classic', 'containerd'] as const) {
    const { docker } = engines[store];
    const references = components.map((name) => `${name}:local`);
    if (store === 'containerd') docker('image', 'rm', '-f', ...references);
    for (const loadedNow of ['true', 'false']) {
      const loaded = await stepOn(service, engines[store], 'load-image', { 'artifact-name': 'docker-image-*' });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['loaded']).toBe(loadedNow);
      expect(JSON.parse(loaded.outputs['images'] ?? '')).toEqual(mapping);
    }
    for (const name of components) expect(docker('run', '--rm', '--network=none', `${name}:local`)).toBe(name);
    docker('image', 'rm', '-f', ...references);
  }
});

test.each(stores)(
  'three images that share a large gzip layer arrive complete on the %s store, and none is sent twice (S3.1)',
  async (to) => {
    const base = join(engines.directory, `gzip-${to}`);
    cpSync(engines.rootFilesystem, join(base, 'rootfs'), { recursive: true, verbatimSymlinks: true });
    writeFileSync(join(base, 'text'), randomBytes(3_000_000).toString('hex'));
    const steps = 'COPY rootfs /\nCOPY text /\nCOPY app.txt /\nCMD ["cat", "/app.txt"]\n';
    writeFileSync(join(base, 'Dockerfile'), `FROM scratch\n${steps}`);
    for (const name of components) {
      writeFileSync(join(base, 'app.txt'), name);
      const more = { image: `${name}:local`, 'artifact-name': `docker-image-${name}`, compression: 'gzip' };
      const inputs = { context: base, tarball: join(engines.directory, 'gzip.tar'), ...more };
      const exported = await stepOn(service, engines.containerd, 'export-image', inputs);
      expect(exported.log).not.toContain('::error');
    }
    const { docker } = engines[to];
    docker('builder', 'prune', '-af');
    const loaded = await stepOn(service, engines[to], 'load-image', { 'artifact-name': 'docker-image-*' });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.log).not.toContain('Sending the whole tarball');
    for (const name of components) {
      expect(docker('run', '--rm', '--network=none', `${name}:local`)).toBe(name);
      docker('save', `${name}:local`, '-o', join(engines.directory, 'saved.tar'));
    }
    docker('system', 'prune', '-af');
  },
);

const pairs = halfOf([
  ['classic', 'containerd'],
  ['containerd', 'classic'],
]);
test.each(pairs)(
  'several images of a %s engine share one artifact, each layer is stored once, and all images are on the %s one (S3.1)',
  async (from, to) => {
    const base = join(engines.directory, `base-${from}`);
    cpSync(engines.rootFilesystem, join(base, 'rootfs'), { recursive: true, verbatimSymlinks: true });
    for (const name of components) {
      writeFileSync(join(base, 'app.txt'), name);
      const steps =
        'COPY rootfs /\nRUN head -c 5000000 /dev/urandom > /noise\nCOPY app.txt /\nCMD ["cat", "/app.txt"]\n';
      writeFileSync(join(base, 'Dockerfile'), `FROM scratch\n${steps}`);
      engines[from].docker('buildx', 'build', '--network=host', '--load', '-t', `${name}:local`, base);
    }
    const [first, ...others] = components.map((name) => `${name}:local`);
    const exported = await stepOn(service, engines[from], 'export-image', {
      'source-image': first ?? '',
      'further-images': others.join('\n'),
      tarball: join(engines.directory, 'several.tar'),
    });
    expect(exported.log).not.toContain('::error');
    expect(Number(exported.outputs['tarball-size'])).toBeLessThan(2 * 5_000_000);
    engines[to].docker('system', 'prune', '-af');
    for (const loadedNow of ['true', 'false']) {
      const loaded = await stepOn(service, engines[to], 'load-image', {});
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs['loaded']).toBe(loadedNow);
      expect(Object.keys(JSON.parse(loaded.outputs['images'] ?? ''))).toEqual([first, ...others]);
    }
    for (const name of components)
      expect(engines[to].docker('run', '--rm', '--network=none', `${name}:local`)).toBe(name);
    // The image that the engine lacks is detected, and all images are sent.
    engines[to].docker('image', 'rm', '-f', others[0] ?? '');
    const again = await stepOn(service, engines[to], 'load-image', {});
    expect(again.outputs['loaded']).toBe('true');
    for (const engine of [engines.classic, engines.containerd]) engine.docker('system', 'prune', '-af');
  },
);

test('three images of 90 MB are loaded at once within 300 MB of memory (S3.1)', async () => {
  const context = join(engines.directory, 'large');
  mkdirSync(context);
  writeNoise(join(context, 'noise'), 90);
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY noise /\n');
  for (const name of components) {
    const inputs = {
      context,
      labels: `component=${name}`,
      image: `${name}:local`,
      tarball: join(engines.directory, 'large.tar'),
      'artifact-name': name,
    };
    const exported = await stepOn(service, engines.containerd, 'export-image', inputs);
    expect(exported.log).not.toContain('::error');
  }
  const loaded = await stepOn(service, engines.classic, 'load-image', { 'artifact-name': components.join('\n') });
  expect(loaded.log).not.toContain('::error');
  expect(loaded.peakMemoryKb).toBeLessThan(300_000);
}, 400_000);
