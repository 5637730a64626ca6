import { describe, expect, test } from '@jest/globals';
import { buildInputs as build, exportFacts as facts, exportInputs as defaults } from '../fixtures/export-inputs.ts';
import type { BakeInputs, ExportInputs } from '../../export-image/inputs.ts';
import {
  bakeArguments,
  bakeCacheArguments,
  bakePrintArguments,
  type BakeSource,
  planBake,
} from '../../export-image/plan/bake.ts';
import { describeSource, planExport } from '../../export-image/plan/plan.ts';
import { namedTargets } from '../../export-image/source/from-bake.ts';
import { type BakeTarget, parseBakeFile } from '../../shared/docker/buildx.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatReference } from '../../shared/image/reference.ts';

const nothing: BakeInputs = { targets: [], files: [], set: [], workdir: undefined };
// The defaults of action.yml.
const inputs: ExportInputs = { ...defaults, build: { ...build, context: '.' } };
const plan = (bake: Partial<BakeInputs>, change: Partial<ExportInputs> = {}): BakeSource | undefined =>
  planBake({ ...inputs, ...change, bake: { ...nothing, ...bake } });

describe('the selection of bake targets', () => {
  test('no targets are selected when no bake file is requested', () => {
    expect(plan({})).toBeUndefined();
  });

  test('the named targets are selected, or the default targets of buildx when none is named', () => {
    expect(plan({ targets: ['api', 'web'] })?.targets).toEqual(['api', 'web']);
    expect(plan({ files: ['compose.yaml'] })?.targets).toEqual(['default']);
  });

  test('the plan has no reference because the bake file names the images', () => {
    const planned = planExport({ ...inputs, bake: { ...nothing, targets: ['api'] } }, facts);
    expect(planned).toMatchObject({ kind: 'bake', reference: undefined, tags: [] });
    expect(describeSource(planned.source)).toBe('the targets api of a bake file');
  });

  test.each(['--print', 'https://example.com/repo.git', 'a b', '../x'])(
    'a text that is not a target name is refused: %s',
    (name) => {
      expect(() => plan({ targets: [name] })).toThrow(`"${name}" in \`bake-targets\` is not a valid name of a target`);
    },
  );

  test.each<readonly [string, Partial<BakeInputs>, string, readonly string[]]>([
    ['the workspace', { files: ['compose.yaml'] }, '.', ['compose.yaml']],
    ['the folder of a compose file', { files: ['deploy/compose.yaml'] }, 'deploy', ['compose.yaml']],
    [
      'the folder of the first of several compose files',
      { files: ['cwd://deploy/compose.yaml', 'more/dev.YML', '/a/b.yml'] },
      'deploy',
      ['compose.yaml', '../more/dev.YML', '/a/b.yml'],
    ],
    ['the workspace for a bake file', { files: ['deploy/bake.hcl'] }, '.', ['deploy/bake.hcl']],
    [
      'the workspace for a compose file next to a bake file',
      { files: ['deploy/compose.yaml', 'bake.json'] },
      '.',
      ['deploy/compose.yaml', 'bake.json'],
    ],
    ['`workdir`', { files: ['deploy/compose.yaml'], workdir: '.' }, '.', ['deploy/compose.yaml']],
    ['`workdir` without files', { targets: ['api'], workdir: 'deploy' }, 'deploy', []],
  ])('bake runs in %s', (_, bake, workdir, files) => {
    expect(plan(bake)).toMatchObject({ workdir, files });
  });

  test('`workdir` without a bake file is refused', () => {
    expect(() => plan({ workdir: 'deploy' })).toThrow('`workdir` is "deploy", but there is no bake file');
  });

  test.each<readonly [string, Partial<ExportInputs>]>([
    ['image', { image: 'app:local' }],
    ['tags', { tags: 'auto' }],
    ['branch-label', { branchLabel: 'io.branch' }],
    ['source-image', { sourceImage: 'a:1' }],
    ['source-tarball', { sourceTarball: 'a.tar' }],
    ['source-layout', { sourceLayout: 'a' }],
    ['further-images', { furtherImages: ['a:1'] }],
    ['push', { push: { ...inputs.push, enabled: true } }],
    ['engine', { engine: 'podman' }],
    ['context', { build: { ...inputs.build, context: 'app' } }],
    ['file', { build: { ...inputs.build, file: 'x' } }],
    ['target', { build: { ...inputs.build, target: 'x' } }],
    ['build-args', { build: { ...inputs.build, buildArgs: ['a=b'] } }],
    ['build-contexts', { build: { ...inputs.build, buildContexts: ['a=b'] } }],
    ['labels', { build: { ...inputs.build, labels: ['a=b'] } }],
    ['secrets', { build: { ...inputs.build, secrets: ['a=b'] } }],
    ['secret-files', { build: { ...inputs.build, secretFiles: ['a=b'] } }],
    ['secret-envs', { build: { ...inputs.build, secretEnvs: ['a=b'] } }],
    ['ssh', { build: { ...inputs.build, ssh: ['default'] } }],
    ['cache-from', { build: { ...inputs.build, cacheFrom: ['type=gha'] } }],
    ['cache-to', { build: { ...inputs.build, cacheTo: ['type=gha'] } }],
    ['network', { build: { ...inputs.build, network: 'host' } }],
    ['add-hosts', { build: { ...inputs.build, addHosts: ['a:1'] } }],
    ['shm-size', { build: { ...inputs.build, shmSize: '1g' } }],
    ['ulimit', { build: { ...inputs.build, ulimit: ['a=1'] } }],
  ])('`%s` is refused because bake would ignore it', (name, change) => {
    expect(() => plan({ targets: ['api'] }, change)).toThrow(`\`${name}\` is given together with a bake file`);
  });
});

