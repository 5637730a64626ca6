// What judges mutants: the unit tests, and those contract tests that read the product's values.

/** @type {import('jest').Config} */
export default {
  rootDir: '..',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '<rootDir>/dev/jest-transform.mjs' },
  testMatch: ['<rootDir>/__tests__/unit/*.test.ts', '<rootDir>/__tests__/contract/{action-yml,security}.test.ts'],
  testEnvironment: '@stryker-mutator/jest-runner/jest-env/node',
  testTimeout: 300_000,
};
