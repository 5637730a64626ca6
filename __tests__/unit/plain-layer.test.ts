import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { gunzippedLayer, plainLayerChunks } from '../../load-image/into/gunzipped-layer.ts';
import { copiedBytes, countedChunks } from '../../shared/bytes/chunks.ts';
import { digestOf } from '../../shared/image/digest.ts';

const plain = Buffer.from(randomBytes(4_200_000).toString('hex'));
const gzip = gzipSync(plain);
const described = (bytes: Buffer, mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip') => {
  const layer = { digest: digestOf(bytes), size: bytes.length, mediaType, offset: 7 };
  const read = (start: number, end: number): Readable => Readable.from([bytes.subarray(start - 7, end - 7)]);
  return gunzippedLayer(layer, digestOf('plain'), read);
};
const unpacked = (bytes: Buffer, size: number): Promise<Buffer> =>
  copiedBytes(plainLayerChunks(inReusedMemory(bytes, 100_000), size));

test.each([
  ['application/vnd.oci.image.layer.v1.tar+gzip', true],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', true],
  ['application/vnd.oci.image.layer.v1.tar', false],
  ['application/vnd.oci.image.layer.v1.tar+zstd', false],
  ['', false],
])('a large layer of the media type %s is offered unpacked: %s', async (mediaType, expected) => {
  expect((await described(gzip, mediaType)) !== undefined).toBe(expected);
});

test('the end of a gzip file contains its plain length', async () => {
  expect(await described(gzip)).toEqual({ digest: digestOf('plain'), size: plain.length });
});

test('the end of a gzip file with several members has no valid plain length when the last member is small', async () => {
  expect(await described(Buffer.concat([gzip, gzipSync(Buffer.alloc(0))]))).toBeUndefined();
});

test('the plain bytes of a layer are correct in any memory', async () => {
  expect((await unpacked(gzip, plain.length)).equals(plain)).toBe(true);
});

test.each([
  ['more', plain.length - 1],
  ['less', plain.length + 1],
])(
  'a layer with %s bytes than its recorded length throws an error, and never yields more bytes than recorded',
  async (_, size) => {
    let given = 0;
    const counted = countedChunks(plainLayerChunks(inReusedMemory(gzip, 100_000), size), (bytes) => (given += bytes));
    await expect(copiedBytes(counted)).rejects.toMatchObject({
      code: 'load-failed',
      message: expect.stringContaining(`its unpacked length is not the ${String(size)} bytes`),
    });
    expect(given).toBeLessThanOrEqual(size);
  },
);

test.each([
  ['cut short', gzip.subarray(0, 1_000_000)],
  ['damaged', Buffer.concat([gzip.subarray(0, 1_000_000), Buffer.alloc(1000), gzip.subarray(1_001_000)])],
  ['no gzip at all', plain],
])('a layer that is %s throws load-failed', async (_, bytes) => {
  await expect(unpacked(bytes, plain.length)).rejects.toMatchObject({ code: 'load-failed' });
});

test('a layer whose bytes can’t be read throws the error of the read', async () => {
  const chunks = Readable.from([gzip.subarray(0, 1000), Promise.reject(new Error('the link is down'))]);
  await expect(copiedBytes(plainLayerChunks(chunks, plain.length))).rejects.toThrow('the link is down');
});
