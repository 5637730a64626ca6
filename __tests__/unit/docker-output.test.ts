import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { BuildProgress } from '../../shared/docker/build-progress.ts';
import {
  parseImages,
  parseInfo,
  parseInspect,
  parseLoadOutput,
  parsePush,
  parseListing,
  saysNoSuchImage,
} from '../../shared/docker/output.ts';
import { imageStores } from '../../shared/image/image-store.ts';

describe('the output of docker', () => {
  test('info: the driver status shows the image store', () => {
    const info = {
      ServerVersion: '29.0.0',
      OSType: 'linux',
      Architecture: 'aarch64',
      DockerRootDir: '/d',
      Name: 'host',
    };
    const containerd = { ...info, DriverStatus: [['driver-type', 'io.containerd.snapshotter.v1']] };
    expect(parseInfo(JSON.stringify(containerd))).toMatchObject({
      imageStore: imageStores.containerd,
      platform: { os: 'linux', architecture: 'arm64' },
      dataRoot: '/d',
      hostName: 'host',
    });
    const classic = { ...info, DriverStatus: [['Backing Filesystem', 'extfs']] };
    expect(parseInfo(JSON.stringify(classic))?.imageStore).toBe(imageStores.classic);
  });

  test.each(['', 'null', '[]', '{"ServerErrors":["Cannot connect"]}'])('info: %j shows no engine', (text) => {
    expect(parseInfo(text)).toBeUndefined();
  });

  test('inspect: only complete diff IDs and string labels are read', () => {
    const image = {
      Id: 'sha256:1',
      Os: 'linux',
      Architecture: 'amd64',
      RootFS: { Layers: ['x', `sha256:${'a'.repeat(64)}`] },
      Config: { Labels: { a: 'b', c: 1 } },
    };
    expect(parseInspect(JSON.stringify(image))).toMatchObject({
      diffIds: [`sha256:${'a'.repeat(64)}`],
      labels: { a: 'b' },
      repoTags: [],
    });
    expect(parseInspect('[]')).toBeUndefined();
  });

  // The fields that matter here, as returned by Docker 28.5 and 29.7.
  describe('inspect: the completeness of an image in the containerd store', () => {
    const manifest = (architecture: string, available: boolean, kind = 'image'): object => ({
      Available: available,
      Kind: kind,
      ...(kind === 'image' ? { ImageData: { Platform: { os: 'linux', architecture } } } : {}),
    });
    test.each([
      [
        'is complete when all its content is available',
        [manifest('amd64', true), manifest('', true, 'attestation')],
        true,
      ],
      [
        'is incomplete when its layers are missing',
        [manifest('amd64', false), manifest('', true, 'attestation')],
        false,
      ],
      [
        'is incomplete when only another platform is available',
        [manifest('amd64', false), manifest('arm64', true)],
        false,
      ],
      [
        'is complete when only its own platform is available',
        [manifest('amd64', true), manifest('arm64', false)],
        true,
      ],
      ['is of unknown completeness in an engine that is too old to report it', undefined, undefined],
    ])('an image in the containerd store %s', (_, manifests, whole) => {
      const image = { Id: 'sha256:1', Os: 'linux', Architecture: 'amd64', Descriptor: {}, Manifests: manifests };
      expect(parseInspect(JSON.stringify(image))?.isWhole).toBe(whole);
    });

    test.each([
      [{ Descriptor: { digest: 'sha256:1' } }, undefined],
      [{}, true],
    ])('an image with %j is complete: %s', (more, whole) => {
      expect(parseInspect(JSON.stringify({ Id: 'sha256:1', ...more }))?.isWhole).toBe(whole);
    });
  });

  test('load: several references, IDs, and a failed unpack with exit code 0 are recognized', () => {
    const text =
      'Loaded image: a:1\nLoaded image ID: sha256:abc\r\nError unpacking image a:1: no space left on device\n';
    expect(parseLoadOutput(text)).toEqual({
      loaded: ['a:1', 'sha256:abc'],
      unpackError: 'Error unpacking image a:1: no space left on device',
    });
    expect(parseLoadOutput('')).toEqual({ loaded: [] });
  });

  test.each([
    [`The push refers to repository [a/b]\n1f2: Pushed\n1: digest: sha256:${'a'.repeat(64)} size: 523\n`, true],
    ['1: digest: sha256:short size: 523\n', false],
    ['1f2: Pushed\n', false],
  ])('push: the complete digest is read from the last line (%j: %s) (S1.7)', (text, told) => {
    expect(parsePush(text)).toBe(told ? `sha256:${'a'.repeat(64)}` : undefined);
  });

  test('ls: images are listed by tag, by digest only, and without a name', () => {
    const pulled = `127.0.0.1:5000/a:<none> sha256:${'d'.repeat(64)} sha256:4`;
    const lines = [
      'a:1 <none> sha256:1',
      '<none>:<none> <none> sha256:2',
      `b:5/c:x sha256:${'e'.repeat(64)} sha256:3`,
      pulled,
      '',
    ];
    expect(parseListing(lines.join('\n'))).toEqual([
      { reference: 'a:1', imageId: 'sha256:1' },
      { reference: undefined, imageId: 'sha256:2' },
      { reference: 'b:5/c:x', imageId: 'sha256:3' },
      { reference: `127.0.0.1:5000/a@sha256:${'d'.repeat(64)}`, imageId: 'sha256:4' },
    ]);
  });

  test('the list of the API names images like ls: by tag, by digest where the repository has no tag, and without a name', () => {
    const digest = `sha256:${'d'.repeat(64)}`;
    const images = [
      { Id: 'sha256:1', RepoTags: ['a:1', 'b:5/c:x'], RepoDigests: [`a@${digest}`, `d@${digest}`] },
      { Id: 'sha256:2', RepoTags: [], RepoDigests: [] },
      { Id: 'sha256:3', RepoTags: ['<none>:<none>'], RepoDigests: ['<none>@<none>'] },
      { Id: 'sha256:4', RepoTags: null, RepoDigests: [`127.0.0.1:5000/a@${digest}`] },
    ];
    expect(parseImages(JSON.stringify(images))).toEqual([
      { reference: 'a:1', imageId: 'sha256:1' },
      { reference: 'b:5/c:x', imageId: 'sha256:1' },
      { reference: `d@${digest}`, imageId: 'sha256:1' },
      { reference: undefined, imageId: 'sha256:2' },
      { reference: undefined, imageId: 'sha256:3' },
      { reference: `127.0.0.1:5000/a@${digest}`, imageId: 'sha256:4' },
    ]);
    expect(parseImages('{"message":"no"}')).toBeUndefined();
  });

  test.each([
    ['Error response from daemon: No such image: a:1', true],
    ['Error: a:1: image not known', true],
    ['Cannot connect to the Docker daemon', false],
  ])('the error %j shows that the image is missing: %s', (text, missing) => {
    expect(saysNoSuchImage(text)).toBe(missing);
  });
});

