import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// `npm run mutants -- shared/image/reference.ts`: which changes of these files no test notices. docs/testing.md has the scores.

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error(
    "Name files, or patterns of them: npm run mutants -- shared/image/reference.ts 'export-image/plan/*.ts'",
  );
  process.exit(2);
}
const root = fileURLToPath(new URL('..', import.meta.url));
const stryker = join(root, 'node_modules/@stryker-mutator/core/bin/stryker.js');
const { status } = spawnSync(process.execPath, [stryker, 'run', 'dev/stryker.config.mjs', '--mutate', files.join()], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(status ?? 1);
