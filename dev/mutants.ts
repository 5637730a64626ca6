import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

// `npm run mutants -- shared/image/reference.ts` lists changes to a file that the unit tests importing it don't notice. `--tests`
// selects other tests. The scores are in docs/testing.md.

const root = fileURLToPath(new URL('..', import.meta.url));
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { tests: { type: 'string', multiple: true, default: [] } },
});
const files = globSync(positionals, { cwd: root }).sort();
if (files.length === 0) {
  console.error('Pass files or patterns: npm run mutants -- shared/image/reference.ts');
  process.exit(2);
}
for (const file of files) {
  const tests = testsOf(file);
  if (tests.length === 0) console.error(`No unit test imports ${file}: select tests with --tests.`);
  if (tests.length === 0 || !mutate(file, tests)) process.exitCode = 1;
}

function testsOf(file: string): readonly string[] {
  if (values.tests.length > 0)
    return values.tests.flatMap((name) => globSync(`__tests__/unit/${name}.test.ts`, { cwd: root }));
  return globSync('__tests__/unit/*.test.ts', { cwd: root }).filter((test) =>
    readFileSync(join(root, test), 'utf8').includes(`/${file}'`),
  );
}

function mutate(file: string, tests: readonly string[]): boolean {
  console.log(`\n${file}, with ${tests.join(', ')}`);
  const stryker = join(root, 'node_modules/@stryker-mutator/core/bin/stryker.js');
  const { status } = spawnSync(process.execPath, [stryker, 'run', 'dev/stryker.config.mjs', '--mutate', file], {
    cwd: root,
    stdio: 'inherit',
    // Stryker uses its option `testFiles` only in the first run. After that, each mutant would load every test file of the configuration.
    env: { FUZZ_RUNS: '20', ...process.env, MUTANT_FILE: file, MUTANT_TESTS: tests.join() },
  });
  return status === 0;
}