describe('build progress shows the steps and their cache (S0.3)', () => {
  const vertex = (digest: string, name: string, more: object): string =>
    JSON.stringify({ vertexes: [{ digest, name, ...more }] });
  const started = '2026-01-01T00:00:00Z';
  const completed = '2026-01-01T00:00:02.5Z';

  test('build progress counts instructions, but not FROM or internal steps; a cached step remains cached, and each step counts once', () => {
    const progress = new BuildProgress(() => undefined);
    progress.line(vertex('1', '[internal] load build definition', { started, completed }));
    progress.line(vertex('2', '[build 1/3] FROM docker.io/library/node:24', { started, completed }));
    progress.line(vertex('3', '[build 2/3] COPY . .', { started, completed, cached: true, inputs: ['2'] }));
    progress.line(vertex('3', '[build 2/3] COPY . .', { started, completed }));
    progress.line(vertex('4', '[linux/amd64 build 3/3] RUN make', { started, completed }));
    progress.line(vertex('5', '[2/2] RUN never finished', { started }));
    progress.line(vertex('6', 'exporting to oci image format', { started, completed }));
    expect(progress.steps()).toEqual([
      { name: '[build 2/3] COPY . .', cached: true },
      { name: '[linux/amd64 build 3/3] RUN make', cached: false },
    ]);
  });

  test('build progress shortens an instruction of many kilobytes in the names of steps and in the failure', () => {
    const progress = new BuildProgress(() => undefined);
    const long = `RUN ${'x'.repeat(60_000)} && false`;
    progress.line(vertex('1', `[1/1] ${long}`, { started, completed }));
    progress.line(`ERROR: failed to solve: process "${long}" did not complete successfully: exit code: 1`);
    expect(progress.steps()[0]?.name).toMatch(/^\[1\/1\] RUN x{290}…$/);
    expect(progress.failure()).toMatch(/^ERROR: failed to solve: .* did not complete successfully: exit code: 1$/);
    expect(progress.failure().length).toBeLessThan(3100);
  });

  test('build progress prints readable lines, including logs and warnings', () => {
    const lines: string[] = [];
    const progress = new BuildProgress((line) => lines.push(line));
    const base64 = (text: string): string => Buffer.from(text).toString('base64');
    progress.line(vertex('1', '[1/2] RUN echo', { started }));
    progress.line(JSON.stringify({ logs: [{ vertex: '1', data: base64('hello\nworld\n') }] }));
    progress.line(vertex('1', '[1/2] RUN echo', { started, completed }));
    progress.line(JSON.stringify({ warnings: [{ short: base64('FromAsCasing') }] }));
    progress.line('');
    expect(lines).toEqual(['#1 [1/2] RUN echo', '#1 hello', '#1 world', '#1 DONE 2.5s', 'WARN: FromAsCasing']);
  });

  test('build progress reports the last ERROR line of BuildKit as the failure, or the error of the step if there is none', () => {
    const progress = new BuildProgress(() => undefined);
    expect(progress.failure()).toBe('no message');
    progress.line(vertex('1', '[1/1] RUN make', { started, completed, error: 'exit code: 2' }));
    expect(progress.failure()).toBe('[1/1] RUN make: exit code: 2');
    progress.line('ERROR: failed to solve: exit code: 2');
    expect(progress.failure()).toBe('ERROR: failed to solve: exit code: 2');
  });

  test('build progress counts one step per instruction: a download is not a step, and a copy and its link are one step', () => {
    const progress = new BuildProgress(() => undefined);
    const inputs = ['sha256:x'];
    progress.line(vertex('1', '[2/3] ADD http://a/b /b', { started, completed }));
    progress.line(vertex('2', '[2/3] ADD http://a/b /b', { started, completed, inputs, cached: true }));
    progress.line(vertex('3', '[3/3] COPY --link a /a', { started, completed, inputs, cached: true }));
    progress.line(vertex('4', '[3/3] LINK COPY --link a /a', { started, completed, inputs }));
    expect(progress.steps()).toEqual([
      { name: '[2/3] ADD http://a/b /b', cached: true },
      { name: '[3/3] COPY --link a /a', cached: false },
    ]);
  });
});

