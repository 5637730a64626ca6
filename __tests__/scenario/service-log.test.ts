import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Scenario, startScenario } from '../fixtures/scenario.ts';

// The log lines about requests to the artifact service and its blob store.

let scenario: Scenario;
beforeEach(async () => void (scenario = await startScenario()));
afterEach(() => scenario.end());

test('a signed URL is masked by one log line, in the URL’s encoding', async () => {
  await scenario.handOver();
  const outcome = await scenario.loads();
  const masks = [...outcome.log.matchAll(/^::add-mask::(.*)$/gm)].map(([, text]) => text);
  // Workflow commands encode their data again (actions/toolkit, command.ts, escapeData).
  expect(masks).toEqual([expect.stringMatching(/^[A-Za-z0-9%]+%253D$/)]);
});

test.each([
  [
    'ListArtifacts',
    'status',
    /^ListArtifacts: HTTP 503 \(\w[\w ]*\); attempt 1 of 5, the next in \d+(?:\.\d)? m?s\.$/m,
  ],
  ['CreateArtifact', 'reset', /^CreateArtifact: .+; attempt 1 of 5, the next in \d+(?:\.\d)? m?s\.$/m],
  [
    'FinalizeArtifact',
    'status',
    /^FinalizeArtifact: HTTP 503 \(\w[\w ]*\); attempt 1 of 5, the next in \d+(?:\.\d)? m?s\.$/m,
  ],
  [
    'put-block',
    'status',
    /^Bytes 0-\d+ of the upload: HTTP 503 \(\w[\w ]*\); attempt 1 of 6, the next in \d+(?:\.\d)? m?s\.$/m,
  ],
  [
    'put-block-list',
    'status',
    /^The end of the upload: HTTP 503 \(\w[\w ]*\); attempt 1 of 6, the next in \d+(?:\.\d)? m?s\.$/m,
  ],
] as const)('a retried call of %s (%s) is one line of the log', async (on, kind, line) => {
  const effect = kind === 'reset' ? { kind, afterBytes: 0 } : { kind, status: 503 };
  scenario.service.faults.add({ on, effect });
  const outcome = await scenario.handOver();
  expect(outcome.exitCode).toBe(0);
  expect(outcome.log).toMatch(line);
  expect(outcome.log.match(/the next in/g)).toHaveLength(1);
});

test('retries of GetSignedArtifactURL and of a part of the blob are one line each', async () => {
  await scenario.handOver();
  scenario.service.faults.add({ on: 'GetSignedArtifactURL', effect: { kind: 'status', status: 502 } });
  scenario.service.faults.add({ on: 'get', effect: { kind: 'status', status: 503 } });
  const { log, exitCode } = await scenario.loads();
  expect(exitCode).toBe(0);
  expect(log).toMatch(/^GetSignedArtifactURL: HTTP 502 \(\w[\w ]*\); attempt 1 of 5, the next in \d+(?:\.\d)? m?s\.$/m);
  expect(log).toMatch(
    /^Bytes \d+-\d+ of the download: HTTP 503 \(\w[\w ]*\); attempt 1 of 6, the next in \d+(?:\.\d)? m?s\.$/m,
  );
  expect(log.match(/the next in/g)).toHaveLength(2);
});
