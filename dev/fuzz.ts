import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

// `npm run fuzz` runs the property tests of readers of untrusted bytes more often. Options: `-- --runs 100000 --seed 7`. A failure prints its seed.

const { values } = parseArgs({ options: { runs: { type: 'string', default: '20000' }, seed: { type: 'string' } } });
const root = fileURLToPath(new URL('..', import.meta.url));
const { status } = spawnSync(
  process.execPath,
  [
    ...[
      '--experimental-vm-modules',
      '--disable-warning=ExperimentalWarning',
      join(root, 'node_modules/jest/bin/jest.js'),
    ],
    ...[
      'unit/untrusted-bytes',
      '--selectProjects',
      'quick',
      '--testNamePattern',
      'property',
      '--testTimeout',
      '1800000',
    ],
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, FUZZ_RUNS: values.runs, ...(values.seed === undefined ? {} : { FUZZ_SEED: values.seed }) },
  },
);
process.exit(status ?? 1);
