import { afterEach, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { SeededJob } from '../fakes/artifact-service/rest.ts';
import { errorCode, errorMessage, type Scenario, startScenario } from '../fixtures/scenario.ts';

// Loads that start before the image exists.

let scenario: Scenario;
const begin = async (...jobs: readonly SeededJob[]): Promise<Scenario> => {
  scenario = await startScenario();
  scenario.service.addRun({ id: 1, conclusion: null, jobs });
  return scenario;
};
afterEach(() => scenario.end());

const self = { name: 'test (waf)', runner: 'Runner of this job' };
type Inputs = Readonly<Record<string, string>>;
const waits = (inputs: Inputs = {}, more: Parameters<Scenario['loads']>[1] = {}): Promise<StepOutcome> =>
  scenario.loads(
    { 'wait-minutes': '0.5', ...inputs },
    { job: { jobId: 'test' }, ...more, env: { RUNNER_NAME: self.runner, ...more.env } },
  );
const count = (text: string, part: string): number => text.split(part).length - 1;

/** Runs the function when the step has logged that it waits. */
function onceWaiting(work: () => Promise<unknown>): {
  readonly onOutput: (text: string) => void;
  done(): Promise<void>;
} {
  let doing: Promise<unknown> | undefined;
  return {
    onOutput: (text) => {
      if (text.includes('Waiting for ')) doing ??= work();
    },
    done: async () => {
      await doing;
    },
  };
}

test('waits for the artifact, loads it when it appears, and logs both (B.3)', async () => {
  await begin({ name: 'build' }, self);
  const building = onceWaiting(() => scenario.handOver());
  const outcome = await waits({}, { onOutput: building.onOutput });
  await building.done();
  expect(outcome.log).not.toContain('::error');
  expect(outcome.outputs).toMatchObject({ loaded: 'true', 'config-digest': scenario.image.configDigest });
  expect(count(outcome.log, 'Waiting for "docker-image", for 30.0 s at most.')).toBe(1);
  expect(outcome.log).toMatch(/Artifact "docker-image" appeared after [\d.]+ s\./);
  expect(outcome.summary).toContain('Wait for the artifact');
});

test('doesn’t wait for an existing artifact', async () => {
  await begin({ name: 'build', state: 'success' }, self);
  await scenario.handOver();
  const outcome = await waits();
  expect(outcome.outputs['loaded']).toBe('true');
  expect(outcome.log).not.toContain('Waiting');
  expect(outcome.summary).not.toContain('Wait for the artifact');
});

test('waits for all of several names, and for one artifact of a pattern', async () => {
  await begin({ name: 'build' }, self);
  await scenario.handOver({ 'artifact-name': 'one', image: 'one:local' });
  const building = onceWaiting(() => scenario.handOver({ 'artifact-name': 'other', image: 'other:local' }));
  const both = await waits({ 'artifact-name': 'one, other' }, { onOutput: building.onOutput });
  await building.done();
  expect(both.log).toContain('Waiting for "other", for');
  expect(Object.keys(JSON.parse(both.outputs['images'] ?? ''))).toEqual(['one', 'other']);
  const pattern = await waits({ 'artifact-name': 'o*' });
  expect(pattern.exitCode).toBe(0);
  expect(pattern.log).not.toContain('Waiting');
});

test('at the limit: artifact-not-found with the duration of the wait and the run’s jobs (B.3)', async () => {
  await begin({ name: 'build' }, { name: 'lint', state: 'success' }, self);
  const outcome = await waits({ 'wait-minutes': '0.03' });
  expect(errorCode(outcome)).toBe('artifact-not-found');
  expect(errorMessage(outcome)).toMatch(
    /This run has no artifact "docker-image"; it has none. Gave up after 1\.[89] s \(`wait-minutes`\)\./,
  );
  expect(errorMessage(outcome)).toContain('The run’s jobs: build, lint, test (waf).');
});

describe('the job that creates the artifact', () => {
  test.each(['failure', 'cancelled', 'skipped', 'timed_out'])(
    'has ended with %s: the wait ends immediately (B.3)',
    async (state) => {
      await begin({ name: 'build', state }, self);
      const outcome = await waits({ 'wait-for-job': 'build' });
      expect(errorCode(outcome)).toBe('artifact-not-found');
      expect(errorMessage(outcome)).toContain(
        `the job "build" (${state}, https://github.com/org/charon/actions/runs/1/job/1) ended without it`,
      );
      expect(errorMessage(outcome)).toMatch(/Gave up after [\d.]+ m?s \(`wait-minutes`\): /);
    },
  );

  test('has failed after it created the artifact: the image is loaded', async () => {
    await begin({ name: 'build', state: 'failure' }, self);
    await scenario.handOver();
    expect((await waits({ 'wait-for-job': 'build' })).outputs['loaded']).toBe('true');
  });

  test('is a matrix with a running leg: the failure of other legs doesn’t end the wait', async () => {
    await begin({ name: 'build (amd64)', state: 'failure' }, { name: 'build (arm64)' }, self);
    const outcome = await waits({ 'wait-minutes': '0.03', 'wait-for-job': 'build' });
    expect(errorMessage(outcome)).toContain('(`wait-minutes`).');
  });

  test('can’t be read without the permission: this is logged once, and the limit decides', async () => {
    await begin({ name: 'build', state: 'failure' }, self);
    const token = scenario.service.rest.powerlessToken;
    const outcome = await waits({ 'wait-minutes': '0.06', 'wait-for-job': 'build', 'github-token': token });
    expect(errorMessage(outcome)).toContain('Gave up after 3.');
    expect(count(outcome.log, "can't be read (HTTP 403 (Resource not accessible by integration))")).toBe(1);
    expect(outcome.log).toContain('`permissions: actions: read`');
    expect(scenario.service.rest.requests).toHaveLength(1);
  });

  test('has failed: a fallback is pulled without a wait', async () => {
    await begin({ name: 'build', state: 'failure' }, self);
    const outcome = await waits({ 'wait-for-job': 'build', 'fallback-image': 'ghcr.io/org/charon:stable' });
    expect(outcome.log).not.toContain('Waiting');
    expect(scenario.docker.state().calls.some((call) => call.includes('ghcr.io/org/charon:stable'))).toBe(true);
  });
});

describe('a run that is run again', () => {
  const again = { job: { jobId: 'test', attempt: 2 } };
  const attempts = ['2020-01-01T00:00:00Z', '2999-01-01T00:00:00Z'];
  const started = async (...jobs: readonly SeededJob[]): Promise<void> => {
    scenario = await startScenario();
    scenario.service.addRun({ id: 1, conclusion: null, attempts, jobs });
    await scenario.handOver();
  };

  test('with its build: the image of the earlier attempt is not used', async () => {
    await started({ name: 'build', attempt: 2 }, { ...self, attempt: 2 });
    const outcome = await waits({ 'wait-minutes': '0.03', 'wait-for-job': 'build' }, again);
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(scenario.docker.state().images).toEqual([]);
  });

  test('for its failed tests only: the image of the earlier attempt is used immediately', async () => {
    await started({ name: 'build', attempt: 2, state: 'success' }, { ...self, attempt: 2 });
    const outcome = await waits({ 'wait-for-job': 'build' }, again);
    expect(outcome.outputs['loaded']).toBe('true');
    expect(outcome.log).not.toMatch(/Waiting|::warning/);
  });

  test('for its failed tests only, with a list that omits the other jobs: the earlier image is used immediately', async () => {
    await started({ name: 'build', state: 'success' }, { ...self, state: 'failure' }, { ...self, attempt: 2 });
    const outcome = await waits({ 'wait-for-job': 'build' }, again);
    expect(outcome.outputs['loaded']).toBe('true');
    expect(outcome.log).not.toMatch(/Waiting|::warning/);
  });

  test('with its build, which isn’t listed yet because it waits for another job: the earlier image is not used', async () => {
    const lint = { name: 'lint', state: 'success' };
    const earlier = [lint, { name: 'build', state: 'success' }, { ...self, state: 'failure' }];
    await started(...earlier, { name: 'lint', attempt: 2 }, { ...self, attempt: 2 });
    const outcome = await waits({ 'wait-minutes': '0.03', 'wait-for-job': 'build' }, again);
    expect(errorCode(outcome)).toBe('artifact-not-found');
  });

  test.each<[string, () => Inputs]>([
    ['no job is given', () => ({})],
    [
      'the jobs can’t be read',
      () => ({ 'wait-for-job': 'build', 'github-token': scenario.service.rest.powerlessToken }),
    ],
  ])('and %s: the earlier image is used, with a warning that it may soon be replaced', async (_, inputs) => {
    await started({ name: 'build', attempt: 2 }, { ...self, attempt: 2 });
    const outcome = await waits(inputs(), again);
    expect(outcome.outputs['loaded']).toBe('true');
    expect(outcome.annotations).toMatchObject([
      { level: 'warning', message: expect.stringContaining('This is attempt 2 of the run: an artifact of an earlier') },
    ]);
  });
});

test('a cancellation ends the wait immediately', async () => {
  await begin({ name: 'build' }, self);
  const controller = new AbortController();
  const { seen } = scenario.service.faults;
  let seenBefore = 0;
  const cancel = onceWaiting(() => {
    seenBefore = seen.length;
    controller.abort();
    return Promise.resolve();
  });
  const outcome = await waits({ 'wait-minutes': '10' }, { onOutput: cancel.onOutput, signal: controller.signal });
  expect(errorCode(outcome)).toBe('cancelled');
  expect(seenBefore).toBeGreaterThan(0);
  // It didn't wait until the next poll.
  expect(seen.slice(seenBefore)).not.toContain('ListArtifacts');
});

test.each<[string, Inputs, string]>([
  ['with another run', { 'run-id': '2' }, 'the step can only wait for this run’s jobs'],
  ['for longer than the step may take', { 'timeout-minutes': '0.5' }, 'Raise `timeout-minutes`'],
  ['for a job, but without a limit', { 'wait-minutes': '0', 'wait-for-job': 'build' }, "the step doesn't wait"],
  ['for an invalid number', { 'wait-minutes': 'long' }, 'a number from 0 to 7200'],
])('to wait %s is invalid-input', async (_, inputs, message) => {
  await begin();
  const outcome = await waits(inputs);
  expect(errorCode(outcome)).toBe('invalid-input');
  expect(errorMessage(outcome)).toContain(message);
});
