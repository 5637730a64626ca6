import { describe, expect, test } from '@jest/globals';
import { buildInputs as build, exportFacts as facts, exportInputs as defaults } from '../fixtures/export-inputs.ts';
import type { ExportInputs } from '../../export-image/inputs.ts';
import { noAttestations } from '../../export-image/plan/push-plan.ts';
import { describeSource, type ExportFacts, planExport } from '../../export-image/plan/plan.ts';
import { formatReference } from '../../shared/image/reference.ts';

const digest = `sha256:${'d'.repeat(64)}`;

const plan = (change: Partial<ExportInputs>, more: Partial<ExportFacts> = {}) =>
  planExport({ ...defaults, ...change }, { ...facts, ...more });

function nameOf(change: Partial<ExportInputs>): string | undefined {
  const { reference } = plan(change);
  return reference === undefined ? undefined : formatReference(reference);
}

describe('a plan without any input', () => {
  test('the default plan is a build for linux/amd64, handed over as charon:local in docker-image for a day (S0.1, S0.2)', () => {
    expect(plan({})).toEqual({
      kind: 'image',
      source: { kind: 'build', build, secrets: [] },
      reference: { repository: 'charon', tag: 'local' },
      tags: [],
      immutableTag: undefined,
      platform: { os: 'linux', architecture: 'amd64' },
      compression: { built: { format: 'gzip', level: 1 }, saved: { format: 'zstd', level: 1 } },
      further: [],
      tarballPath: '/tmp/charon.tar',
      artifactName: 'docker-image',
      retentionDays: 1,
      requireCache: false,
      engine: 'docker',
      jobKey: '',
      push: undefined,
      attestations: noAttestations,
      remarks: [],
      notices: [],
      warnings: [],
      whenTaken: 'fail',
    });
  });
});

describe('the reference', () => {
  test.each([
    ['a build', {}, 'charon:local'],
    ['a build with a name', { image: 'ghcr.io/org/charon:1' }, 'ghcr.io/org/charon:1'],
    ['a name without a tag', { image: 'charon' }, 'charon:latest'],
    ['a metadata output (S2.1)', { sourceImage: 'ghcr.io/o/c:pr-1\nghcr.io/o/c:sha-1' }, 'ghcr.io/o/c:pr-1'],
    ['a metadata output in JSON (C.5)', { sourceImage: '{"tags":["ghcr.io/o/c:2"]}' }, 'ghcr.io/o/c:2'],
    ['a source without a tag', { sourceImage: 'charon' }, 'charon:latest'],
    ['a source with tag and digest', { sourceImage: `charon:1@${digest}` }, 'charon:1'],
    ['a source in Docker Hub’s long form', { sourceImage: 'docker.io/library/charon:1' }, 'charon:1'],
    ['a source by ID with a name', { sourceImage: digest, image: 'charon:local' }, 'charon:local'],
    ['a source by digest with a name', { sourceImage: `charon@${digest}`, image: 'charon:local' }, 'charon:local'],
    ['a tarball, which keeps its own reference (S2.7)', { sourceTarball: 'image.tar' }, undefined],
    ['a tarball with a name', { sourceTarball: 'image.tar', image: 'charon:x' }, 'charon:x'],
    ['a layout, which keeps its own reference', { sourceLayout: '/layout' }, undefined],
  ])('the image has the reference of %s', (_, change, expected) => {
    expect(nameOf(change)).toBe(expected);
  });

  test('a source with only a digest has no reference, and the error explains this', () => {
    expect(() => plan({ sourceImage: `charon@${digest}` })).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(digest) }),
    );
  });

  test.each([digest, digest.slice(7), digest.slice(0, 19), digest.slice(7, 19), `\n${digest}\n`])(
    'a source by image ID (%j) has no reference, so the error asks for `image` before any work starts (S0.7)',
    (sourceImage) => {
      expect(() => plan({ sourceImage })).toThrow(
        expect.objectContaining({
          code: 'invalid-input',
          message: expect.stringContaining(`image ID (${sourceImage.trim()})`),
          hint: expect.stringContaining('Set `image`'),
        }),
      );
    },
  );

  test.each([
    ['image', { image: 'charon:' }],
    ['image with a digest', { image: `charon@${digest}` }],
    ['image that is an ID', { image: digest }],
    ['an ID among the tags', { tags: `a/b:1\n${digest}` }],
    ['an ID among further images', { sourceImage: 'a:1', furtherImages: [digest] }],
    ['source-image', { sourceImage: 'ghcr.io//charon:1' }],
    ['an empty metadata output (S2.2)', { sourceImage: '\n' }],
  ])('a malformed reference in %s is refused before any work starts (S0.7)', (_, change) => {
    expect(() => plan(change)).toThrow(expect.objectContaining({ code: 'invalid-input' }));
  });
});

