import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

// `npm run mutants -- shared/image/reference.ts --tests reference`: which changes of a file the tests of these names don't notice.
// Without `--tests` all of the quick ring judge, which takes hours. docs/testing.md has the scores.

const root = fileURLToPath(new URL('..', import.meta.url));
const { positionals: files, values } = parseArgs({
  allowPositionals: true,
  options: { tests: { type: 'string', multiple: true, default: [] } },
});
if (files.length === 0) {
  console.error('Name files, or patterns of them: npm run mutants -- shared/image/reference.ts --tests reference');
  process.exit(2);
}
const tests = values.tests.flatMap((name) => globSync(`__tests__/unit/*${name}*.test.ts`, { cwd: root }));
const stryker = join(root, 'node_modules/@stryker-mutator/core/bin/stryker.js');
const options = ['--mutate', files.join(), ...(tests.length === 0 ? [] : ['--testFiles', tests.join()])];
const { status } = spawnSync(process.execPath, [stryker, 'run', 'dev/stryker.config.mjs', ...options], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(status ?? 1);
