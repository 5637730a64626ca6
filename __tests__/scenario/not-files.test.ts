import { spawnSync } from 'node:child_process';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import {
  errorCode,
  errorMessage,
  type Scenario,
  startScenario,
  type StepOptions,
  shortPauses,
} from '../fixtures/scenario.ts';

// If a file is a pipe without a writer or an endless device, it is rejected immediately. Opening the pipe or reading the device
// would outlive the step's timeout and every signal.

let scenario: Scenario;
let pipe: string;
beforeEach(async () => {
  scenario = await startScenario();
  pipe = join(scenario.directory, 'pipe');
  expect(spawnSync('mkfifo', [pipe]).status).toBe(0);
});
afterEach(() => scenario.end());

type Inputs = Readonly<Record<string, string>>;
// A step that doesn't end is killed, and then has no exit code.
const bounded = (): StepOptions => ({ signal: AbortSignal.timeout(20_000), killWith: 'SIGKILL' });
const publish = (inputs: Inputs, env: Inputs = {}): Promise<StepOutcome> =>
  runStep({
    ...{ action: 'publish-image', ...bounded(), expressions: { 'github.token': scenario.service.rest.token } },
    inputs: { tags: 'localhost:1/charon:1.0', ...inputs },
    env: { ...scenario.service.env({}), ...env },
  });

function expectRefused(outcome: StepOutcome, code: string, message: RegExp): void {
  expect(errorMessage(outcome)).toMatch(message);
  expect([outcome.exitCode, errorCode(outcome)]).toEqual([1, code]);
  expect(outcome.peakMemoryKb).toBeLessThan(400_000);
}

describe.each([
  ['a pipe', (): string => pipe, 'a pipe'],
  ['/dev/zero', (): string => '/dev/zero', 'a device'],
] as const)('%s is not accepted as a file', (_, path, kind) => {
  test('as `source-tarball`', async () => {
    const outcome = await scenario.handOver({ 'source-tarball': path() }, bounded());
    expectRefused(outcome, 'tarball-invalid', /is not a file/);
  });

  test('in `secret-files`', async () => {
    const outcome = await scenario.exports({ 'secret-files': `npmrc=${path()}` }, bounded());
    expectRefused(outcome, 'invalid-input', new RegExp(`of the secret "npmrc" is .* is ${kind}, not a file`));
  });

  test('as `registry-ca`', async () => {
    await scenario.handOver();
    const outcome = await publish({ 'registry-ca': path() });
    expectRefused(outcome, 'invalid-input', new RegExp(`is ${kind}, not a file`));
  });
});

describe('a pipe is not accepted as a file', () => {
  test.each<readonly [string, (path: string) => Inputs]>([
    ['file', (path) => ({ file: path })],
    ['bake-files', (path) => ({ 'bake-files': path })],
    ['ssh', (path) => ({ ssh: `default=${path}` })],
    ['context', (path) => ({ context: path })],
    ['build-contexts', (path) => ({ 'build-contexts': `base=${path}` })],
  ])('as `%s`', async (input, given) => {
    const outcome = await scenario.exports(given(pipe), bounded());
    expectRefused(outcome, 'invalid-input', new RegExp(`\`${input}\` .* is a pipe, not a file`));
    expect(scenario.docker.state().calls.filter((call) => call.includes('--file'))).toEqual([]);
  });

  test.each([
    ['export-image', (): Promise<StepOutcome> => scenario.exports({ tarball: pipe }, bounded())],
    ['load-image', (): Promise<StepOutcome> => scenario.loads({ 'artifact-name': 'other', tarball: pipe }, bounded())],
  ])('as the `tarball` that %s writes: it is not changed', async (_, step) => {
    await scenario.handOver({ 'artifact-name': 'other' });
    expectRefused(await step(), 'invalid-input', /can't be written to .*: it is a pipe, not a file/);
    expect(statSync(pipe).isFIFO()).toBe(true);
  });

  test('as docker’s configuration, which docker itself would wait for', async () => {
    const folder = join(scenario.directory, 'docker-config');
    mkdirSync(folder);
    expect(spawnSync('mkfifo', [join(folder, 'config.json')]).status).toBe(0);
    const outcome = await scenario.exports({}, { ...bounded(), env: { DOCKER_CONFIG: folder } });
    expectRefused(outcome, 'docker-unavailable', /config\.json is a pipe, not a file/);
  });

  test('as index.json of the folder in `oci-layout`', async () => {
    await scenario.handOver();
    const layout = join(scenario.directory, 'base');
    mkdirSync(layout);
    expect(spawnSync('mkfifo', [join(layout, 'index.json')]).status).toBe(0);
    const outcome = await scenario.loads({ into: 'none', 'oci-layout': layout }, bounded());
    expectRefused(outcome, 'invalid-input', /the folder contains other files \(index\.json\)/);
  });

  test('as docker’s configuration: the registry is used without a login', async () => {
    await scenario.handOver();
    const folder = join(scenario.directory, 'docker-config');
    mkdirSync(folder);
    expect(spawnSync('mkfifo', [join(folder, 'config.json')]).status).toBe(0);
    expectRefused(await publish({}, { DOCKER_CONFIG: folder, ...shortPauses }), 'registry-failed', /localhost:1/);
  });

  test('as the event: the variables determine the commit', async () => {
    const outcome = await scenario.exports({}, { ...bounded(), env: { GITHUB_EVENT_PATH: pipe } });
    expect([outcome.exitCode, outcome.log.includes('::error')]).toEqual([0, false]);
  });

  test('as the job summary: there is a warning', async () => {
    const outcome = await scenario.handOver({}, { ...bounded(), env: { GITHUB_STEP_SUMMARY: pipe } });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.annotations).toEqual([
      expect.objectContaining({ level: 'warning', message: expect.stringContaining('is not a file') }),
    ]);
  });
});

test('a file that is larger than any certificate is not read', async () => {
  await scenario.handOver();
  const large = join(scenario.directory, 'large.pem');
  writeFileSync(large, Buffer.alloc(5_000_000));
  expectRefused(await publish({ 'registry-ca': large }), 'invalid-input', /has more than 4\.2 MB/);
});
