import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { makeImage } from '../fixtures/image.ts';
import type { FakeDocker } from '../fakes/docker/fake-docker.ts';
import { verbOf } from '../fakes/docker/state.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';
import { begin, useScenarios } from '../fixtures/scenario-suite.ts';

useScenarios();

describe('invalid-input', () => {
  test.each([
    [{ image: 'charon:local:twice' }, 'charon:local:twice'],
    [{ image: 'Charon Local' }, 'charon local'],
    [{ image: `charon@sha256:${'a'.repeat(64)}` }, 'stored under a digest'],
    [{ 'retention-days': '91' }, '`retention-days` is "91"'],
    [{ 'retention-days': 'a week' }, '"a week"'],
    [{ 'artifact-name': 'a/b' }, '"a/b"'],
    [{ platform: 'linux/amd64,linux/arm64' }, 'linux/amd64,linux/arm64'],
    [{ 'require-cache': 'maybe' }, '"maybe"'],
    [{ 'source-image': 'a:1', 'source-tarball': 'b.tar' }, 'source-image, source-tarball'],
    [{ 'source-image': 'a:1', file: 'Dockerfile' }, 'source-image, file'],
    [{ 'source-image': `sha256:${'a'.repeat(64)}` }, 'given by image ID (sha256:aaa'],
    [{ 'source-image': 'a'.repeat(12) }, 'given by image ID (aaa'],
    [{ secrets: 'TOKEN' }, 'Item 1 of the input `secrets`'],
    [{ secrets: '"TOKEN=hunter2' }, 'The input `secrets` is "(not shown)"'],
    [{ 'secret-files': 'npmrc=./missing.npmrc' }, 'of the secret "npmrc" is "./missing.npmrc"'],
    [{ tags: 'Array' }, 'The input `tags` is "Array", the value of an expression with a list'],
    [{ 'build-args': 'A=1\nObject' }, 'has the line "Object", the value of an expression with an object'],
    [{ tarball: '/' }, 'it is a folder'],
  ])('%j never reaches docker (S0.7)', async (inputs, message) => {
    const { exports, docker } = await begin();
    const outcome = await exports(inputs);
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome).toLowerCase()).toContain(message.toLowerCase());
    expect(errorMessage(outcome)).toContain('Next step: ');
    expect(outcome.outputs['run-integration']).toBe('false');
    if (!('tarball' in inputs)) expect(docker.state().calls).toEqual([]);
  });

  test('the path of a secret’s missing file is in an error before the build (S0.7)', async () => {
    const { exports, docker } = await begin();
    const outcome = await exports({ 'secret-files': 'npmrc=./missing.npmrc' });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('missing.npmrc');
    expect(docker.state().calls.filter(([first, second]) => first === 'buildx' && second === 'build')).toEqual([]);
  });

  test.each([
    [{ image: 'https://example.com/x' }, 'https://example.com/x'],
    [{ 'expected-config-digest': 'sha256:123' }, 'sha256:123'],
    [{ 'artifact-name': ' ' }, '`artifact-name` is ""'],
  ])('load-image rejects %j before any request (S0.7)', async (inputs, message) => {
    const { loads, docker } = await begin();
    const outcome = await loads(inputs);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(message);
    expect(docker.state().calls).toEqual([]);
  });
});

