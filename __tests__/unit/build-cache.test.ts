import { describe, expect, test } from '@jest/globals';
import {
  folderCache,
  mayReadCache,
  notWritten,
  ownLayers,
  ownScopes,
  planCacheWrites,
} from '../../export-image/plan/cache.ts';
import { BuildProgress } from '../../shared/docker/build-progress.ts';
import { parseBakeFile } from '../../shared/docker/buildx.ts';

const service = { isThere: true, mode: '' };

describe('caches are written with the image or after it (B.12)', () => {
  test.each([
    ['type=gha,mode=max', 'type=gha,mode=max'],
    ['example.com/app:cache', 'example.com/app:cache'],
    ['type=gha,ignore-error=true,mode=max', 'type=gha,mode=max'],
    ['type=local,"dest=/a,b",IGNORE-ERROR=true', 'type=local,"dest=/a,b"'],
    // BuildKit ignores a value that isn't a boolean.
    ['type=gha,ignore-error=no', 'type=gha'],
  ])('%s is written after the image', (cache, written) => {
    expect(planCacheWrites([cache], service, true)).toEqual({ withImage: [], afterImage: [written], problems: [] });
  });

  test.each(['type=inline', 'type=gha,ignore-error=false', 'type=local,dest=x,Ignore-Error=0', '"type=inline"'])(
    '%s is written with the image',
    (cache) => {
      expect(planCacheWrites([cache], service, true)).toEqual({ withImage: [cache], afterImage: [], problems: [] });
    },
  );

  test.each(['read', 'none'])('a job with cache-mode %s does not use type=gha, but uses all other caches', (mode) => {
    const { afterImage, problems } = planCacheWrites(['type=gha', 'type=local,dest=x'], { isThere: true, mode }, true);
    expect(afterImage).toEqual(['type=local,dest=x']);
    expect(problems).toEqual([
      `type=gha was not written: this job's \`cache-mode\` is \`${mode}\` (ACTIONS_CACHE_MODE).`,
    ]);
  });

  test('without a cache service, buildx drops type=gha silently, so this is logged, or is an error if the cache is required', () => {
    const nowhere = { isThere: false, mode: '' };
    expect(planCacheWrites(['type=gha'], nowhere, true).problems).toEqual([
      expect.stringContaining('type=gha was not written: there is no Actions cache service here'),
    ]);
    expect(planCacheWrites(['type=gha,token=t,url=http://x'], nowhere, true).afterImage).toHaveLength(1);
    expect(() => planCacheWrites(['type=gha,ignore-error=false'], nowhere, true)).toThrow(
      expect.objectContaining({
        code: 'unsupported-host',
        message: expect.stringContaining("The build cache type=gha can't be written, and `ignore-error=false`"),
      }),
    );
  });

  test('the docker driver on the classic store writes only inline caches, and a message suggests what to do about others', () => {
    expect(planCacheWrites(['type=inline', 'type=local,dest=x'], service, false)).toEqual({
      withImage: ['type=inline'],
      afterImage: [],
      problems: [expect.stringMatching(/^type=local,dest=x was not written: the docker driver .*setup-buildx-action/)],
    });
    expect(() => planCacheWrites(['type=local,dest=x,ignore-error=false'], service, false)).toThrow(
      expect.objectContaining({
        code: 'builder-unsupported',
        message: expect.stringContaining('(cache-to: type=local,dest=x)'),
      }),
    );
  });

  test.each([
    ['', true],
    ['read', true],
    ['write', true],
    ['write-only', false],
    ['none', false],
  ])('cache-mode "%s" allows reading the cache: %j', (mode, may) => {
    expect(mayReadCache({ isThere: true, mode })).toBe(may);
    expect(mayReadCache({ isThere: false, mode })).toBe(false);
  });
});

test.each([
  [['type=gha'], ['buildkit']],
  [
    ['type=gha,scope=a', 'type=gha,scope=b,timeout=1m', 'type=gha,scope=a'],
    ['a', 'b'],
  ],
  [[], []],
  [['type=gha', 'type=registry,ref=x'], undefined],
  [['type=gha,token=x'], undefined],
])('a build that reads %j finds all of its cached layers in the scopes %j (B.12)', (cacheFrom, scopes) => {
  expect(ownScopes(cacheFrom)).toEqual(scopes);
});

test.each([
  ['type=gha', 'image'],
  ['type=gha,mode=min', 'image'],
  ['type=gha,mode=max', 'all'],
  ['mode=max,TYPE=gha,scope=x,timeout=1m', 'all'],
  ['type=gha,mode=max,url=http://x', undefined],
  ['type=gha,mode=max,url_v2=http://x', undefined],
  ['type=gha,mode=max,token=x', undefined],
  ['type=gha,mode=max,ghtoken=x', undefined],
  ['type=gha,mode=max,repository=org/app', undefined],
  ['type=gha,mode=max,version=1', undefined],
  ['type=registry,ref=x,mode=max', undefined],
  ['type=local,dest=x', undefined],
  ['type=s3,bucket=x', undefined],
  ['example.com/app:cache', undefined],
])('of the cache %s, this step stores the layers: %s (B.12)', (cache, layers) => {
  expect(ownLayers(cache)).toBe(layers);
});

test('the folder of a local cache may have a comma and quotes in its name', () => {
  expect(folderCache('/tmp/a,"b"')).toBe('type=local,mode=max,"dest=/tmp/a,""b"""');
});

