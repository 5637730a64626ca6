import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { longSubjects } from '../../dev/commit-subjects.ts';

let root: string;
beforeEach(() => void (root = mkdtempSync(join(tmpdir(), 'subjects-'))));
afterEach(() => rmSync(root, { recursive: true }));

const git = (...args: readonly string[]): string =>
  execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.com', ...args], { cwd: root }).toString();
const commit = (subject: string): string =>
  git('commit', '--quiet', '--allow-empty', '-m', subject, '-m', 'x'.repeat(90));

test('finds commit subjects of more than 72 characters, but no long body, short subject or merge', () => {
  git('init', '--quiet', '-b', 'main');
  commit('x'.repeat(72));
  git('checkout', '--quiet', '-b', 'other');
  commit('y'.repeat(73));
  git('checkout', '--quiet', 'main');
  git('merge', '--quiet', '--no-ff', 'other', '-m', 'z'.repeat(80));
  expect(longSubjects(root)).toEqual([expect.stringContaining('y'.repeat(73))]);
});

test('finds no long subject in a folder without history', () => {
  expect(longSubjects(root)).toEqual([]);
});
