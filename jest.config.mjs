// Set by dev/test.ts when Docker 29.7 can't be built here.
const withoutGo = process.env.TESTED_WITHOUT_GO !== undefined;

const common = {
  rootDir: '.',
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '<rootDir>/dev/jest-transform.mjs' },
  modulePathIgnorePatterns: ['<rootDir>/build/', '<rootDir>/dist/'],
  // For a machine that is busy with other work: on a quiet one, no test takes a third of it.
  testTimeout: 300_000,
};

// Needs no bundle, no engine, no root and no network.
const quick = {
  ...common,
  displayName: 'quick',
  testMatch: ['<rootDir>/__tests__/{unit,contract}/**/*.test.ts'],
};

// Runs the bundles, and most of it on the engines that __tests__/fixtures/engines.ts borrows.
const built = {
  ...common,
  displayName: 'built',
  testMatch: ['<rootDir>/__tests__/{scenario,integration,faults}/**/*.test.ts'],
  globalSetup: '<rootDir>/dev/jest-setup.mjs',
  globalTeardown: '<rootDir>/dev/jest-teardown.mjs',
};

// The engine suites again: `globals` names the Docker that they borrow.
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
