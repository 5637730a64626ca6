import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { projectRoot } from '../../dev/action-runner.ts';

// Runs scripts of the release workflow with a `gh` that prints what GitHub would return, and records its calls.

const { jobs } = parse(readFileSync(join(projectRoot, '.github/workflows/release.yml'), 'utf8'));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'release-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Step {
  readonly name?: string;
  readonly run?: string;
}

/** Runs a step as the runner does. `replies` maps a part of gh's arguments to what it prints. */
function runStep(
  job: { readonly steps: readonly Step[] },
  name: RegExp,
  replies: Readonly<Record<string, string>>,
): { readonly passed: boolean; readonly calls: string } {
  const script = job.steps.find((step) => name.test(step.name ?? ''))?.run ?? 'exit 1';
  const calls = join(folder, 'calls');
  writeFileSync(calls, '');
  const cases = Object.entries(replies).map(([part, reply]) => `*'${part}'*) printf '%s\\n' '${reply}' ;;`);
  const gh = ['#!/bin/bash', `echo "$*" >> '${calls}'`, 'case "$*" in', ...cases, 'esac', ''].join('\n');
  writeFileSync(join(folder, 'gh'), gh, { mode: 0o755 });
  const { status } = spawnSync('bash', ['--noprofile', '--norc', '-e', '-o', 'pipefail', '-c', script], {
    cwd: projectRoot,
    env: { PATH: [folder, process.env['PATH']].join(delimiter), GITHUB_REPOSITORY: 'o/r', TAG: 'v1.4.0' },
  });
  return { passed: status === 0, calls: readFileSync(calls, 'utf8') };
}

describe('a tag is released', () => {
  const release = (status: string, runs: string): boolean =>
    runStep(jobs.check, /on main/, { '/compare/': status, 'workflows/ci.yml/runs': runs }).passed;

  test.each(['identical', 'behind'])('if its commit is on main (%s) and CI has passed', (status) => {
    expect(release(status, '1')).toBe(true);
  });

  test.each([
    ['its commit is not on main', 'diverged', '1'],
    ['its commit is only on a branch ahead of main', 'ahead', '1'],
    ['its CI has not passed', 'identical', '0'],
  ])('never if %s', (_, status, runs) => {
    expect(release(status, runs)).toBe(false);
  });
});

describe('v1 moves to a published release', () => {
  const moves = (...published: readonly string[]): boolean => {
    const { passed, calls } = runStep(jobs['move-major'], /Move v1/, {
      '/releases': published.join('\n'),
      '/commits/v1.4.0': 'c0ffee',
    });
    expect(passed).toBe(true);
    return calls.includes('PATCH repos/o/r/git/refs/tags/v1 --field sha=c0ffee');
  };

  test('if it is the newest one of its major version', () => {
    expect(moves('v1.4.0', 'v1.3.9')).toBe(true);
    expect(moves()).toBe(true);
    expect(moves('v2.0.0', 'v1.4.0', 'v0.9.0')).toBe(true);
  });

  test('but never back to an older one', () => {
    expect(moves('v1.10.0', 'v1.4.0')).toBe(false);
    expect(moves('v1.4.0', 'v1.4.1')).toBe(false);
  });
});

test('the archive of a release contains the files that run, and not those that only developers use', () => {
  const files = execFileSync('bash', ['-c', 'git archive --worktree-attributes HEAD | tar --list'], {
    cwd: projectRoot,
    encoding: 'utf8',
  }).split('\n');
  expect(files).toEqual(expect.arrayContaining(['action.yml', 'load-image/action.yml', 'LICENSE', 'README.md']));
  expect(files.filter((file) => /^dist\/.*\.js$/.test(file)).length).toBeGreaterThan(2);
  expect(
    files.filter((file) => /^(?:__tests__|bench|dev|\.github)\/|^package-lock|^tsconfig|config\./.test(file)),
  ).toEqual([]);
});