test('a cache is described by its type and place, and never by fields that may be secret', () => {
  const secret = 'type=s3,bucket=b,secret_access_key=hunter2,session_token=hunter3,"name=a,b",mode=max';
  const shown = (cache: string): string | undefined =>
    /^(.*) was not written: refused\.$/.exec(notWritten(cache, 'refused'))?.[1];
  expect(shown(secret)).toBe('type=s3,bucket=b,name=a,b,mode=max');
  expect(shown(' example.com/app:cache ')).toBe('type=registry,ref=example.com/app:cache');
  expect(shown('type=registry,ref=a/b:c,mode=')).toBe('type=registry,ref=a/b:c');
  expect(shown('type=local,src=in,"dest=a ""b""",scope=s')).toBe('type=local,dest=a "b",src=in,scope=s');
  expect(shown('app:cache,mode=max')).toBe('mode=max');
  expect(shown('mode=max,token=hunter2,type=gha')).toBe('type=gha,mode=max');
  expect(notWritten('type=gha', '1.2.3.4 refused it.')).toBe('type=gha was not written: 1.2.3.4 refused it.');
  expect(notWritten('type=gha,token=hunter2', 'failed to reserve cache.')).toMatch(
    /^type=gha was not written: failed to reserve cache \(for jobs of low-trust events, .*read-only\)\.$/,
  );
});

describe('the cache errors that BuildKit shows', () => {
  const times = { started: '2026-01-01T00:00:00Z', completed: '2026-01-01T00:00:01Z' };
  const vertex = (digest: string, name: string, more: object = times): string =>
    JSON.stringify({ vertexes: [{ digest, name, ...more }] });
  const progressOf = (...lines: readonly string[]): BuildProgress => {
    const progress = new BuildProgress(() => undefined);
    for (const line of lines) progress.line(line);
    return progress;
  };
  const found = vertex('sha256:1', 'importing cache manifest from gha:5882378797973059818');
  const failed = (error: string): string => `ERROR: failed to build: failed to solve: ${error}`;

  test('a cache that can’t be reached is shown by its type or its reference', () => {
    const refused = { ...times, error: 'connection refused' };
    const progress = progressOf(
      vertex('sha256:1', 'importing cache manifest from gha:5882378797973059818', refused),
      vertex('sha256:2', 'importing cache manifest from example.com/app:cache', refused),
    );
    expect(progress.unreadCaches).toEqual([
      'type=gha was not read: connection refused.',
      'example.com/app:cache was not read: connection refused.',
    ]);
  });

  test.each([
    'failed to copy: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer',
    'failed to compute cache key: failed to copy: GET http://127.0.0.1/blob',
    'failed to compute cache key: failed commit on ref "layer-sha256:ba45": unexpected commit digest sha256:749a',
  ])('a found cache whose layers can’t be downloaded causes an error: %s', (error) => {
    expect(progressOf(found, failed(error)).cacheBroke).toBe(true);
    // No cache was found: these layers are of a base image.
    expect(progressOf(failed(error)).cacheBroke).toBe(false);
  });

  test.each([
    'process "/bin/sh -c echo failed to solve; echo failed to copy: x" did not complete successfully: exit code: 1',
    'failed to compute cache key: failed to calculate checksum of ref x::y: "/failed to copy: ": not found',
    'dockerfile parse error on line 2: unknown instruction: failed to copy: ',
  ])('a failure of the Dockerfile itself is not a cache error: %s', (error) => {
    expect(progressOf(found, failed(error)).cacheBroke).toBe(false);
  });

  test('a step whose cached layer is missing was run, although BuildKit first shows it as cached', () => {
    const step = '[2/2] COPY big /big';
    const hit = vertex('sha256:1', step, { ...times, inputs: ['sha256:0'], cached: true });
    const missing = vertex('sha256:1', step, {
      ...times,
      inputs: ['sha256:0'],
      cached: true,
      error: 'blob sha256:2a2e: not found',
    });
    expect(progressOf(hit).steps()).toEqual([{ name: step, cached: true }]);
    expect(progressOf(hit, missing).steps()).toEqual([{ name: step, cached: false }]);
  });

  test('a response of several lines is read completely, and its "ERROR CODE" is not a separate error', () => {
    const lines = [failed('failed to copy: GET http://x'), '-----', 'RESPONSE 403: 403 Forbidden', 'ERROR CODE: Nope'];
    expect(progressOf(...lines).cause()).toBe(
      'failed to copy: GET http://x RESPONSE 403: 403 Forbidden ERROR CODE: Nope',
    );
  });
});

test('the caches of a bake file are read in the forms of all buildx versions', () => {
  const file = (caches: unknown): string => JSON.stringify({ target: { a: { tags: ['a:1'], 'cache-to': caches } } });
  expect(
    parseBakeFile(
      file([
        { mode: 'max', type: 'gha' },
        { dest: 'a,b', type: 'local' },
      ]),
      ['a'],
    ),
  ).toMatchObject([{ name: 'a', tags: ['a:1'], cacheTo: ['mode=max,type=gha', '"dest=a,b",type=local'] }]);
  expect(parseBakeFile(file(['type=gha']), ['a'])?.[0]?.cacheTo).toEqual(['type=gha']);
  expect(parseBakeFile(file(undefined), ['a'])).toEqual([{ name: 'a', tags: ['a:1'], definition: '{}' }]);
});

test('the targets that another target is built on are last in the list, with their caches', () => {
  const target = { app: { tags: ['app:1'] }, base: { tags: ['base:1'], 'cache-to': ['type=gha'] } };
  expect(parseBakeFile(JSON.stringify({ target }), ['app'])).toEqual([
    { name: 'app', tags: ['app:1'], definition: '{}', cacheTo: undefined },
    { name: 'base', tags: [], definition: '', cacheTo: ['type=gha'], isLinked: true },
  ]);
});
