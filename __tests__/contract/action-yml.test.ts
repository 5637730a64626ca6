import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { projectRoot } from '../../dev/action-runner.ts';
import { readEntries, updateDocs } from '../../dev/docs.ts';
import { readExportInputs } from '../../export-image/inputs.ts';
import { readJoinedInputs } from '../../joined/inputs.ts';
import { readImagesInputs } from '../../load-image/inputs.ts';
import { readPublishInputs } from '../../publish-image/inputs.ts';
import { errorCodes } from '../../shared/base/errors.ts';
import type { Inputs } from '../../shared/runner/inputs.ts';
import { readTimeLimit } from '../../shared/runner/run.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const names = (file: string, kind: string): readonly string[] =>
  readEntries(file, kind)
    .map(({ name }) => name)
    .sort();

/** Returns the inputs that the readers read, sorted, and the method for each. */
function readInputs(...readers: readonly ((inputs: Inputs) => unknown)[]): ReadonlyMap<string, keyof Inputs> {
  const found = new Map<string, keyof Inputs>();
  const reading =
    <Value>(method: keyof Inputs, value: Value) =>
    (name: string): Value => {
      found.set(name, method);
      return value;
    };
  const inputs: Inputs = {
    text: reading('text', 'x'),
    optional: reading('optional', undefined),
    unlessNone: reading('unlessNone', undefined),
    orNone: reading('orNone', undefined),
    listOrNone: reading('listOrNone', []),
    boolean: reading('boolean', false),
    integer: reading('integer', 1),
    decimal: reading('decimal', 1),
    lines: reading('lines', []),
    list: reading('list', []),
    secrets: reading('secrets', []),
    secretFiles: reading('secretFiles', []),
    secretEnvs: reading('secretEnvs', []),
  };
  for (const reader of readers) reader(inputs);
  return new Map([...found].sort(([one], [other]) => (one < other ? -1 : 1)));
}
const writtenOutputs = (file: string): readonly string[] =>
  [
    ...new Set(
      [...read(file).matchAll(/^ {4}(?:'([a-z-]+)'|([a-z]+))(?::|,)/gm)].map(
        ([, quoted, bare]) => quoted ?? bare ?? '',
      ),
    ),
  ].sort();

const ofExport = readInputs(readExportInputs, readTimeLimit);
const ofLoad = readInputs(readImagesInputs, readTimeLimit);
const ofPublish = readInputs(readPublishInputs, readTimeLimit);
const ofJoined = readInputs((inputs) => readJoinedInputs(inputs, 'charon.tar'), readTimeLimit);
const actions = [
  { file: 'export-image/action.yml', inputs: ofExport, outputs: 'export-image/outputs.ts' },
  { file: 'load-image/action.yml', inputs: ofLoad, outputs: 'load-image/outputs.ts' },
  { file: 'publish-image/action.yml', inputs: ofPublish, outputs: 'publish-image/outputs.ts' },
  { file: 'action.yml', inputs: ofJoined, outputs: 'joined/outputs.ts' },
] as const;

describe.each(actions)('$file', ({ file, inputs, outputs }) => {
  test('declares exactly the inputs that the code reads', () => {
    expect(names(file, 'inputs')).toEqual([...inputs.keys()]);
  });

  test('declares exactly the outputs that the code writes', () => {
    expect(names(file, 'outputs')).toEqual(writtenOutputs(outputs));
  });

  test('describes each input and output, has a default for each input, and runs on node24', () => {
    for (const kind of ['inputs', 'outputs']) {
      for (const { description } of readEntries(file, kind)) expect(description.length).toBeGreaterThan(10);
    }
    for (const entry of readEntries(file, 'inputs')) expect(entry.default).toBeDefined();
    expect(parse(read(file)).runs.using).toBe('node24');
  });
});