describe('hosts', () => {
  test('docker-unavailable: no docker on PATH', async () => {
    const { loads, exports, directory } = await begin();
    const env = { PATH: directory };
    for (const outcome of [await loads({}, { env }), await exports({}, { env })]) {
      expect(outcome.exitCode).toBe(1);
      expect(errorCode(outcome)).toBe('docker-unavailable');
      expect(errorMessage(outcome)).toContain('no docker on PATH');
    }
  });

  test('docker-unavailable: a client without an engine', async () => {
    const { loads } = await begin({ docker: { fail: 'info' } });
    const outcome = await loads();
    expect(errorCode(outcome)).toBe('docker-unavailable');
    expect(errorMessage(outcome)).toMatch(
      /No Docker engine answers at unix:\/\/\S+\/docker\.sock: there is no such socket/,
    );
    const commands = await loads({}, { env: { DOCKER_HOST: 'ssh://nobody@nowhere.invalid' } });
    expect(errorCode(commands)).toBe('docker-unavailable');
    expect(errorMessage(commands)).toContain('Cannot connect to the Docker daemon');
  });

  test('unsupported-host: an engine with Windows containers', async () => {
    const { loads } = await begin({ docker: { osType: 'windows' } });
    expect(errorCode(await loads())).toBe('unsupported-host');
  });

  test.each([
    ['load-image', 'expected-config-digest'],
    ['load-image', 'registry-image'],
    ['load-image', 'run-id'],
    ['export-image', 'bake-targets'],
  ])('invalid-input: %s with an empty %s, which would switch off the check', async (action, input) => {
    const { loads, exports, service } = await begin();
    const outcome = await (action === 'load-image' ? loads : exports)({ [input]: '' });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toMatch(
      new RegExp(`\`${input}\` is empty and would have no effect.*\`outputs:\`.*\`needs:\`.*\`none\``, 's'),
    );
    expect(service.artifacts).toEqual([]);
  });

  test('unsupported-host: no artifact service', async () => {
    const { exports } = await begin();
    const outcome = await exports({}, { env: { ACTIONS_RUNTIME_TOKEN: undefined, ACTIONS_RESULTS_URL: undefined } });
    expect(errorCode(outcome)).toBe('unsupported-host');
    expect(errorMessage(outcome)).toContain('ACTIONS_RUNTIME_TOKEN');
  });

  test('builder-unsupported: no buildx, and a cache export that the driver doesn’t support', async () => {
    const { exports, docker } = await begin({ docker: { fail: 'buildx' } });
    const without = await exports();
    expect(errorCode(without)).toBe('builder-unsupported');
    expect(errorMessage(without)).toContain('unknown command: docker buildx');
    expect(errorMessage(without)).toContain('docker/setup-buildx-action');
    docker.set({ fail: 'none', driver: 'docker', store: 'classic' });
    const classic = await exports({ 'cache-to': 'type=gha,mode=max,ignore-error=false' });
    expect(errorCode(classic)).toBe('builder-unsupported');
    expect(errorMessage(classic)).toContain('docker/setup-buildx-action');
  });
});

describe('before anything is built', () => {
  test('docker-unavailable: if `docker` is podman, the error suggests `engine: podman`', async () => {
    const { exports, loads, handOver } = await begin({ docker: { fail: 'podman-docker' } });
    await handOver();
    for (const outcome of [await exports({ 'artifact-name': 'built' }), await loads()]) {
      expect(errorCode(outcome)).toBe('docker-unavailable');
      expect(errorMessage(outcome)).toContain('`docker` on this runner is podman (podman version 5.4.2)');
      expect(errorMessage(outcome)).toContain('`engine: podman`');
    }
  });

  test('builder-unsupported: buildx’s folder is read-only', async () => {
    const { exports } = await begin({ docker: { fail: 'buildx-folder' } });
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('builder-unsupported');
    expect(errorMessage(outcome)).toContain('mkdir /home/runner/.docker/buildx: read-only file system');
    expect(errorMessage(outcome)).toContain('BUILDX_CONFIG');
    expect(errorMessage(outcome)).not.toContain('setup-buildx-action');
  });

  test('build-failed: if buildx fails before the build, the error doesn’t refer to the log', async () => {
    const { exports } = await begin({ docker: { fail: 'build', progress: [] } });
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('build-failed');
    expect(errorMessage(outcome)).toContain('Nothing was built.');
    expect(errorMessage(outcome)).not.toContain('The log above shows');
  });

  test('builder-unsupported: a remote builder is unreachable, with buildx’s error', async () => {
    const { exports } = await begin({ docker: { fail: 'builder' } });
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('builder-unsupported');
    expect(errorMessage(outcome)).toContain('[internal] waiting for connection: context deadline exceeded');
    expect(errorMessage(outcome)).not.toContain('The log above shows');
  });
});

