// Runs the tests that dev/mutants.ts names. Stryker starts jest for each mutant, so it must load few files.

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
