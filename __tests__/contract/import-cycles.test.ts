import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { importCycles } from '../../dev/import-cycles.ts';

let root: string;
beforeEach(() => void (root = mkdtempSync(join(tmpdir(), 'cycles-'))));
afterEach(() => rmSync(root, { recursive: true }));

const write = (files: Readonly<Record<string, string>>): void => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
};

test.each([
  ['values', "import { b } from '../b/b.ts';"],
  ['types', "import type { B } from '../b/b.ts';"],
  ['a re-export', "export { b } from '../b/b.ts';"],
  ['a dynamic import', "export const late = () => import('../b/b.ts');"],
])('finds an import cycle through %s', (_, line) => {
  write({
    'a/a.ts': line,
    'b/b.ts': "import type { C } from './deep/c.ts';",
    'b/deep/c.ts': "import { a } from '../../a/a.ts';",
  });
  expect(importCycles(root, ['a', 'b'])).toEqual(['a/a.ts → b/b.ts → b/deep/c.ts → a/a.ts']);
});

test('finds no cycle if no file imports itself indirectly', () => {
  write({
    'a.ts': '',
    'x/one.ts': "import { two } from './two.ts'; import { three } from './three.ts'; import { join } from 'node:path';",
    'x/two.ts': "import { three } from './three.ts';",
    'x/three.ts': "// import { one } from './one.ts';",
  });
  expect(importCycles(root, ['x'])).toEqual([]);
});
