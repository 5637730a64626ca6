import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { projectRoot } from '../../dev/action-runner.ts';
import { deadCode } from '../../dev/dead-code.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'dead-code-'));
  cpSync(join(projectRoot, 'knip.jsonc'), join(root, 'knip.jsonc'));
});
afterEach(() => rmSync(root, { recursive: true }));

const write = (files: Readonly<Record<string, string>>): void => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
};

test('finds dead code of each kind: a file, an export, a type, a package, and an export that only a test uses', () => {
  write({
    'package.json': '{ "type": "module", "dependencies": { "undici": "1" } }',
    'load-image/main.ts': "import { used } from '../shared/image/a.ts'; used();",
    'shared/image/a.ts':
      'export type OwnType = 1; export const ownValue: OwnType = 1; export const tested = 2; export const used = () => ownValue;',
    'shared/tar/never-imported.ts': '1;',
    '__tests__/fixtures/lost-fixture.ts': '1;',
    '__tests__/unit/a.test.ts': "import { tested } from '../../shared/image/a.ts'; tested;",
  });
  const found = deadCode(root).join('\n');
  for (const name of ['OwnType', 'ownValue', 'tested', 'undici', 'never-imported', 'lost-fixture'])
    expect(found).toMatch(new RegExp(`\\b${name}\\b`));
});

test('accepts code that the product uses, and exports for tests with the tag @internal', () => {
  write({
    'package.json': '{ "type": "module", "dependencies": { "undici": "1" } }',
    'load-image/main.ts': "import 'undici'; import { used } from '../shared/image/a.ts'; used();",
    'shared/image/a.ts': 'export const used = () => 1; /** @internal */ export const tested = 2;',
    '__tests__/unit/a.test.ts': "import { tested } from '../../shared/image/a.ts'; tested;",
  });
  expect(deadCode(root)).toEqual([]);
});
