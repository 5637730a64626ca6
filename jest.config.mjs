// Set by dev/test.ts when Docker 29.7 can't be built here.
const withoutGo = process.env.TESTED_WITHOUT_GO !== undefined;

const common = {
  rootDir: '.',
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '<rootDir>/dev/jest-transform.mjs' },
  modulePathIgnorePatterns: ['<rootDir>/build/', '<rootDir>/dist/'],
  // For a busy machine: on an idle one, no test takes a third of this time.
  testTimeout: 300_000,
};

// Needs no bundle, engine, root or network.
const quick = {
  ...common,
  displayName: 'quick',
  testMatch: ['<rootDir>/__tests__/{unit,contract}/**/*.test.ts'],
};

// Runs the bundles, mostly on the engines that __tests__/fixtures/engines.ts borrows.
const built = {
  ...common,
  displayName: 'built',
  testMatch: ['<rootDir>/__tests__/{scenario,integration,faults}/**/*.test.ts'],
  globalSetup: '<rootDir>/dev/jest-setup.mjs',
  globalTeardown: '<rootDir>/dev/jest-teardown.mjs',
};

// Runs the engine suites again, on the Docker version in `globals`.
const onDocker29 = {
  ...built,
  displayName: 'Docker 29.7',
  testMatch: ['<rootDir>/__tests__/integration/*.test.ts', '<rootDir>/__tests__/faults/{seeded,engines}.test.ts'],
  testPathIgnorePatterns: ['/azurite.test.ts$', '/podman.test.ts$'],
  globals: { testedDocker: '29.7' },
  globalSetup: '<rootDir>/dev/jest-setup-docker-29.mjs',
};

/** @type {import('jest').Config} */
export default {
  projects: withoutGo ? [quick, built] : [quick, built, onDocker29],
  maxWorkers: 2,
  testTimeout: common.testTimeout,
  reporters: ['default', '<rootDir>/dev/jest-reporter.mjs'],
};