describe('the source', () => {
  test('an image in the engine is looked up with its digest', () => {
    expect(plan({ sourceImage: `charon:1@${digest}` }).source).toEqual({
      kind: 'engine',
      image: `charon:1@${digest}`,
    });
  });

  test.each([
    ['without a tag is looked up as latest, so that it is not read as the beginning of an ID', 'cafe', 'cafe:latest'],
    ['by ID is looked up unchanged', digest, digest],
    ['by the bare digits of an ID, as podman prints them, is looked up by the full ID', digest.slice(7), digest],
    ['by the first digits of an ID is looked up unchanged', digest.slice(7, 19), digest.slice(7, 19)],
  ])('an image in the engine %s', (_, sourceImage, image) => {
    expect(plan({ sourceImage, image: 'charon:local' }).source).toEqual({ kind: 'engine', image });
  });

  test('a tarball can have white space around its path, which is ignored', () => {
    expect(plan({ sourceTarball: ' out/image.tar\n' }).source).toEqual({ kind: 'tarball', path: 'out/image.tar' });
    expect(plan({ sourceLayout: ' out/layout\n' }).source).toEqual({ kind: 'layout', path: 'out/layout' });
  });

  test('an empty path causes an error that names the input and the received text (S0.8)', () => {
    expect(() => plan({ sourceTarball: ' ' })).toThrow('The input `source-tarball` is ""');
    expect(() => plan({ sourceLayout: ' ' })).toThrow('The input `source-layout` is ""');
  });

  test.each([
    ['both sources', { sourceImage: 'a:1', sourceTarball: 'a.tar' }, 'source-image, source-tarball'],
    [
      'an image and a Dockerfile',
      { sourceImage: 'a:1', build: { ...build, file: 'Dockerfile' } },
      'source-image, file',
    ],
    ['a tarball and a layout', { sourceTarball: 'a', sourceLayout: 'b' }, 'source-tarball, source-layout'],
    ['a layout and a file', { sourceLayout: 'b', build: { ...build, file: 'f' } }, 'source-layout, file'],
    ['a tarball and a target', { sourceTarball: 'a', build: { ...build, target: 't' } }, 'source-tarball, target'],
  ])('a plan can’t combine %s', (_, change, names) => {
    expect(() => plan(change)).toThrow(`${names} are set`);
  });

  test('a build can have secrets, and an empty secret causes a warning', () => {
    expect(plan({ build: { ...build, secrets: ['a=b'] } }).source).toMatchObject({
      secrets: [{ id: 'a', from: 'value', value: 'b' }],
    });
    expect(plan({ build: { ...build, secrets: ['a='] } }).warnings).toEqual([expect.stringContaining('"a"')]);
    expect(() => plan({ build: { ...build, secretFiles: ['a'] } })).toThrow('not have the form id=path');
  });

  test.each([
    [{}, 'a build of ./app'],
    [{ sourceTarball: 'x.tar' }, 'the tarball x.tar'],
    [{ sourceLayout: '/x' }, 'the OCI layout /x'],
    [{ sourceImage: 'charon' }, 'the image charon:latest in this engine'],
    [{ sourceImage: `charon:1@${digest}` }, `the image charon:1@${digest} in this engine`],
  ])('the log describes the source for the inputs %j (S2.8)', (change, words) => {
    expect(describeSource(plan(change).source)).toBe(words);
  });
});

describe('further images are part of the plan (S3.1)', () => {
  test('further images have separate references', () => {
    const planned = plan({ furtherImages: ['runtime:1', 'ghcr.io/Org/engine:2'] });
    const further = [
      { repository: 'runtime', tag: '1' },
      { repository: 'ghcr.io/org/engine', tag: '2', loweredFrom: 'ghcr.io/Org/engine:2' },
    ];
    expect(planned).toMatchObject({ kind: 'image', further });
  });

  test.each([
    ['the main image', { furtherImages: ['charon:local'] }, 'charon:local is set twice'],
    ['the same image twice', { furtherImages: ['a:1', 'a:1'] }, 'a:1 is set twice'],
    ['a malformed reference', { furtherImages: ['A b'] }, 'A b'],
    ['images next to a tarball', { sourceTarball: '/t.tar', furtherImages: ['a:1'] }, 'further-images'],
    ['images next to a layout', { sourceLayout: '/l', furtherImages: ['a:1'] }, 'A `source-layout` is handed over'],
  ])('further images can’t contain %s', (_, change, words) => {
    const error = { code: 'invalid-input', message: expect.stringContaining(words) };
    expect(() => plan(change)).toThrow(expect.objectContaining(error));
  });
});