describe('the arguments of buildx bake', () => {
  const source: BakeSource = {
    kind: 'bake',
    targets: ['default'],
    files: ['compose.yaml', 'docker-bake.hcl'],
    workdir: '.',
    set: ['*.args.V=1', 'api.tags=x', '*.platform=linux/s390x', 'web.output=type=tar,dest=x'],
    builder: 'big',
    noCache: true,
    pull: true,
    allow: ['network.host'],
  };

  test('the arguments for a preview of the build contain all overrides', () => {
    expect(bakePrintArguments(source)).toEqual([
      ...['--file', 'compose.yaml', '--file', 'docker-bake.hcl'],
      ...source.set.flatMap((item) => ['--set', item]),
      ...['--print', '--', 'default'],
    ]);
  });

  test('the arguments build each target into its own folder, and override the names, platform and outputs of the file', () => {
    const compression = { format: 'zstd', level: 1 } as const;
    const layout = { kind: 'oci-layout', directory: '/tmp/a,b', compression } as const;
    const outputs = [
      { target: 'api', name: 'baked:0', exporter: layout },
      { target: 'web', name: 'baked:1', exporter: 'engine' },
    ] as const;
    expect(bakeArguments(source, parsePlatform('linux/arm64'), outputs, { written: '/tmp', caches: [] })).toEqual([
      ...['--builder', 'big', '--file', 'compose.yaml', '--file', 'docker-bake.hcl'],
      ...['--set', '*.args.V=1', '--set', '*.platform=linux/arm64'],
      ...['--set', 'api.tags=baked:0'],
      ...['--set', 'api.output=type=oci,tar=false,compression=zstd,compression-level=1,"dest=/tmp/a,b"'],
      ...['--set', 'web.tags=baked:1', '--set', 'web.output=type=docker'],
      ...['--provenance=false', '--sbom=false', '--no-cache', '--pull'],
      ...['--allow', 'network.host', '--allow', 'fs.write=/tmp', '--', 'api', 'web'],
    ]);
  });
});

test('the arguments allow reading and writing the workspace from any folder that bake runs in', () => {
  const source = plan({ files: ['deploy/app/compose.yaml'] });
  if (source === undefined) throw new Error('there is no plan');
  const platform = parsePlatform('linux/amd64');
  expect(bakeArguments(source, platform, [], { written: '/tmp', caches: [] }).join(' ')).toContain(
    '--allow fs=../.. --allow fs.write=/tmp',
  );
  const caches = [{ target: 'api', cacheTo: ['type=gha'] }];
  expect(bakeCacheArguments(source, platform, 'api', caches).join(' ')).toContain('--allow fs=../..');
});

