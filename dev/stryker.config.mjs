// Mutation testing: dev/mutants.ts.

const report = `build/mutants/${process.env.MUTANT_FILE.replaceAll('/', '-')}`;

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
export default {
  plugins: ['@stryker-mutator/jest-runner'],
  testRunner: 'jest',
  testRunnerNodeArgs: ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'],
  coverageAnalysis: 'perTest',
  jest: { configFile: 'dev/jest-mutants.config.mjs', enableFindRelatedTests: false },
  // Tests and the mutated copy are never compiled: Node strips the types.
  disableTypeChecks: false,
  ignorePatterns: ['/build', '/dist', '/bench'],
  tempDirName: 'build/stryker',
  concurrency: 1,
  // A timeout counts as killed, so it must be long enough for a busy machine.
  timeoutMS: 120_000,
  timeoutFactor: 4,
  // The next run tests only new mutants, and survivors with new tests.
  incremental: true,
  incrementalFile: `${report}.json`,
  reporters: ['clear-text', 'html'],
  clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
  htmlReporter: { fileName: `${report}.html` },
};
