// Set by dev/test.ts when Docker 29.7 can't be built here.
const withoutGo = process.env.TESTED_WITHOUT_GO !== undefined;

const common = {
  rootDir: '.',
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '<rootDir>/dev/jest-transform.mjs' },
  modulePathIgnorePatterns: ['<rootDir>/build/', '<rootDir>/dist/'],
  testTimeout: 60_000,
};

const everything = {
  ...common,
  displayName: 'all',
  testMatch: ['<rootDir>/__tests__/{unit,scenario,contract,integration,faults}/**/*.test.ts'],
};

// What loads, saves, verifies and overlaps, once more: __tests__/fixtures/engines.ts starts the engines that `globals` names.
const onDocker29 = {
  ...common,
  displayName: 'Docker 29.7',
  testMatch: ['<rootDir>/__tests__/integration/*.test.ts', '<rootDir>/__tests__/faults/{seeded,engines}.test.ts'],
  // What is loaded into nodes is in their own containerd, whatever Docker runs the nodes.
  testPathIgnorePatterns: ['/azurite.test.ts$', '/podman.test.ts$', '/nodes.test.ts$'],
  globals: { testedDocker: '29.7' },
  globalSetup: '<rootDir>/dev/jest-docker-29.mjs',
};

/** @type {import('jest').Config} */
export default {
  projects: withoutGo ? [everything] : [everything, onDocker29],
  maxWorkers: 2,
  testTimeout: 60_000,
  reporters: ['default', '<rootDir>/dev/jest-reporter.mjs'],
};
