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

/** Returns GitHub's anchors of a document's headings: lower case, no punctuation, hyphens for spaces, a number for duplicates. */
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

/** Returns the links and images of a document whose target in this repository doesn't exist. */
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
  test.each(documents)('in %s have existing targets', (path) => {
    expect(deadLinks(path, read(path))).toEqual([]);
  });

  test('are reported if the file or heading is missing or outside the repository', () => {
    const text =
      '# One: `two`\n\n[a](#one-two) [b](#one) [c](gone.md) [d](../CHANGELOG.md#changelog) [e](../../x.md)\n';
    expect(deadLinks('docs/x.md', text)).toEqual(['#one', 'gone.md', '../../x.md']);
    expect(deadLinks('README.md', '[in code is none](#x)'.replace(/.*/, '```\n$&\n```'))).toEqual([]);
  });
});

test('the README’s figures of the four ways to share an image are the measured ones (S4.1)', () => {
  const [, path = ''] = /<!-- results: (\S+full-ways\.md) -->/.exec(read('README.md')) ?? [];
  const measured = read(path);
  expect(read('README.md')).toContain(measured.trim());
  const [, , ...rows] = measured.trim().split('\n');
  expect(rows.map((row) => /^\| ([\w ]+):/.exec(row)?.[1])).toEqual(['Registry', 'Build cache', 'Artifact', 'Matrix']);
});