// The output of buildx 0.29 with --progress=rawjson; each name ends with the version of BuildKit. BuildKit 0.28 and
// 0.34 are from the Go module proxy, behind a builder with the driver `remote`.
const recordings = fileURLToPath(new URL('../fixtures/buildx/', import.meta.url));

function replay(recording: string): BuildProgress {
  const progress = new BuildProgress(() => undefined);
  for (const line of readFileSync(`${recordings}${recording}.jsonl`, 'utf8').split('\n')) progress.line(line);
  return progress;
}

describe('recorded builds', () => {
  test.each([
    ['push-refused.docker-28.5', true],
    ['push-refused.buildkit-0.28', true],
    ['push-refused.buildkit-0.34', true],
    ['push-unreachable.docker-28.5', true],
    ['push-unreachable.buildkit-0.28', true],
    ['push-unreachable.buildkit-0.34', true],
    ['disk-full-beside-push.buildkit-0.28', false],
    ['disk-full-beside-push.buildkit-0.34', false],
    ['disk-full.docker-28.5', false],
    ['step-failed.docker-28.5', false],
    ['step-failed.buildkit-0.34', false],
    ['urls-and-links-cached.buildkit-0.34', false],
  ])('the recorded build %s shows a failed push: %s (S1.1, S1.8)', (recording, failed) => {
    expect(replay(recording).pushFailed).toBe(failed);
  });

  test.each(['docker-28.5', 'buildkit-0.28', 'buildkit-0.34'])(
    'the recorded build of %s shows that a push has started',
    (version) => {
      expect(replay(`push-refused.${version}`).pushing).toBe(true);
    },
  );

  test('a session error that the build survived is not reported as its failure', () => {
    expect(replay('push-refused.docker-28.5').failure()).toMatch(/^ERROR: .* failed to push .* 401 Unauthorized$/);
    expect(replay('disk-full.docker-28.5').failure()).toContain('no space left on device');
  });

  test.each([
    ['urls-and-links-executed.docker-28.5', 1],
    ['urls-and-links-cached.docker-28.5', 9],
    ['urls-and-links-cached.buildkit-0.34', 9],
  ])('the recorded build %s has nine instructions, and %i of them are cached (S0.3)', (recording, cached) => {
    const steps = replay(recording).steps();
    expect(new Set(steps.map(({ name }) => name)).size).toBe(9);
    expect(steps.map(({ name }) => name)).not.toContainEqual(expect.stringContaining('] LINK '));
    expect(steps).toHaveLength(9);
    expect(steps.filter((step) => step.cached)).toHaveLength(cached);
  });
});
