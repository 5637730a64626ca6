import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { projectRoot } from '../../dev/action-runner.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const sources = globSync('{export-image,load-image,publish-image,handover,shared}/**/*', {
  cwd: projectRoot,
  withFileTypes: true,
})
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name));

interface Step {
  readonly id?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly needs?: string | readonly string[];
  readonly if?: string;
  readonly outputs?: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
}

/** The jobs of each complete workflow in the README, the recipes and the examples, and of this project's CI. */
const workflows: readonly (readonly [string, Readonly<Record<string, Job>>])[] = [
  ...['README.md', 'docs/recipes.md'].flatMap((file) =>
    [...read(file).matchAll(/```yaml\n((?:[^`]*\n)?jobs:\n[\s\S]*?)```/g)].map(
      ([, text = ''], at) => [`${file}, workflow ${String(at + 1)}`, parse(text).jobs] as const,
    ),
  ),
  ...['examples/**/*.yml', '.github/workflows/*.yml']
    .flatMap((pattern) => globSync(pattern, { cwd: projectRoot }))
    .filter((path) => parse(read(path)).jobs !== undefined)
    .map((path) => [path, parse(read(path)).jobs] as const),
];
const usesOf = (job: Job): readonly string[] => job.steps.flatMap(({ uses }) => uses ?? []);
const loads = ({ uses = '' }: Step): boolean => /\/load-image(?:@|$)/.test(uses);

describe('the requirements of the card', () => {
  test('only TypeScript, with the agreed packages, all of which are used (C.1)', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json'));
    expect(Object.keys(dependencies)).toEqual(
      expect.arrayContaining(['@actions/core', '@actions/artifact', '@actions/exec']),
    );
    expect(Object.keys(devDependencies)).toEqual(expect.arrayContaining(['@vercel/ncc', 'jest', 'typescript']));
    const code = sources.filter((path) => !/\.(?:md|yml)$/.test(path));
    expect(code.length).toBeGreaterThan(50);
    expect(code.filter((path) => !path.endsWith('.ts'))).toEqual([]);
    const text = code.map((path) => readFileSync(path, 'utf8')).join('\n');
    for (const name of ['core', 'artifact', 'exec']) expect(text).toMatch(new RegExp(`['"]@actions/${name}['"]`));
    expect(read('dev/build.ts')).toContain('@vercel/ncc');
    expect(read('dev/test.ts')).toContain('jest');
  });

  test('the top level has the agreed files and folders (C.2)', () => {
    expect(readdirSync(projectRoot)).toEqual(
      expect.arrayContaining([
        ...['package.json', 'tsconfig.json', 'action.yml'],
        ...['export-image', 'load-image', 'shared', 'dist', '__tests__'],
      ]),
    );
  });

  test.each(['export-image', 'load-image', '.'])('%s has its entry file in the repository (C.6)', (folder) => {
    const { runs } = parse(read(join(folder, 'action.yml')));
    expect(runs.using).toBe('node24');
    const entry = join(projectRoot, folder, runs.main);
    expect(existsSync(entry)).toBe(true);
    expect(dirname(dirname(entry))).toBe(join(projectRoot, 'dist'));
  });

  test('the README’s first workflow exports in the build job and loads in each integration job (C.6)', () => {
    const [where, jobs] = workflows[0] ?? ['', {}];
    expect(where).toBe('README.md, workflow 1');
    expect(Object.keys(jobs)).toEqual(['build', 'integration']);
    const [build, integration] = Object.values(jobs).map(usesOf);
    expect(build).toContain('org/image-handover/export-image@v1');
    expect(integration).toContain('org/image-handover/load-image@v1');
  });
});

test('a job that loads requires run-integration to be true, which excludes the empty output of a skipped build (S2.6)', () => {
  const consumers = workflows.flatMap(([where, jobs]) =>
    Object.values(jobs)
      .filter((job) => job.steps.some(loads))
      .flatMap((job) => [job.needs ?? []].flat().map((name) => ({ where, job, name, producer: jobs[name] })))
      .filter(({ producer }) => producer?.outputs?.['run-integration'] !== undefined),
  );
  expect(consumers.length).toBeGreaterThanOrEqual(3);
  for (const { where, job, name, producer } of consumers) {
    const condition = job.if ?? '';
    expect([where, condition]).toEqual([
      where,
      expect.stringContaining(`needs.${name}.outputs.run-integration == 'true'`),
    ]);
    expect(producer?.outputs?.['run-integration']).toBe('${{ steps.export.outputs.run-integration }}');
    expect(producer?.steps.find(({ id }) => id === 'export')?.uses).toMatch(/\/export-image(?:@v1)?$/);
  }
});

test('no job that loads an artifact logs in to a registry or pulls an image (S0.5)', () => {
  const loading = workflows.flatMap(([, jobs]) =>
    Object.values(jobs).filter(({ steps }) => steps.some((step) => loads(step) && step.with?.['from'] === undefined)),
  );
  expect(loading.length).toBeGreaterThanOrEqual(3);
  for (const { steps } of loading) {
    for (const { uses = '', run = '' } of steps) {
      expect(uses).not.toContain('login-action');
      expect(run).not.toMatch(/docker (?:login|pull)/);
    }
  }
});
