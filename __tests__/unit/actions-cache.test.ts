import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import { type ArtifactService, startArtifactService } from '../fakes/artifact-service/service.ts';
import type { CacheAccess } from '../fakes/artifact-service/token.ts';
import { type ActionsCache, actionsCache, type CacheBlob } from '../../shared/cache/actions-cache.ts';
import { verifiedChunks } from '../../shared/bytes/verified.ts';
import { digestOf } from '../../shared/image/digest.ts';

// The version of all of BuildKit's entries, which is a hash (tonistiigi/go-actions-cache, cache.go).
const version = createHash('sha256').update('|go-actionscache-1.0').digest('hex');
const never = new AbortController().signal;

let service: ArtifactService;
let cache: ActionsCache;
let secrets: string[];
const open = (access: CacheAccess = 'write', stepMinutes = 10): ActionsCache => {
  const env = service.env({ cache: access });
  const [runtimeToken = '', resultsUrl = ''] = [env['ACTIONS_RUNTIME_TOKEN'], env['ACTIONS_RESULTS_URL']];
  const maskSecret = (secret: string): void => void secrets.push(secret);
  const unused = { proxies: { except: '' }, onRetry: () => undefined, signal: never };
  return (cache = actionsCache({ runtimeToken, resultsUrl, maskSecret, stepMinutes, ...unused }));
};
beforeEach(async () => {
  secrets = [];
  service = await startArtifactService();
});
afterEach(async () => {
  await cache[Symbol.asyncDispose]();
  await service.close();
});

/** Returns a blob with the digest of this content, and possibly with other bytes. */
function blob(content: Buffer, bytes = content): CacheBlob {
  const expected = { digest: digestOf(content), size: content.length };
  return {
    ...expected,
    chunks: () => verifiedChunks(Readable.from([bytes]), expected, () => new Error('other bytes')),
  };
}

const store = (blobs: readonly CacheBlob[]): ReturnType<ActionsCache['store']> =>
  cache.store(Readable.from(blobs), never);
const contents = Array.from({ length: 9 }, (_, at) =>
  Buffer.alloc(at === 8 ? 9_000_000 : 1000 + at, `blob ${String(at)}`),
);