test('podman can’t be combined with a push', () => {
  const podman = { engine: 'podman', sourceImage: 'a/b:1', tags: 'a/b:2' };
  const push = { ...defaults.push, enabled: true };
  expect(() => plan({ ...podman, push })).toThrow(expect.objectContaining({ code: 'invalid-input' }));
  expect(plan(podman).engine).toBe('podman');
});

describe('`platforms`, as in docker/build-push-action', () => {
  test('one platform is the platform of the image', () => {
    expect(plan({ platforms: ['linux/arm64'] }).platform).toEqual({ os: 'linux', architecture: 'arm64' });
    expect(plan({ platforms: ['native'] }).platform).toEqual({ os: 'linux', architecture: 'amd64' });
  });

  test('several platforms are an error that names `push-platforms`', () => {
    const error = {
      code: 'invalid-input',
      message: expect.stringContaining('`platforms` is linux/amd64, linux/arm64'),
      hint: expect.stringContaining('`push-platforms`'),
    };
    expect(() => plan({ platforms: ['linux/amd64', 'linux/arm64'] })).toThrow(expect.objectContaining(error));
  });
});

describe('{{defaultContext}}, as in docker/build-push-action', () => {
  const sha = 'c'.repeat(40);
  const contextOf = (change: Partial<ExportInputs['build']>, event: Partial<ExportFacts['event']>) => {
    const { source } = plan({ build: { ...build, ...change } }, { event: { ...facts.event, ...event } });
    return source.kind === 'build' ? [source.build.context, ...source.build.buildContexts] : undefined;
  };
  const repository = 'https://github.com/Wikid82/Charon.git';

  test.each([
    ['a branch is its commit', '{{defaultContext}}', { ref: 'refs/heads/main', sha }, `${repository}#${sha}`],
    ['a folder may follow', '{{ defaultContext }}:app', { ref: 'refs/tags/v1', sha }, `${repository}#${sha}:app`],
    [
      'a pull request is its merge ref',
      '{{defaultContext}}',
      { ref: 'refs/pull/7/merge', sha },
      `${repository}#refs/pull/7/merge`,
    ],
  ])('%s', (_, context, event, expected) => {
    expect(contextOf({ context }, event)).toEqual([expected]);
  });

  test('is replaced in `build-contexts`', () => {
    const inputs = { context: '.', buildContexts: ['src={{defaultContext}}', 'base=docker-image://alpine'] };
    expect(contextOf(inputs, { ref: 'refs/heads/main', sha })).toEqual([
      '.',
      `src=${repository}#${sha}`,
      'base=docker-image://alpine',
    ]);
  });

  test('is an error outside of a workflow', () => {
    const inputs = { build: { ...build, context: '{{defaultContext}}' } };
    expect(() => plan(inputs, { repositoryUrl: '' })).toThrow('for a repository (GITHUB_REPOSITORY is empty)');
  });
});

describe('the compression of new layers', () => {
  const compressionOf = (compression: string, compressionLevel?: string) => {
    const planned = plan({ compression, compressionLevel });
    return planned.kind === 'image' ? planned.compression : undefined;
  };

  test.each([
    [undefined, 1],
    ['9', 9],
  ])('auto at level %s is gzip for BuildKit, whose layers others may get, and zstd for saved layers', (text, level) => {
    const expected = { built: { format: 'gzip', level }, saved: { format: 'zstd', level } };
    expect(compressionOf('auto', text)).toEqual(expected);
  });

  test.each([
    ['gzip', undefined, { format: 'gzip', level: undefined }],
    ['gzip', '0', { format: 'gzip', level: 0 }],
    ['zstd', '22', { format: 'zstd', level: 22 }],
    [' uncompressed ', undefined, { format: 'uncompressed', level: undefined }],
  ])('the compression %s is accepted at level %s', (compression, level, expected) => {
    expect(compressionOf(compression, level)).toEqual({ built: expected, saved: expected });
  });

  test.each([
    ['estargz', undefined, 'estargz'],
    ['', undefined, '""'],
    ['gzip', '10', 'from 0 to 9'],
    ['zstd', '0', 'from 1 to 22'],
    ['auto', '0', 'from 1 to 22'],
    ['auto', '10', 'from 0 to 9'],
    ['zstd', 'fast', '"fast"'],
    ['zstd', '1.5', '"1.5"'],
    ['uncompressed', '1', 'none for uncompressed'],
  ])('the compression %s at level %s throws invalid-input', (compression, level, words) => {
    const error = { code: 'invalid-input', message: expect.stringContaining(words) };
    expect(() => compressionOf(compression, level)).toThrow(expect.objectContaining(error));
  });

  test('the compression of a tarball can’t be changed, because it is handed over unchanged', () => {
    const error = expect.objectContaining({ code: 'invalid-input' });
    expect(() => plan({ sourceTarball: '/t.tar', compression: 'gzip' })).toThrow(error);
    expect(() => plan({ sourceLayout: '/l', compression: 'gzip' })).toThrow('A `source-layout` is handed over');
    expect(() => plan({ sourceTarball: '/t.tar' })).not.toThrow();
  });
});

