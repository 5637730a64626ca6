import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const documents = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.md'], {
  cwd: projectRoot,
  encoding: 'utf8',
})
  .trim()
  .split('\n')
  .filter((path) => existsSync(join(projectRoot, path)));

const withoutCode = (text: string): string => text.replaceAll(/^```[\s\S]*?^```$/gm, '');

/** The anchors that GitHub gives a document's headings: lower case, no punctuation, a hyphen for each space, a number for a twin. */
function anchorsOf(text: string): ReadonlySet<string> {
  const found = new Map<string, number>();
  const anchors = [...withoutCode(text).matchAll(/^#{1,6} +(.+?) *$/gm)].map(([, heading = '']) => {
    const plain = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1');
    const slug = plain
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    const twins = found.get(slug) ?? 0;
    found.set(slug, twins + 1);
    return twins === 0 ? slug : `${slug}-${String(twins)}`;
  });
  return new Set(anchors);
}

/** Links and pictures of a document that lead nowhere in this repository. */
function deadLinks(path: string, text: string): readonly string[] {
  const targets = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
  return targets.filter((target) => {
    if (/^[a-z]+:/.test(target)) return false;
    const [file = '', anchor] = target.split('#');
    const to = file === '' ? path : normalize(join(dirname(path), file));
    if (to !== path && (to.startsWith('..') || !existsSync(join(projectRoot, to)))) return true;
    return anchor !== undefined && !anchorsOf(to === path ? text : read(to)).has(anchor);
  });
}

describe('links between documents', () => {
  test.each(documents)('of %s all lead somewhere', (path) => {
    expect(deadLinks(path, read(path))).toEqual([]);
  });

  test('a dead one is found: a file, a heading, a way out of the repository', () => {
    const text =
      '# One: `two`\n\n[a](#one-two) [b](#one) [c](gone.md) [d](../CHANGELOG.md#changelog) [e](../../x.md)\n';
    expect(deadLinks('docs/x.md', text)).toEqual(['#one', 'gone.md', '../../x.md']);
    expect(deadLinks('README.md', '[in code is none](#x)'.replace(/.*/, '```\n$&\n```'))).toEqual([]);
  });
});

test('the README is read in two minutes: 200 lines at most', () => {
  expect(read('README.md').split('\n').length).toBeLessThanOrEqual(200);
});

test('the README compares the four ways to share an image, with measured figures, and says when not to use this (S4.1)', () => {
  const section = /## Four ways to share an image[\s\S]*?\n## /.exec(read('README.md'))?.[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| ---'));
  const waits = new Map(
    rows
      .map((row) => row.split('|').map((cell) => cell.trim()))
      .map(([, way = '', wait = '']) => [way.split(/[:,]/)[0], wait]),
  );
  expect([...waits.keys()]).toEqual(['Way', 'Registry', 'Build cache', 'Artifact', 'Matrix']);
  const figures = rows.filter((row) => /\| \d+\.\d s \|/.test(row));
  expect(figures.length).toBeGreaterThanOrEqual(3);
  expect(section).toContain("Don't use this project when");
});

test('each decision is a record of its own, with context, decision, consequence and figure, and is listed', () => {
  const records = documents.filter((path) => /^docs\/decisions\/\d/.test(path));
  expect(records.length).toBeGreaterThanOrEqual(23);
  const list = read('docs/decisions/README.md');
  for (const path of records) {
    expect(list).toContain(`](${path.replace('docs/decisions/', '')})`);
    const headings = [...read(path).matchAll(/^## (.+)$/gm)].map(([, heading]) => heading);
    expect([path, headings]).toEqual([path, ['Context', 'Decision', 'Consequence', 'Figure']]);
  }
});
