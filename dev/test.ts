import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.ts';

// `npm test` runs everything; `npm test -- unit` runs one folder of __tests__, `npm test -- reference` what matches.
const root = fileURLToPath(new URL('..', import.meta.url));
console.log('Building dist/ from source: the tests run the bundles.');
build();
const jest = join(root, 'node_modules/jest/bin/jest.js');
const { status } = spawnSync(
  process.execPath,
  ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', jest, ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: 'inherit',
  },
);
process.exit(status ?? 1);