describe('the images of a bake file', () => {
  const target = (name: string, definition: string, ...tags: readonly string[]): BakeTarget => ({
    name,
    definition,
    tags,
  });
  const images = (...targets: readonly BakeTarget[]): readonly (readonly [string, readonly string[]])[] =>
    namedTargets(targets).map(({ name, references }) => [name, references.map(formatReference)]);

  test('targets with the same name and the same build are one image, in the position of the first, with all names', () => {
    const [web, api, worker] = [
      target('web', '1', 'a:1'),
      target('api', '2', 'b:1'),
      target('worker', '1', 'a:1', 'a:2'),
    ];
    expect(images(web, api, worker)).toEqual([
      ['web', ['a:1', 'a:2']],
      ['api', ['b:1']],
    ]);
  });

  test('two targets with different names are one image when a third target has both names', () => {
    expect(images(target('a', '1', 'a:1'), target('b', '1', 'b:1'), target('c', '1', 'b:1', 'a:1'))).toEqual([
      ['a', ['a:1', 'b:1']],
    ]);
  });

  test('targets with the same build but different names are separate images', () => {
    expect(images(target('a', '1', 'a:1'), target('b', '1', 'b:1'))).toHaveLength(2);
  });

  test('two builds with the same name cause an error that names both targets', () => {
    expect(() => images(target('a', '1', 'a:1'), target('b', '1', 'b:1'), target('c', '2', 'x:1', 'b:1'))).toThrow(
      'b:1 is the name of the targets b and c, which are built differently.',
    );
  });
});

describe('the output of buildx bake --print', () => {
  const json = JSON.stringify({
    group: { default: { targets: ['all', 'db'] }, all: { targets: ['web', 'api', 'web'] }, db: { targets: ['db'] } },
    target: { api: { tags: ['api:1', 'api:2'] }, web: { tags: ['web:1'] }, db: {}, base: { tags: ['base:1'] } },
  });
  const [api, web, db] = [
    { name: 'api', tags: ['api:1', 'api:2'], definition: '{}' },
    { name: 'web', tags: ['web:1'], definition: '{}' },
    { name: 'db', tags: [], definition: '{}' },
  ];

  test.each([
    ['contains a target', ['api'], [api]],
    [
      'contains the targets of nested groups, each target once, even a target with the same name as its group',
      ['default'],
      [web, api, db],
    ],
    ['contains targets in the requested order', ['db', 'api', 'default'], [db, api, web]],
    ['is rejected when a requested target is missing', ['api', 'nope'], undefined],
  ])('the output of buildx bake --print %s', (_, names, expected) => {
    expect(parseBakeFile(json, names)).toEqual(expected);
  });

  test.each(['', 'null', '[]', '{}', '{"target":[]}', '{"target":{"api":1}}', '{"group":{"api":{}},"target":{}}'])(
    'an output that is not a bake file is rejected: %s',
    (text) => {
      expect(parseBakeFile(text, ['api'])).toBeUndefined();
    },
  );
});

test('the cache of a target is written without rebuilding, and without the caches of other targets (B.12)', () => {
  const source: BakeSource = {
    ...{ kind: 'bake', targets: ['app'], files: [], set: ['*.no-cache=true'], builder: undefined, allow: [] },
    ...{ workdir: '.', noCache: true, pull: true },
  };
  const caches = [
    { target: 'app', cacheTo: ['type=gha'] },
    { target: 'base', cacheTo: [] },
  ];
  const args = bakeCacheArguments(source, parsePlatform('linux/arm64'), 'app', caches);
  expect(args.filter((arg) => arg.includes('cache'))).toEqual([
    '*.no-cache=true',
    'app.output=type=cacheonly',
    '*.no-cache=false',
    '*.no-cache-filter=image-handover-none',
    'app.cache-to=type=gha',
    'base.cache-to=',
  ]);
  expect(args).toContain('*.pull=false');
  expect(args.at(-1)).toBe('app');
});
