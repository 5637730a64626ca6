/** Fails a run in which a file ran no test, and prints a last line with the counts. */
export default class Reporter {
  onRunComplete(_contexts, results) {
    this.idle = results.testResults
      .filter((file) => file.numPassingTests + file.numFailingTests === 0)
      .map((file) => file.testFilePath);
    for (const file of this.idle) console.error(`No test ran in ${file}`);
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, numRuntimeErrorTestSuites } = results;
    this.ran = numPassedTests + numFailedTests;
    const skipped = numPendingTests + numTodoTests;
    console.log(`\n${numPassedTests} passed, ${numFailedTests + numRuntimeErrorTestSuites} failed, ${skipped} skipped`);
    const withoutGo = process.env.TESTED_WITHOUT_GO;
    if (withoutGo !== undefined)
      console.log(
        `NOT TESTED with BuildKit 0.34 and Docker 29.7, which are built with Go: ${withoutGo}. CI tests them.`,
      );
  }

  getLastError() {
    if (this.ran === 0) return new Error('No test ran.');
    return this.idle.length > 0 ? new Error(`No test ran in: ${this.idle.join(', ')}`) : undefined;
  }
}