async function read(name: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of service.blobs.read(name, 0, service.blobs.size(name) ?? 0)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

const some = blob(Buffer.from('some layer'));

test('each blob is stored completely, under the key and version that BuildKit requests (B.12)', async () => {
  open();
  const bytes = contents.reduce((sum, { length }) => sum + length, 0);
  expect(await store(contents.map((content) => blob(content)))).toEqual({ count: 9, bytes, failure: undefined });
  const entries = service.cacheEntries.map(({ key, version: of, finalised }) => ({ key, of, finalised }));
  const expected = contents.map((content) => ({
    key: `buildkit-blob-1-${digestOf(content)}`,
    of: version,
    finalised: true,
  }));
  expect(entries).toHaveLength(9);
  expect(entries).toEqual(expect.arrayContaining(expected));
  for (const content of contents) {
    const entry = service.cacheEntries.find(({ key }) => key.endsWith(digestOf(content)));
    expect((await read(entry?.blob ?? '')).equals(content)).toBe(true);
  }
  expect(secrets.length).toBeGreaterThan(0);
});

test('a blob that a run can read is left alone, and so is one that another job is writing (B.12)', async () => {
  open();
  const [first, second, third] = contents.map((content) => blob(content));
  if (first === undefined || second === undefined || third === undefined) throw new Error('no blobs');
  await store([first]);
  const key = `buildkit-blob-1-${second.digest}`;
  await fetch(`${service.url}/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry`, {
    method: 'POST',
    headers: { authorization: `Bearer ${service.env()['ACTIONS_RUNTIME_TOKEN'] ?? ''}` },
    body: JSON.stringify({ key, version }),
  });
  const sent = service.traffic.up;
  expect(await store([first, second, third])).toEqual({ count: 1, bytes: third.size, failure: undefined });
  expect(service.traffic.up - sent).toBe(third.size);
  expect(service.cacheEntries.map(({ finalised }) => finalised)).toEqual([true, false, true]);
});

test('a blob with other bytes is never finalised (B.12)', async () => {
  open();
  const [content = Buffer.alloc(0)] = contents;
  const { failure } = await store([blob(content, Buffer.from(content).fill('x', 0, 1))]);
  expect(failure).toEqual({ why: 'other bytes', isUnfinished: true });
  expect(service.cacheEntries.filter(({ finalised }) => finalised)).toEqual([]);
});

test('a job that may only read stores nothing, and later calls read no blob (B.12)', async () => {
  open('read');
  const failure = { why: 'cache write denied: token has no writable scopes', isUnfinished: false };
  expect(await store([some])).toEqual({ count: 0, bytes: 0, failure });
  expect(service.cacheEntries).toEqual([]);
  const calls = service.faults.seen.length;
  let wasRead = false;
  const unread = new Readable({ objectMode: true, read: () => void (wasRead = true) });
  expect((await cache.store(unread, never)).failure).toEqual(failure);
  expect(wasRead).toBe(false);
  expect(service.faults.seen).toHaveLength(calls);
});

const status = (code: number): Fault['effect'] => ({ kind: 'status', status: code });
test.each<readonly [string, string, Fault['effect'], boolean]>([
  ['refuses a look-up', 'GetCacheEntryDownloadURL', status(401), false],
  ['refuses a block', 'put-block', status(403), true],
  ['refuses the end of an upload', 'put-block-list', status(400), true],
  ['refuses to finalise', 'FinalizeCacheEntryUpload', status(400), true],
])('a service that %s leaves no entry that a run can read (B.12)', async (_, on, effect, isUnfinished) => {
  open();
  service.faults.add({ on, times: 1000, effect });
  const { failure } = await store([some]);
  expect(failure).toEqual({ why: expect.stringMatching(/HTTP 40\d/), isUnfinished });
  expect(service.cacheEntries.filter(({ finalised }) => finalised)).toEqual([]);
});

test('after a failure, running uploads end, and no other upload starts (B.12)', async () => {
  open();
  service.faults.add({ on: 'put-block', times: 1, effect: status(403) });
  const { count, failure } = await store(contents.map((content) => blob(content)));
  expect(failure).toMatchObject({ isUnfinished: true });
  const finished = service.cacheEntries.filter(({ finalised }) => finalised).length;
  expect(finished).toBe(count);
  expect(service.cacheEntries).toHaveLength(count + 1);
  expect(count).toBeLessThan(8);
});

test('a service that does not respond is abandoned (B.12)', async () => {
  open('write', 0.01);
  service.faults.add({ on: 'CreateCacheEntry', effect: { kind: 'hang', ms: 600_000 } });
  expect((await store([some])).failure).toEqual({
    why: expect.stringContaining('no progress for'),
    isUnfinished: false,
  });
});

test('the layers in a scope’s newest index are listed; without a readable index there is no list (B.12)', async () => {
  open();
  const layers = contents.slice(0, 2).map((content) => digestOf(content));
  const write = async (key: string, text: string): Promise<void> => {
    const call = async (method: string, more: object): Promise<string> =>
      (
        await fetch(`${service.url}/twirp/github.actions.results.api.v1.CacheService/${method}`, {
          method: 'POST',
          headers: { authorization: `Bearer ${service.env()['ACTIONS_RUNTIME_TOKEN'] ?? ''}` },
          body: JSON.stringify({ key, version, ...more }),
        })
      ).text();
    const url = /"signed_upload_url":"([^"]+)"/.exec(await call('CreateCacheEntry', {}))?.[1] ?? '';
    await fetch(url, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob' }, body: text });
    await call('FinalizeCacheEntryUpload', { size_bytes: String(text.length) });
  };
  const listed = (scope: string): Promise<readonly string[] | undefined> => cache.listed(scope, never);
  expect(await listed('buildkit')).toBeUndefined();
  await write('index-buildkit-1-aaaaaaaa#1', JSON.stringify({ layers: [{ blob: layers[1] }] }));
  await write('index-buildkit-1-aaaaaaaa#2', JSON.stringify({ layers: [...layers, 'x'].map((blob) => ({ blob })) }));
  await write('index-damaged-1-aaaaaaaa#1', '{');
  expect(await listed('buildkit')).toEqual(layers);
  expect(await listed('other')).toBeUndefined();
  expect(await listed('damaged')).toBeUndefined();
  service.faults.add({ on: 'GetCacheEntryDownloadURL', effect: { kind: 'status', status: 500 } });
  expect(await listed('buildkit')).toBeUndefined();
});
