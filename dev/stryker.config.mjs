// Mutation tests: dev/mutants.ts.

const report = `build/mutants/${process.env.MUTANT_FILE.replaceAll('/', '-')}`;

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
export default {
  plugins: ['@stryker-mutator/jest-runner'],
  testRunner: 'jest',
  testRunnerNodeArgs: ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'],
  coverageAnalysis: 'perTest',
  jest: { configFile: 'dev/jest-mutants.config.mjs', enableFindRelatedTests: false },
  // Node strips the types: neither tests nor mutants are compiled.
  disableTypeChecks: false,
  ignorePatterns: ['/build', '/dist', '/bench'],
  tempDirName: 'build/stryker',
  concurrency: 1,
  // Generous, because a timeout on a busy machine would count as a detected mutant.
  timeoutMS: 120_000,
  timeoutFactor: 4,
  // A second run tests only new mutants, and surviving mutants that have new tests.
  incremental: true,
  incrementalFile: `${report}.json`,
  reporters: ['clear-text', 'html'],
  clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
  htmlReporter: { fileName: `${report}.html` },
};