describe('inputs that switch off a check or select another image if they are absent', () => {
  const ofAnotherRun = ['run-id', 'workflow', 'branch', 'event'];
  const checks = ['expected-config-digest', 'expected-revision'];
  const bake = ['bake-targets', 'bake-files'];
  // An explicitly empty input can be recognized only if its default isn't empty (docs/decisions/0022).
  test.each([
    ['export-image/action.yml', [...bake, 'source-image', 'source-tarball', 'source-layout']],
    ['load-image/action.yml', [...checks, 'artifact-ids', 'registry-image', ...ofAnotherRun, 'repository']],
    ['publish-image/action.yml', [...checks, 'artifact-ids', ...ofAnotherRun, 'run-repository']],
    ['action.yml', bake],
  ] as const)('%s: the code rejects an empty value, and each has the default `none`', (file, expected) => {
    const methods: readonly (keyof Inputs)[] = ['orNone', 'listOrNone', 'unlessNone'];
    const read = actions.find((action) => action.file === file)?.inputs ?? [];
    const found = [...read].flatMap(([name, method]) => (methods.includes(method) ? [name] : []));
    const withNone = readEntries(file, 'inputs').filter((entry) => entry.default === 'none');
    expect(found.sort()).toEqual([...expected].sort());
    expect(withNone.map(({ name }) => name).sort()).toEqual([...expected].sort());
    for (const { description } of withNone) expect(description).toMatch(/`none`|on `branch`|was for/);
  });
});

test('each input of the joined action has the same default as in the other two actions', () => {
  const defaults = (file: string): ReadonlyMap<string, string | undefined> =>
    new Map(readEntries(file, 'inputs').map((entry) => [entry.name, entry.default]));
  const others = new Map([...defaults('load-image/action.yml'), ...defaults('export-image/action.yml')]);
  for (const [name, value] of defaults('action.yml')) expect([name, value]).toEqual([name, others.get(name)]);
});

test('the four actions have at most 125 inputs', () => {
  const counts = actions.map(({ inputs }) => inputs.size);
  expect(counts.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(125);
});

test('the tables in the documentation match action.yml', () => {
  expect(updateDocs(true)).toEqual([]);
});

describe('error codes', () => {
  const headings = [...read('TROUBLESHOOTING.md').matchAll(/^## (.+)$/gm)].map(([, heading]) => heading);
  test('each code has a heading in TROUBLESHOOTING.md, and each heading is a code', () => {
    expect([...headings].sort()).toEqual([...errorCodes].sort());
  });

  test('each code is produced by a scenario', () => {
    const folders = ['scenario', 'faults', 'integration'].map((folder) => join('__tests__', folder));
    const tests = folders
      .flatMap((folder) => readdirSync(join(projectRoot, folder)).map((file) => read(join(folder, file))))
      .join('\n');
    for (const code of errorCodes) expect(tests).toContain(`'${code}'`);
  });
});

describe('examples and snippets', () => {
  const yaml = /```yaml\n([\s\S]*?)```/g;
  const documents = [
    'README.md',
    'docs/recipes.md',
    'docs/how-it-works.md',
    'export-image/README.md',
    'load-image/README.md',
    'publish-image/README.md',
    'joined/README.md',
    'TROUBLESHOOTING.md',
  ];
  const texts = [
    ...documents.flatMap((path) => [...read(path).matchAll(yaml)].map(([, text = '']) => text)),
    ...readdirSync(join(projectRoot, 'examples'), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.yml'))
      .map((path) => read(join('examples', path))),
    read('.github/workflows/ci.yml'),
  ];
  const uses = /uses: (?:org\/image-handover|\.)(\/[a-z-]+)?(?:@v1)?$([\s\S]*?)(?=^\s*- |(?![\s\S]))/gm;

  test('use only inputs that exist', () => {
    const used = texts.flatMap((text) =>
      [...text.matchAll(uses)].map(([, action = '', rest = '']) => ({ action, rest })),
    );
    expect(used.length).toBeGreaterThan(8);
    for (const { action, rest } of used) {
      const declared = names(`${action.slice(1)}${action === '' ? '' : '/'}action.yml`, 'inputs');
      const given = [...rest.matchAll(/^ {10,12}([a-z-]+):/gm)].map(([, name]) => name);
      for (const name of given) expect(declared).toContain(name);
    }
  });

  test('use only outputs that exist', () => {
    const outputs = texts.flatMap((text) =>
      [...text.matchAll(/steps\.export\.outputs\.([a-z-]+)/g)].map(([, name]) => name),
    );
    expect(outputs.length).toBeGreaterThan(3);
    for (const name of outputs) expect(names('export-image/action.yml', 'outputs')).toContain(name);
  });
});
