// Runs tests on mutants: dev/mutants.ts selects the tests. jest is started for each mutant, so it loads as few files as possible.

/** @type {import('jest').Config} */
export default {
  rootDir: '..',
  roots: ['<rootDir>/__tests__'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '<rootDir>/dev/jest-transform.mjs' },
  testMatch: process.env.MUTANT_TESTS.split(',').map((test) => `<rootDir>/${test}`),
  testEnvironment: '@stryker-mutator/jest-runner/jest-env/node',
  setupFiles: ['<rootDir>/dev/jest-mutants-setup.mjs'],
  testTimeout: 300_000,
  watchman: false,
};
