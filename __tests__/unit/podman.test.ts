import { describe, expect, test } from '@jest/globals';
import { parsePodmanInfo, parsePodmanInspect, podmanName } from '../../shared/docker/podman-output.ts';
import { requireSupportedEngine } from '../../shared/docker/supported-engine.ts';
import { HandoverError } from '../../shared/errors.ts';
import { platformOf } from '../../shared/image/platform.ts';
import { explainRunner, runnerPlatform } from '../../shared/runner.ts';

const hex = 'a'.repeat(64);

describe('what podman prints', () => {
  test('info: the platform, the storage and the machine', () => {
    const info = {
      host: { arch: 'arm64', os: 'linux', hostname: 'host' },
      store: { graphRoot: '/var/lib/containers/storage' },
      version: { Version: '5.0.0' },
    };
    expect(parsePodmanInfo(JSON.stringify(info, undefined, 2))).toEqual({
      version: '5.0.0',
      platform: { os: 'linux', architecture: 'arm64' },
      imageStore: 'podman',
      dataRoot: '/var/lib/containers/storage',
      hostName: 'host',
    });
  });

  test.each(['', 'null', '[]', '{}', '{"host":null}', 'Cannot connect to Podman.'])('%j is no podman', (text) => {
    expect(parsePodmanInfo(text)).toBeUndefined();
  });

  test('inspect: a list of one, whose ID lacks the algorithm', () => {
    const image = { Id: hex, Os: 'linux', Architecture: 'amd64', RepoTags: ['localhost/a:1'] };
    expect(parsePodmanInspect(JSON.stringify([image]))).toMatchObject({
      imageId: `sha256:${hex}`,
      repoTags: ['localhost/a:1'],
    });
    expect(parsePodmanInspect('[]')).toBeUndefined();
    expect(parsePodmanInspect('')).toBeUndefined();
  });

  test.each([
    ['charon:local', 'localhost/charon:local'],
    ['org/charon:1', 'localhost/org/charon:1'],
    ['localhost/charon:local', 'localhost/charon:local'],
    ['localhost:5000/charon:1', 'localhost:5000/charon:1'],
    ['ghcr.io/org/charon:1', 'ghcr.io/org/charon:1'],
    [`sha256:${hex}`, `sha256:${hex}`],
  ])('%s is listed as %s', (reference, listed) => {
    expect(podmanName(reference)).toBe(listed);
  });
});

describe('hosts', () => {
  const engine = { version: '1', imageStore: 'classic', dataRoot: '', hostName: '' } as const;

  test.each([
    ['linux', 'x86_64', true],
    ['linux', 'aarch64', true],
    ['linux', 'arm64', true],
    ['linux', 'armv7l', false],
    ['linux', 'riscv64', false],
    ['windows', 'x86_64', false],
    ['freebsd', 'amd64', false],
  ])('an engine of %s on %s: %s', (os, architecture, supported) => {
    const require = (): unknown => requireSupportedEngine({ ...engine, platform: platformOf(os, architecture) });
    if (supported) expect(require()).toBeDefined();
    else expect(require).toThrow(/needs Linux containers on amd64 or arm64/);
  });

  test.each([
    ['macOS', 'ARM64', 'docker-unavailable', 'unsupported-host'],
    ['Windows', 'X64', 'builder-unsupported', 'unsupported-host'],
    ['Linux', 'ARM', 'docker-unavailable', 'unsupported-host'],
    ['Linux', 'X64', 'docker-unavailable', 'docker-unavailable'],
    ['Linux', 'ARM64', 'builder-unsupported', 'builder-unsupported'],
    ['macOS', 'ARM64', 'builder-unsupported', 'builder-unsupported'],
    ['macOS', 'ARM64', 'artifact-not-found', 'artifact-not-found'],
    ['', '', 'docker-unavailable', 'docker-unavailable'],
  ] as const)('on %s %s, %s is %s', (os, architecture, code, told) => {
    const explained = explainRunner(new HandoverError(code, 'what', 'next'), { os, architecture });
    expect(explained).toMatchObject({ code: told, message: expect.stringContaining('what') });
  });

  test('other errors stay as they are', () => {
    const error = new TypeError('x');
    expect(explainRunner(error, { os: 'macOS', architecture: 'ARM64' })).toBe(error);
  });

  test.each([
    ['X64', 'amd64'],
    ['ARM64', 'arm64'],
  ])('native on %s is linux/%s', (architecture, expected) => {
    expect(runnerPlatform({ os: 'Linux', architecture })).toEqual({ os: 'linux', architecture: expected });
  });

  test.each(['', 'ARM', 'X86', 'constructor'])('native on "%s" is an error', (architecture) => {
    expect(() => runnerPlatform({ os: 'Linux', architecture })).toThrow(/RUNNER_ARCH is/);
  });
});
