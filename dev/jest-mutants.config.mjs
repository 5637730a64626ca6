// Judges mutants: dev/mutants.ts names the tests. Each mutant starts jest again, so every file that it doesn't load counts.

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
