import { describe, expect, test } from '@jest/globals';
import { HandoverError } from '../../shared/base/errors.ts';
import type { CliOutput, DockerCli } from '../../shared/docker/cli.ts';
import { type Engine, podmanEngine, podmanName, requireSupportedEngine } from '../../shared/docker/engine.ts';
import { parsePodmanInfo, parsePodmanInspect } from '../../shared/docker/output.ts';
import { guardTags } from '../../shared/docker/tag-guard.ts';
import { platformOf } from '../../shared/image/platform.ts';
import { imageStores } from '../../shared/image/image-store.ts';
import { explainRunner, runnerPlatform } from '../../shared/image/host.ts';

const hex = 'a'.repeat(64);

describe('the output of podman', () => {
  test('info: the platform, the storage and the machine are read', () => {
    const info = {
      host: { arch: 'arm64', os: 'linux', hostname: 'host' },
      store: { graphRoot: '/var/lib/containers/storage' },
      version: { Version: '5.0.0' },
    };
    expect(parsePodmanInfo(JSON.stringify(info, undefined, 2))).toEqual({
      platform: { os: 'linux', architecture: 'arm64' },
      imageStore: imageStores.podman,
      dataRoot: '/var/lib/containers/storage',
      hostName: 'host',
    });
  });

  test.each(['', 'null', '[]', '{}', '{"host":null}', 'Cannot connect to Podman.'])(
    'info: %j is not from podman',
    (text) => {
      expect(parsePodmanInfo(text)).toBeUndefined();
    },
  );

  test('inspect: the list contains one image, whose ID lacks the algorithm', () => {
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
  ])('a reference %s is listed as %s', (reference, listed) => {
    expect(podmanName(reference)).toBe(listed);
  });
});

describe('hosts', () => {
  const engine = { imageStore: imageStores.classic, dataRoot: '', hostName: '' } as const;

  test.each([
    ['linux', 'x86_64', true],
    ['linux', 'aarch64', true],
    ['linux', 'arm64', true],
    ['linux', 'armv7l', false],
    ['linux', 'riscv64', false],
    ['windows', 'x86_64', false],
    ['freebsd', 'amd64', false],
  ])('an engine for %s on %s is supported: %s', (os, architecture, supported) => {
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
  ] as const)('on a %s %s runner, the error %s becomes %s', (os, architecture, code, told) => {
    const explained = explainRunner(new HandoverError(code, 'what', 'next'), { os, architecture });
    expect(explained).toMatchObject({ code: told, message: expect.stringContaining('what') });
  });

  test('other errors are unchanged', () => {
    const error = new TypeError('x');
    expect(explainRunner(error, { os: 'macOS', architecture: 'ARM64' })).toBe(error);
  });

  test.each([
    ['X64', 'amd64'],
    ['ARM64', 'arm64'],
  ])('the native platform on %s is linux/%s', (architecture, expected) => {
    expect(runnerPlatform({ os: 'Linux', architecture })).toEqual({ os: 'linux', architecture: expected });
  });

  test.each(['', 'ARM', 'X86', 'constructor'])('the native platform on "%s" is an error', (architecture) => {
    expect(() => runnerPlatform({ os: 'Linux', architecture })).toThrow(/RUNNER_ARCH is/);
  });
});

describe('the removal of temporary tags', () => {
  const hex = (digit: string): string => `sha256:${digit.repeat(64)}`;
  /** Returns a fake podman with these references; `list` contains the current ones. */
  const stub = (
    initial: Readonly<Record<string, string>>,
  ): { readonly engine: Engine; readonly list: Map<string, string> } => {
    const list = new Map(Object.entries(initial));
    const answer = (stdout = ''): CliOutput => ({ exitCode: 0, stdout, stderr: '' });
    const query = (args: readonly string[]): Promise<CliOutput> => {
      const [, verb, one = '', other = ''] = args;
      if (verb === 'rm') list.delete(one);
      if (verb === 'tag') list.set(other, one);
      if (verb !== 'inspect') return Promise.resolve(answer());
      const id = list.get(one) ?? list.get(`localhost/${one}`);
      return Promise.resolve(
        id === undefined
          ? { exitCode: 125, stdout: '', stderr: `Error: ${one}: image not known` }
          : answer(JSON.stringify([{ Id: id.slice('sha256:'.length) }])),
      );
    };
    const start = (): Promise<never> => Promise.reject(new Error('nothing is started here'));
    const forCleanUp: DockerCli = {
      program: 'podman',
      available: () => Promise.resolve(),
      query,
      start,
      get forCleanUp() {
        return forCleanUp;
      },
    };
    const cli: DockerCli = { ...forCleanUp, forCleanUp };
    return { engine: podmanEngine(cli, '/nowhere'), list };
  };

  test('a short name that was set is removed, and a name that was moved is restored', async () => {
    const { engine, list } = stub({ 'localhost/old:1': hex('1') });
    {
      await using guard = guardTags(engine, (message) => {
        throw new Error(message);
      });
      await guard.tag(hex('2'), 'charon:local');
      await guard.tag(hex('2'), 'old:1');
      expect(list.get('localhost/charon:local')).toBe(hex('2'));
    }
    expect(Object.fromEntries(list)).toEqual({ 'localhost/old:1': hex('1') });
  });

  test('a name that another process has moved is kept', async () => {
    const { engine, list } = stub({ 'localhost/old:1': hex('1') });
    {
      await using guard = guardTags(engine, (message) => {
        throw new Error(message);
      });
      await guard.tag(hex('2'), 'old:1');
      await guard.tag(hex('2'), 'charon:local');
      list.set('localhost/old:1', hex('3'));
      list.delete('localhost/charon:local');
    }
    expect(Object.fromEntries(list)).toEqual({ 'localhost/old:1': hex('3') });
  });
});
