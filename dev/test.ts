import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.ts';
import { whyNoGoParts } from './go-parts.ts';

// `npm test` runs everything; `npm test -- unit` runs one folder of __tests__, `npm test -- reference` what matches.
const root = fileURLToPath(new URL('..', import.meta.url));
console.log('Building dist/ from source: the tests run the bundles.');
build();
const without29 = whyNoGoParts(['dockerd', 'runc']);
if (without29 !== undefined && process.env['CI'] === 'true') {
  console.error(`Docker 29.7 can’t be built here, and CI has to test on it: ${without29}. Add actions/setup-go.`);
  process.exit(1);
}
const jest = join(root, 'node_modules/jest/bin/jest.js');
const { status } = spawnSync(
  process.execPath,
  ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', jest, ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...(without29 === undefined ? {} : { TESTED_WITHOUT_DOCKER_29: without29 }) },
  },
);
process.exit(status ?? 1);