describe('notices of changed inputs', () => {
  test('attestations of an image that isn’t built here have no effect, and a notice shows that', () => {
    const push = { ...defaults.push, provenance: 'true' };
    const none = [expect.stringContaining('only a build of a Dockerfile gets attestations here')];
    expect(plan({ push, sourceImage: 'a:1' }).notices).toEqual(none);
    expect(plan({ push, sourceLayout: '/layout' }).notices).toEqual(none);
    expect(plan({ push: { ...push, provenance: 'false' }, sourceImage: 'a:1' }).notices).toEqual([]);
    expect(plan({ push }).notices).toEqual([]);
  });

  test.each([
    ['a build', {}, {}, 'false'],
    ['a build with `provenance`', { provenance: 'mode=max,builder-id=x' }, {}, 'mode=max,builder-id=x'],
    ['a build with `push: true`', { enabled: true, provenance: 'builder-id=x' }, { tags: 'a/b:1' }, 'builder-id=x'],
    ['an image of the engine', { enabled: true }, { sourceImage: 'a:1', tags: 'a/b:1' }, 'false'],
  ])('the attestations of %s', (_, push, change, provenance) => {
    const planned = plan({ push: { ...defaults.push, ...push }, ...change });
    expect(planned).toMatchObject({ attestations: { provenance } });
  });

  test.each([
    ['image', { image: 'ghcr.io/Wikid82/charon:PR-1' }],
    ['source-image', { sourceImage: 'ghcr.io/Wikid82/charon:PR-1' }],
  ])('the repository of %s is changed to lower case, and a notice shows both forms (S2.4)', (_, change) => {
    const { notices } = plan(change);
    expect(notices).toHaveLength(1);
    expect(notices[0]).toContain('ghcr.io/Wikid82/charon:PR-1');
    expect(notices[0]).toContain('ghcr.io/wikid82/charon');
    expect(nameOf(change)).toBe('ghcr.io/wikid82/charon:PR-1');
  });

  test('a notice shows a source that is changed to lower case, even when it is handed over with another name (S2.4)', () => {
    const { notices } = plan({ sourceImage: 'ghcr.io/Wikid82/charon:1', image: 'charon:local' });
    expect(notices.join('\n')).toContain('ghcr.io/Wikid82/charon:1');
  });

  test('the Actions cache is omitted with a notice without a cache service, and other caches are kept (S0.3)', () => {
    const cacheFrom = ['type=gha,scope=a', 'type=local,src=/c'];
    const { source, notices } = plan({ build: { ...build, cacheFrom } }, { hasCacheService: false });
    expect(source).toMatchObject({ build: { cacheFrom: ['type=local,src=/c'] } });
    expect(notices).toEqual([expect.stringContaining('cache-from type=gha is omitted')]);
    expect(plan({ build: { ...build, cacheFrom } }).source).toMatchObject({ build: { cacheFrom } });
  });

  test.each([
    [1, undefined, 1, 0],
    [5, 5, 5, 0],
    [30, 7, 7, 1],
    // The repository's default.
    [0, 7, 0, 0],
  ])('a retention of %d days with a maximum of %s becomes %d days (S0.2)', (retentionDays, max, kept, said) => {
    const found = planExport({ ...defaults, retentionDays }, { ...facts, maxRetentionDays: max });
    expect(found.retentionDays).toBe(kept);
    expect(found.notices).toHaveLength(said);
  });
});

describe('the plan of an export', () => {
  test('the plan contains the job’s key, for the owner of the artifact (S2.5)', () => {
    expect(plan({ jobKey: 'build-2' }).jobKey).toBe('build-2');
  });

  test.each([
    ['a name that the service refuses', { artifactName: 'a/b' }, `is not a valid name of an artifact`],
    ['several platforms', { platform: 'linux/amd64,linux/arm64' }, 'not one platform'],
  ])('the plan refuses %s', (_, change, message) => {
    expect(() => plan(change)).toThrow(message);
  });
});
