import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';
import { limits } from '../../shared/base/limits.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const security = read('SECURITY.md');

test('SECURITY.md lists each limit with its number', () => {
  const units: Readonly<Record<string, number>> = { '': 1, ' MiB': 1024 * 1024 };
  const listed = [...security.matchAll(/^\| `(\w+)`: .* \| (\d+)( MiB)? \|$/gm)].map(
    ([, name = '', number = '', unit = '']) => [name, Number(number) * (units[unit] ?? NaN)] as const,
  );
  expect(Object.fromEntries(listed)).toEqual(limits);
});

test('SECURITY.md has a reason for each dependency in the bundles, and for no other', () => {
  const { dependencies }: { readonly dependencies: Readonly<Record<string, string>> } = JSON.parse(
    read('package.json'),
  );
  const section = /^## Dependencies$([\s\S]*?)^## /m.exec(security)?.[1] ?? '';
  const named = [...section.matchAll(/^\| (`[^|]+) \|/gm)].flatMap(([, cell = '']) => cell.match(/[^`,\s]+/g) ?? []);
  expect(named.sort()).toEqual(Object.keys(dependencies).sort());
});
