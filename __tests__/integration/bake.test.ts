import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { EngineClient } from '../../dev/docker-engine.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import {
  type Engines,
  type Inputs,
  namesOn,
  oneOf,
  startArtifactService,
  startEngines,
  stores,
  stepOn,
} from '../fixtures/engines.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// A compose project and a bake file: each builds several images together and exports them in one artifact.

let engines: Engines;
let service: ArtifactService;
beforeAll(async () => {
  engines = await startEngines();
  mkdirSync(join(engines.directory, 'project', 'deploy'), { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(place(name), content);
});
afterAll(() => engines.stop());
beforeEach(async () => void (service = await startArtifactService()));
afterEach(async () => {
  await service.close();
  for (const engine of [engines.classic, engines.containerd]) engine.docker('system', 'prune', '-af');
});

const baseBytes = 3_000_000;
const services = ['api', 'web', 'worker'] as const;
const files: Readonly<Record<string, string | Buffer>> = {
  'base.bin': randomBytes(baseBytes),
  'text.txt': 'some text\n',
  Dockerfile: [
    'FROM scratch AS base',
    'COPY base.bin /base.bin',
    ...services.flatMap((name) => [
      `FROM base AS ${name}`,
      `LABEL name=${name}`,
      `COPY text.txt /${name}.txt`,
      'CMD ["/x"]',
    ]),
    '',
  ].join('\n'),
  'compose.yaml': [
    'services:',
    ...services.flatMap((name) => [
      `  ${name}:`,
      `    image: project-${name}:local`,
      `    build: {context: ., target: ${name}}`,
    ]),
    '  database:',
    '    image: postgres:17',
    '',
  ].join('\n'),
  // A web and a worker service that share one image.
  'same.yaml': [
    'services:',
    '  web: {image: "pair:local", build: {context: ., target: web}}',
    '  worker: {image: "pair:local", command: worker, build: {context: ., target: web}}',
    '',
  ].join('\n'),
  'differing.yaml': [
    'services:',
    '  web: {image: "pair:local", build: {context: ., target: web}}',
    '  other: {image: "other:local", build: {context: ., target: api}}',
    '  worker: {image: "pair:local", build: {context: ., target: worker}}',
    '',
  ].join('\n'),
  'further-names.yaml': [
    'services:',
    '  web:',
    '    image: web:1',
    '    build: {context: ., target: web, tags: ["web:extra"], x-bake: {tags: ["web:baked"]}}',
    '  api: {build: {context: ., target: api, tags: ["api:extra"]}}',
    '  worker: {image: "worker:1", build: .}',
    '',
  ].join('\n'),
  // `docker compose` resolves paths relative to the file.
  'deploy/compose.yaml': [
    'services:',
    '  web:',
    '    image: "deployed:${VERSION:-none}"',
    '    build: {context: .., target: web, dockerfile: Dockerfile}',
    '',
  ].join('\n'),
  'deploy/.env': 'VERSION=7\n',
  // `docker buildx bake` resolves paths relative to its working directory.
  'deploy/from-root.yaml': 'services: {web: {image: "rooted:1", build: {context: ., target: web}}}\n',
  'docker-bake.hcl': [
    'group "both" { targets = ["one", "two"] }',
    'target "one" {',
    '  target = "api"',
    '  tags = ["one:local", "one:other"]',
    '  platforms = ["linux/s390x", "linux/arm64"]',
    '  output = ["type=image"]',
    '}',
    'target "two" {',
    '  target = "web"',
    '  tags = ["Two:local"]',
    '}',
    'target "nameless" { target = "web" }',
    'target "twin" {',
    '  target = "web"',
    '  tags = ["one:other"]',
    '}',
    '',
  ].join('\n'),
};
const place = (name: string): string => join(engines.directory, 'project', name);

const exportOn = (engine: EngineClient, inputs: Inputs): Promise<StepOutcome> =>
  stepOn(
    service,
    engine,
    'export-image',
    { tarball: join(engines.directory, 'charon.tar'), ...inputs },
    {},
    { cwd: join(engines.directory, 'project') },
  );
const loadOn = (engine: EngineClient, inputs: Inputs = {}): Promise<StepOutcome> =>
  stepOn(service, engine, 'load-image', inputs);

describe.each(oneOf(stores, 1))('built on the %s store', (store) => {
  const other = store === 'classic' ? 'containerd' : 'classic';

  test('a compose project’s images are handed over together under their names in the file, and shared layers are sent once (B.6)', async () => {
    const exported = await exportOn(engines[store], { 'bake-files': 'compose.yaml' });
    expect(exported.log).not.toContain('::error');
    expect(exported.outputs['image']).toBe('project-api:local');
    expect(Number(exported.outputs['tarball-size'])).toBeLessThan(baseBytes + 200_000);
    expect(exported.outputs['executed-steps']).toBe('4');
    // The built images are in the artifact only; no engine keeps them.
    expect(namesOn(engines[store])).toEqual([]);

    const loaded = await loadOn(engines[other]);
    expect(loaded.log).not.toContain('::error');
    expect(namesOn(engines[other])).toEqual(services.map((name) => `project-${name}:local`));
    for (const name of services) {
      const label = engines[other].docker(
        ...['image', 'inspect', '--format', '{{.Config.Labels.name}}', `project-${name}:local`],
      );
      expect(label.trim()).toBe(name);
    }
    // The shared layer was transferred once.
    expect(Number(loaded.outputs['size'])).toBeLessThan(baseBytes + 200_000);
  });
});

describe.each(oneOf(stores, 0))('also built on the %s store', (store) => {
  const other = store === 'classic' ? 'containerd' : 'classic';

  test('a bake file’s group is exported under all of its names, for the requested platform (B.6)', async () => {
    const exported = await exportOn(engines[store], { 'bake-targets': 'both', 'bake-set': 'two.labels.set=yes' });
    expect(exported.log).not.toContain('::error');
    expect(exported.outputs['platform']).toBe('linux/amd64');
    const loaded = await loadOn(engines[other]);
    expect(loaded.log).not.toContain('::error');
    expect(namesOn(engines[other])).toEqual(['one:local', 'one:other', 'two:local']);
    expect(
      engines[other].docker('image', 'inspect', '--format', '{{index .Config.Labels "set"}}', 'two:local').trim(),
    ).toBe('yes');
  });
});

test.each(oneOf(stores, 1))(
  'two services with the same image and the same build are built and handed over once, on the %s store',
  async (store) => {
    const exported = await exportOn(engines[store], { 'bake-files': 'same.yaml' });
    expect(exported.log).not.toContain('::error');
    expect(exported.outputs['image']).toBe('pair:local');
    const loaded = await loadOn(engines.containerd);
    expect(loaded.log).not.toContain('::error');
    expect(namesOn(engines.containerd)).toEqual(['pair:local']);
  },
);

test('a service is handed over under its `image`, even if its build has other tags', async () => {
  const exported = await exportOn(engines.containerd, { 'bake-files': 'further-names.yaml' });
  expect(exported.log).not.toContain('::error');
  const loaded = await loadOn(engines.classic);
  expect(loaded.log).not.toContain('::error');
  expect(namesOn(engines.classic)).toEqual(['api:extra', 'web:1', 'web:baked', 'web:extra', 'worker:1']);
});

test('the `image` of a compose file that buildx finds by default also counts', async () => {
  const cwd = join(engines.directory, 'found');
  mkdirSync(cwd, { recursive: true });
  writeFileSync(join(cwd, 'Dockerfile'), 'FROM scratch\nCOPY Dockerfile /d\n');
  writeFileSync(
    join(cwd, 'compose.yaml'),
    'services: {web: {image: "web:1", build: {context: ., tags: ["web:extra"]}}}\n',
  );
  const inputs = { tarball: join(engines.directory, 'charon.tar'), 'bake-targets': 'web' };
  const exported = await stepOn(service, engines.containerd, 'export-image', inputs, {}, { cwd });
  expect(exported.log).not.toContain('::error');
  await loadOn(engines.classic);
  expect(namesOn(engines.classic)).toEqual(['web:1', 'web:extra']);
});

test.each([
  [
    'a compose file’s paths and .env are read from its own folder',
    { 'bake-files': 'deploy/compose.yaml' },
    'deployed:7',
  ],
  ['bake runs in `workdir`', { 'bake-files': 'compose.yaml', workdir: 'deploy' }, 'deployed:7'],
  [
    'a compose file’s paths are read from the workspace with `workdir: .`',
    { 'bake-files': 'deploy/from-root.yaml', workdir: '.' },
    'rooted:1',
  ],
])('%s', async (_, inputs, name) => {
  const exported = await exportOn(engines.containerd, inputs);
  expect(exported.log).not.toContain('::error');
  expect(exported.outputs['image']).toBe(name);
});

test('the joined action builds a compose project once, and the engines of both jobs have its images', async () => {
  const inputs = { 'bake-files': 'compose.yaml', tarball: join(engines.directory, 'charon.tar') };
  const more = { cwd: join(engines.directory, 'project') };
  for (const store of ['classic', 'containerd'] as const) {
    const outcome = await stepOn(service, engines[store], '.', inputs, {}, more);
    expect(outcome.log).not.toContain('::error');
    expect(namesOn(engines[store])).toEqual(services.map((name) => `project-${name}:local`));
  }
  expect(service.artifacts.map(({ name }) => name)).toEqual(['docker-image']);
});

test.each([
  ['a missing target', { 'bake-targets': 'nope' }, 'nope'],
  ['a missing file', { 'bake-files': 'nope.hcl' }, 'nope.hcl'],
  ['a target without a name', { 'bake-targets': 'nameless' }, 'nameless has no tags'],
  [
    'a name that two targets share',
    { 'bake-targets': 'one,twin' },
    'one:other is the name of the targets one and twin',
  ],
  [
    'two services with the same image and different builds',
    { 'bake-files': 'differing.yaml' },
    'pair:local is the name of the targets web and worker',
  ],
  ['a missing `workdir`', { 'bake-files': 'compose.yaml', workdir: 'nowhere' }, 'nowhere'],
])('%s is reported before anything is built', async (_, inputs, told) => {
  const outcome = await exportOn(engines.containerd, inputs);
  expect(errorCode(outcome)).toBe('invalid-input');
  expect(errorMessage(outcome)).toContain(told);
  expect(outcome.outputs['run-integration']).toBe('false');
  expect(service.artifacts).toEqual([]);
  expect(outcome.leftInTemp).toEqual([]);
});

test('a target that fails to build ends the export with BuildKit’s own message, and nothing is left behind', async () => {
  writeFileSync(
    place('broken.hcl'),
    'target "broken" {\n  dockerfile-inline = "FROM scratch\\nCOPY nope /"\n  tags = ["b:1"]\n}\n',
  );
  const outcome = await exportOn(engines.containerd, { 'bake-files': 'broken.hcl', 'bake-targets': 'broken' });
  expect(errorCode(outcome)).toBe('build-failed');
  expect(errorMessage(outcome)).toContain('docker buildx bake failed');
  expect(service.artifacts).toEqual([]);
  expect(outcome.leftInTemp).toEqual([]);
});
