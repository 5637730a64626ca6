import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { viewOf } from '../../shared/bytes/chunks.ts';
import { uploadBlob, type UploadTarget } from '../../shared/artifacts/blob/blob-upload.ts';
import { type Http, httpClient } from '../../shared/http/client.ts';
import { type RangedReader, rangedReader } from '../../shared/artifacts/blob/ranged-reader.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { type Azurite, startAzurite } from '../fakes/azurite.ts';

// Runs this project's uploader and reader against a real block-blob store, through URLs that the store signed.

let azurite: Azurite;
let http: Http;
const { signal } = new AbortController();
const bytes = randomBytes(20_000_000);
const minutes = 60_000;

beforeAll(async () => {
  azurite = await startAzurite();
  http = httpClient({ except: '' }, signal);
});
afterAll(async () => {
  await http.close();
  await azurite.stop();
});

const target = (blob: string, lifetimeMs: number): UploadTarget => ({
  http,
  url: azurite.sign(blob, 'cw', lifetimeMs),
  onRetry: () => undefined,
  signal,
});

function upload(blob: string, lifetimeMs = 5 * minutes): Promise<unknown> {
  const chunks = Array.from({ length: 200 }, (_, at) => bytes.subarray(at * 100_000, (at + 1) * 100_000));
  return uploadBlob(target(blob, lifetimeMs), Readable.from(chunks), () => undefined);
}

function reader(sign: () => Promise<string>, said: string[] = [], adapts = true): RangedReader {
  return rangedReader({
    http,
    host: 'GitHub',
    size: bytes.length,
    sign,
    onRetry: (message) => said.push(message),
    signal,
    adapts,
  });
}

test('a blob uploaded in blocks is read back by ranges, in order', async () => {
  expect(await upload('whole')).toEqual({ size: bytes.length, digest: digestOf(bytes) });
  const blob = reader(() => Promise.resolve(azurite.sign('whole', 'r', 5 * minutes)));
  expect(digestOf(await buffer(blob.stream(0, bytes.length)))).toBe(digestOf(bytes));
  expect(await blob.read(1234, 5678)).toEqual(bytes.subarray(1234, 5678));
});

test.each([
  ['in separate memory', 'stream', 10],
  ['in lent memory', 'lend', 8],
] as const)(
  'a reader with parts %s downloads pieces of the blob and returns them in order (%s: %d)',
  async (_, way, pieces) => {
    await upload('parts');
    // On a busy machine, a reader that adapts has more parts in flight.
    const blob = reader(() => Promise.resolve(azurite.sign('parts', 'r', 5 * minutes)), [], false);
    const hash = createHash('sha256');
    const seen = new Set<ArrayBufferLike>();
    for await (const part of blob[way](1, bytes.length)) {
      hash.update(viewOf(part));
      seen.add(part.buffer);
      await sleep(1);
    }
    expect([hash.digest('hex'), seen.size]).toEqual([digestOf(bytes.subarray(1)).slice(7), pieces]);
  },
);

test('an empty blob can be uploaded and read', async () => {
  const uploaded = await uploadBlob(target('empty', minutes), Readable.from([]), () => undefined);
  expect(uploaded).toEqual({ size: 0, digest: digestOf('') });
});

test('the reader requests a new signed URL when the old one has expired', async () => {
  await upload('signed');
  const said: string[] = [];
  let signed = 0;
  const lifetime = (): number => ((signed += 1) === 1 ? -minutes : 5 * minutes);
  const blob = reader(() => Promise.resolve(azurite.sign('signed', 'r', lifetime())), said);
  expect(await blob.read(0, 100)).toEqual(bytes.subarray(0, 100));
  expect(signed).toBe(2);
  expect(said[0]).toContain('403');
});

test('a deleted blob is artifact-expired, and a blob of another size is artifact-corrupt', async () => {
  const gone = reader(() => Promise.resolve(azurite.sign('nowhere', 'r', minutes)));
  await expect(gone.read(0, 100)).rejects.toMatchObject({ code: 'artifact-expired' });
  await uploadBlob(target('short', minutes), Readable.from([bytes.subarray(0, 500)]), () => undefined);
  const short = reader(() => Promise.resolve(azurite.sign('short', 'r', minutes)));
  await expect(short.read(0, 100)).rejects.toMatchObject({ code: 'artifact-corrupt' });
});

test('an upload with an expired URL fails, and the error shows why', async () => {
  await expect(upload('late', -minutes)).rejects.toMatchObject({ status: 403 });
});
