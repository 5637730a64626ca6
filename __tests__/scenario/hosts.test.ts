import { describe, expect, test } from '@jest/globals';
import { makeImage } from '../fixtures/image.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';
import { begin, useScenarios } from '../fixtures/scenario-suite.ts';

useScenarios();

const runner = (os: string, architecture: string): Readonly<Record<string, string>> => ({
  RUNNER_OS: os,
  RUNNER_ARCH: architecture,
});

describe('unsupported-host', () => {
  test.each([
    ['isn’t set', undefined, "GITHUB_OUTPUT isn't set"],
    ['is a folder', '/', '"/"'],
    ['doesn’t exist', '/nowhere/output', '"/nowhere/output"'],
    ['accepts no bytes', '/dev/full', '"/dev/full"'],
  ])('a step fails before it does anything if GITHUB_OUTPUT %s', async (_, path, told) => {
    const { exports, loads, handOver, docker, service } = await begin();
    await handOver();
    const before = docker.state();
    for (const outcome of [
      await exports({ 'artifact-name': 'other' }, { env: { GITHUB_OUTPUT: path } }),
      await loads({}, { env: { GITHUB_OUTPUT: path } }),
    ]) {
      expect(outcome.exitCode).toBe(1);
      expect(errorCode(outcome)).toBe('unsupported-host');
      expect(errorMessage(outcome)).toContain(told);
    }
    expect(docker.state()).toEqual(before);
    expect(service.artifacts).toHaveLength(1);
  });

  test('a missing RUNNER_TEMP is shown in the error', async () => {
    const { exports, loads } = await begin();
    for (const step of [exports, loads]) {
      const outcome = await step({}, { env: { RUNNER_TEMP: '/nowhere/temp' } });
      expect(errorCode(outcome)).toBe('unsupported-host');
      expect(errorMessage(outcome)).toContain('RUNNER_TEMP is "/nowhere/temp"');
    }
  });

  test.each([
    ['socks5://127.0.0.1:1080', 'socks5://127.0.0.1:1080'],
    ['http://user:secret@', 'http://***@'],
    ['proxy.example:99999', 'proxy.example:99999'],
  ])('the proxy %s is shown with its variable, without its password', async (value, shown) => {
    const { exports, loads } = await begin();
    for (const step of [exports, loads]) {
      const outcome = await step({}, { env: { HTTPS_PROXY: value } });
      expect(errorCode(outcome)).toBe('unsupported-host');
      expect(errorMessage(outcome)).toContain(`HTTPS_PROXY names the proxy "${shown}"`);
    }
  });

  test.each([
    ['windows', 'x86_64', 'windows/amd64'],
    ['linux', 's390x', 'linux/s390x'],
    ['linux', 'armv7l', 'linux/arm'],
  ])('the error for an engine of %s on %s shows its platform and what to use', async (osType, architecture, shown) => {
    const { loads } = await begin({ docker: { osType, architecture } });
    const outcome = await loads({ 'check-platform': 'false' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('unsupported-host');
    expect(errorMessage(outcome)).toContain(`runs ${shown} containers`);
    expect(errorMessage(outcome)).toContain('ubuntu-24.04-arm');
  });

  test('a build in an engine with Windows containers is rejected', async () => {
    const { exports, service } = await begin({ docker: { osType: 'windows', driver: 'docker' } });
    expect(errorCode(await exports({}, { env: runner('Windows', 'X64') }))).toBe('unsupported-host');
    expect(service.artifacts).toEqual([]);
  });

  test.each([
    ['macOS', 'ARM64'],
    ['Windows', 'X64'],
    ['Linux', 'ARM'],
  ])('the error for a %s %s runner without docker shows the runner', async (os, architecture) => {
    const { loads, exports, directory } = await begin();
    const env = { ...runner(os, architecture), PATH: directory };
    for (const outcome of [await loads({}, { env }), await exports({}, { env })]) {
      expect(errorCode(outcome)).toBe('unsupported-host');
      expect(errorMessage(outcome)).toContain(`This runner is ${os} ${architecture}`);
      expect(errorMessage(outcome)).toContain('no docker on PATH');
      expect(errorMessage(outcome)).toContain('ubuntu-latest');
    }
  });

  test('a Linux runner without docker is docker-unavailable', async () => {
    const { loads, directory } = await begin();
    const outcome = await loads({}, { env: { ...runner('Linux', 'ARM64'), PATH: directory } });
    expect(errorCode(outcome)).toBe('docker-unavailable');
  });

  test('a macOS runner with an engine for Linux containers works', async () => {
    const { handOver, loads } = await begin();
    const env = runner('macOS', 'ARM64');
    expect((await handOver({}, { env })).exitCode).toBe(0);
    const outcome = await loads({}, { env });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs['loaded']).toBe('true');
  });

  test('a tarball is handed over on any host, because this needs no engine', async () => {
    const { handOver, docker, directory } = await begin();
    const outcome = await handOver({}, { env: { ...runner('Windows', 'X64'), PATH: directory } });
    expect(outcome.outputs['run-integration']).toBe('true');
    expect(docker.state().calls).toEqual([]);
  });
});

describe('arm64', () => {
  const arm64 = { image: makeImage({ architecture: 'arm64' }), docker: { architecture: 'aarch64' } };

  test.each(['linux/arm64', 'linux/arm64/v8', 'native'])(
    '`platform: %s` builds and loads there (S0.1)',
    async (platform) => {
      const { exports, loads, docker } = await begin(arm64);
      const env = runner('Linux', 'ARM64');
      const exported = await exports({ platform }, { env });
      expect(exported.log).not.toContain('::error');
      expect(exported.outputs['platform']).toBe('linux/arm64');
      const build = docker.state().calls.find(([, verb]) => verb === 'build') ?? [];
      expect(build[build.indexOf('--platform') + 1]).toBe('linux/arm64');
      const loaded = await loads({}, { env });
      expect(loaded.log).not.toContain('::error');
      expect(loaded.outputs).toMatchObject({ platform: 'linux/arm64', loaded: 'true' });
    },
  );

  test('the default, linux/amd64, is a platform-mismatch there, with a hint about what to set (S0.1)', async () => {
    const { handOver, loads, docker } = await begin({ docker: { architecture: 'aarch64' } });
    await handOver();
    const outcome = await loads();
    expect(errorCode(outcome)).toBe('platform-mismatch');
    expect(errorMessage(outcome)).toContain('The image is for linux/amd64');
    expect(errorMessage(outcome)).toContain('`platform: linux/arm64`');
    expect(docker.state().images).toEqual([]);
    const emulated = await loads({ 'check-platform': 'false' });
    expect(emulated.outputs['loaded']).toBe('true');
  });

  test('unsupported-host: `platform: native` on a runner without RUNNER_ARCH', async () => {
    const { exports, docker } = await begin();
    const outcome = await exports({ platform: 'native' }, { env: runner('', '') });
    expect(errorCode(outcome)).toBe('unsupported-host');
    expect(errorMessage(outcome)).toContain('RUNNER_ARCH is ""');
    expect(docker.state().calls).toEqual([]);
  });
});