describe('during the work', () => {
  test('build-failed: BuildKit’s error, run-integration=false, nothing left behind (S0.6)', async () => {
    const { exports, directory, service } = await begin({ docker: { fail: 'build' } });
    const outcome = await exports();
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('build-failed');
    expect(errorMessage(outcome)).toContain('did not complete successfully: exit code: 2');
    expect(outcome.outputs).toEqual({ 'run-integration': 'false' });
    expect(outcome.summary).toContain('build-failed');
    expect(outcome.leftInTemp).toEqual([]);
    expect(await readdir(directory)).not.toContain('charon.tar');
    expect(service.artifacts).toEqual([]);
  });

  test('transfer-failed: the service refuses, and the reserved name is released', async () => {
    const { exports, service, directory } = await begin();
    service.faults.add({ on: 'put-block', times: 1, effect: { kind: 'status', status: 403 } });
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(outcome.outputs['run-integration']).toBe('false');
    expect((await readdir(directory)).filter((name) => name.startsWith('charon'))).toEqual([]);
    expect((await exports()).exitCode).toBe(0);
  });

  test('transfer-failed: an expired token', async () => {
    const { loads } = await begin();
    const outcome = await loads({}, { env: { ACTIONS_RUNTIME_TOKEN: forgedToken } });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(errorMessage(outcome)).toContain('token was refused');
  });

  test('not-enough-space: the error shows the filesystem, the free and the required space, and the input to change', async () => {
    const { exports, directory } = await begin();
    const small = join(directory, 'small');
    await mkdir(small);
    const wrapper = ['unshare', '--map-root-user', '--mount', process.execPath, '-e', mountThenRun, small];
    const outcome = await exports({ tarball: join(small, 'charon.tar') }, { wrapper });
    expect(errorCode(outcome)).toBe('not-enough-space');
    expect(errorMessage(outcome)).toMatch(/needs \d\d\.\d kB .*small, tmpfs\) has 1\d\.\d kB free/);
    expect(errorMessage(outcome)).toContain('`tarball`');
  });

  test('not-enough-space: the disk fills up while the engine exports', async () => {
    const { exports, directory, docker, image } = await begin();
    docker.set({
      images: [{ imageId: image.configDigest, tags: ['a:1'], diffIds: [], architecture: 'amd64', labels: {} }],
    });
    const small = join(directory, 'small');
    await mkdir(small);
    const wrapper = ['unshare', '--map-root-user', '--mount', process.execPath, '-e', mountThenRun, small];
    const outcome = await exports({ 'source-image': 'a:1' }, { wrapper, env: { RUNNER_TEMP: small } });
    expect(errorCode(outcome)).toBe('not-enough-space');
    expect(errorMessage(outcome)).toContain('ENOSPC');
    expect((await readdir(directory)).filter((name) => name.startsWith('charon'))).toEqual([]);
  });

  test('cancelled: the build is stopped, and nothing is left behind', async () => {
    const { exports, service, directory, docker } = await begin({ docker: { fail: 'hang-build' } });
    const cancel = new AbortController();
    const running = exports({}, { signal: cancel.signal });
    while (!docker.state().calls.some(([, verb]) => verb === 'build')) await sleep(50);
    cancel.abort();
    const outcome = await running;
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('cancelled');
    expect(outcome.leftInTemp).toEqual([]);
    expect(await readdir(directory)).not.toContain('charon.tar');
    expect(service.artifacts).toEqual([]);
  });

  test('two jobs of one host write the same tarball at the same time: the later one gets one warning', async () => {
    const { exports, docker, tarball, directory } = await begin({ docker: { fail: 'hang-build' } });
    const warnings = async (inputs: Readonly<Record<string, string>>): Promise<readonly string[]> => {
      const outcome = await exports(inputs, { job: { jobId: 'other' } });
      expect(outcome.exitCode).toBe(0);
      return outcome.annotations.filter(({ level }) => level === 'warning').map(({ message }) => message);
    };
    const cancel = new AbortController();
    const first = exports({}, { signal: cancel.signal });
    while (!docker.state().calls.some(([, verb]) => verb === 'build')) await sleep(50);
    docker.set({ fail: 'none' });
    expect(await warnings({ 'artifact-name': 'one' })).toEqual([
      expect.stringMatching(/is writing the tarball .*\/charon\.tar now.*runner\.temp/),
    ]);
    expect(await warnings({ 'artifact-name': 'two', tarball: join(directory, 'of-its-own.tar') })).toEqual([]);
    cancel.abort();
    expect(errorCode(await first)).toBe('cancelled');
    expect(await warnings({ 'artifact-name': 'three', tarball })).toEqual([]);
  });

  test('timed-out: a stalled upload is aborted, and the reserved name is released', async () => {
    const { exports, service, directory } = await begin();
    service.faults.add({ on: 'put-block', times: 9, effect: { kind: 'hang', ms: 20_000 } });
    const outcome = await exports({ 'timeout-minutes': '0.03' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('timed-out');
    expect(errorMessage(outcome)).toContain('0.03 minutes (`timeout-minutes`)');
    expect(outcome.outputs['run-integration']).toBe('false');
    expect(outcome.leftInTemp).toEqual([]);
    expect(service.artifacts.filter(({ name }) => name === 'docker-image')).toEqual([]);
    expect((await readdir(directory)).filter((name) => name.startsWith('charon'))).toEqual([]);
  });

  test('timed-out: a stalled download is aborted, and nothing is tagged or kept', async () => {
    const { handOver, loads, service, docker, directory } = await begin({ image: makeImage({ layerBytes: 400_000 }) });
    await handOver();
    service.faults.add({ on: 'get', after: 2, times: 99, effect: { kind: 'hang', ms: 20_000 } });
    const outcome = await loads({ 'timeout-minutes': '0.05', tarball: join(directory, 'kept.tar') });
    expect(errorCode(outcome)).toBe('timed-out');
    expect(outcome.leftInTemp).toEqual([]);
    expect((await readdir(directory)).filter((name) => name.startsWith('kept'))).toEqual([]);
    expect(docker.state().images).toEqual([]);
  });

  // Docker is used through its API, on an SSH host through its command, and podman through its command.
  describe.each([
    ['docker’s API', {}, {}, false],
    ['docker', {}, { DOCKER_HOST: 'ssh://nobody@nowhere.invalid' }, true],
    ['podman', { engine: 'podman' }, {}, true],
  ] as const)('%s never responds', (_, inputs, env, isCommand) => {
    test('timed-out: the step ends', async () => {
      const { loads, docker } = await begin({ docker: { fail: 'hang-info' } });
      const outcome = await loads({ ...inputs, 'timeout-minutes': '0.01' }, { env });
      expect(outcome.exitCode).toBe(1);
      expect(errorCode(outcome)).toBe('timed-out');
      expect(outcome.annotations).toHaveLength(1);
      expect(await processesOf(docker)).toEqual([]);
    });

    test('cancelled: no process outlives the step', async () => {
      const { loads, docker } = await begin({ docker: { fail: 'hang-info' } });
      const cancel = new AbortController();
      const running = loads(inputs, { env, signal: cancel.signal });
      while (docker.state().calls.length === 0) await sleep(20);
      if (isCommand) expect(await processesOf(docker)).not.toEqual([]);
      cancel.abort();
      expect(errorCode(await running)).toBe('cancelled');
      expect(await processesOf(docker)).toEqual([]);
    });
  });

  test('cancelled in the middle of an upload: the reserved name is released', async () => {
    const { exports, service, directory } = await begin();
    service.faults.add({ on: 'put-block', times: 9, effect: { kind: 'hang', ms: 20_000 } });
    const cancel = new AbortController();
    const running = exports({}, { signal: cancel.signal });
    while (!service.faults.seen.includes('put-block')) await sleep(20);
    cancel.abort();
    const outcome = await running;
    expect(errorCode(outcome)).toBe('cancelled');
    expect(service.artifacts.filter(({ name }) => name === 'docker-image')).toEqual([]);
    expect((await readdir(directory)).filter((name) => name.startsWith('charon'))).toEqual([]);
  });
});

test('cancelled while the engine fetches layers: the temporary tag is removed anyway', async () => {
  const { exports, loads, service, docker } = await begin();
  await exports();
  docker.set({ images: [], calls: [] });
  const gets = (): number => service.faults.seen.filter((operation) => operation === 'get').length;
  const before = gets();
  service.faults.add({ on: 'get', after: 3, times: 99, effect: { kind: 'hang', ms: 20_000 } });
  const cancel = new AbortController();
  const running = loads({}, { signal: cancel.signal });
  while (!docker.state().calls.some((call) => verbOf(call) === 'pull')) await sleep(20);
  // Three requests have succeeded, and the fourth, for a layer, hangs.
  while (gets() < before + 4) await sleep(20);
  cancel.abort();
  expect(errorCode(await running)).toBe('cancelled');
  expect(docker.state().images).toEqual([]);
});

test('a step ends even if its log is no longer read', async () => {
  const { directory } = await begin();
  const summary = join(directory, 'summary.md');
  await writeFile(summary, '');
  const child = spawn(process.execPath, [join('dist', 'load-image', 'index.js')], {
    env: { ...process.env, RUNNER_TEMP: directory, GITHUB_STEP_SUMMARY: summary },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  child.stdout.destroy();
  try {
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(await readFile(summary, 'utf8')).toContain('invalid-input');
  } finally {
    child.kill('SIGKILL');
  }
});

test('cancelled between the tags of an image: new tags are removed, and a moved tag is restored (S0.5)', async () => {
  const { handOver, loads, docker } = await begin();
  const names = Array.from({ length: 30 }, (_, at) => `app:${String(at + 1)}`);
  await handOver({ tags: names.join('\n') });
  const others = { diffIds: [`sha256:${'1'.repeat(64)}`], architecture: 'amd64', labels: {} };
  const before = [{ ...others, imageId: `sha256:${'2'.repeat(64)}`, tags: ['app:2', 'app:old'] }];
  docker.set({ images: before, calls: [] });
  const cancel = new AbortController();
  const running = loads({}, { signal: cancel.signal });
  const tagged = (): number => docker.state().calls.filter((call) => verbOf(call) === 'tag').length;
  while (tagged() < 5) await sleep(10);
  cancel.abort();
  const outcome = await running;
  expect(errorCode(outcome)).toBe('cancelled');
  expect(outcome.log).not.toContain('could not be restored');
  const { images } = docker.state();
  expect(images.map(({ imageId, tags }) => ({ imageId, tags: [...tags].sort() }))).toEqual([
    { imageId: before[0]?.imageId, tags: ['app:2', 'app:old'] },
  ]);
});

/** Returns the command lines of the running fake commands. */
async function processesOf({ directory }: FakeDocker): Promise<readonly string[]> {
  const running = await Promise.all(
    (await readdir('/proc'))
      .filter((pid) => /^\d+$/.test(pid))
      .map(async (pid) => {
        const read = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
        return (await read('environ')).includes(`FAKE_DOCKER=${directory}`) ? read('cmdline') : '';
      }),
  );
  return running.filter((line) => line !== '' && !line.includes('/dist/'));
}

// Not a shell, because it would drop the variables of inputs, which have hyphens in their names.
const mountThenRun = `
  const { spawnSync } = require('node:child_process');
  const [, small, program, ...args] = process.argv;
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', small], { stdio: 'inherit' });
  process.exit(mounted.status || spawnSync(program, args, { stdio: 'inherit' }).status);
`;

const forgedToken = ['{}', JSON.stringify({ scp: 'Actions.Results:a:b' }), 'x']
  .map((part) => Buffer.from(part).toString('base64url'))
  .join('.');
