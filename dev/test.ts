import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.ts';
import { whyNoGoParts } from './go-parts.ts';

// `npm test` runs everything; `npm test -- unit` runs one folder of __tests__, `npm test -- reference` what matches.
const root = fileURLToPath(new URL('..', import.meta.url));
console.log('Building dist/ from source: the tests run the bundles.');
build();
const withoutGo = whyNoGoParts(['dockerd', 'runc', 'buildkit']);
if (withoutGo !== undefined && process.env['CI'] === 'true') {
  console.error(
    `CI has to test on Docker 29.7 and BuildKit 0.34, which are built with Go: ${withoutGo}. Add actions/setup-go.`,
  );
  process.exit(1);
}
const jest = join(root, 'node_modules/jest/bin/jest.js');
const { status } = spawnSync(
  process.execPath,
  ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', jest, ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...(withoutGo === undefined ? {} : { TESTED_WITHOUT_GO: withoutGo }) },
  },
);
process.exit(status ?? 1);
