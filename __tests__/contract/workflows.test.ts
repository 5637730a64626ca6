import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { projectRoot } from '../../dev/action-runner.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const files = globSync('.github/workflows/*.yml', { cwd: projectRoot }).sort();

interface Step {
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly permissions?: unknown;
  readonly 'timeout-minutes'?: unknown;
  readonly steps: readonly Step[];
}

const jobsOf = (path: string): readonly (readonly [string, Job])[] => Object.entries(parse(read(path)).jobs);

test('the repository has the files that reviewers look for', () => {
  expect(files.map((path) => path.replace(/.*\//, ''))).toEqual(
    expect.arrayContaining(['ci.yml', 'codeql.yml', 'probe.yml', 'release.yml']),
  );
  for (const { cooldown } of parse(read('.github/dependabot.yml')).updates)
    expect(cooldown['default-days']).toBeGreaterThanOrEqual(7);
});

test('each action has the same pinned version in workflows, examples and documents', () => {
  const text = globSync(['.github/workflows/*.yml', 'examples/*/*.yml', '**/*.md'], {
    cwd: projectRoot,
    exclude: ['node_modules', 'build', 'docs/draft-for-docker-docs.md'],
  }).map(read);
  const used = [...text.join('\n').matchAll(/^ *(?:- )?uses: ([\w-]+\/[\w./-]+)@(.+)$/gm)].filter(
    ([, action = '']) => !action.startsWith('org/image-handover'),
  );
  const versions = Map.groupBy(used, ([, action]) => action);
  expect(versions.size).toBeGreaterThan(8);
  for (const [action, uses] of versions) {
    const [version, ...others] = new Set(uses.map(([, , rest]) => rest));
    expect([action, version]).toEqual([action, expect.stringMatching(/^[0-9a-f]{40} # v\d+\.\d+\.\d+$/)]);
    expect([action, others]).toEqual([action, []]);
  }
});

describe.each(files)('%s', (path) => {
  test('grants permissions only to jobs, and each job has a timeout', () => {
    expect(parse(read(path)).permissions).toEqual({});
    for (const [name, job] of jobsOf(path)) {
      expect([name, job.permissions]).toEqual([name, expect.any(Object)]);
      expect([name, job['timeout-minutes']]).toEqual([name, expect.any(Number)]);
    }
  });

  test('keeps no token in the clone', () => {
    for (const [name, { steps }] of jobsOf(path)) {
      for (const { uses = '', with: inputs } of steps) {
        if (uses.startsWith('actions/checkout@'))
          expect([name, inputs?.['persist-credentials']]).toEqual([name, false]);
      }
    }
  });
});
