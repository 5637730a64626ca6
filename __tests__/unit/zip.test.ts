import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { expect, test } from '@jest/globals';
import { limits } from '../../shared/base/limits.ts';
import { viewOf } from '../../shared/bytes/chunks.ts';
import { heldBack } from '../../shared/bytes/verified.ts';
import { openArtifact } from '../../shared/artifacts/zip/content.ts';
import type { RangedReader } from '../../shared/artifacts/blob/ranged-reader.ts';
import { storedZip } from '../../shared/artifacts/zip/zip-writer.ts';
import { digestOf } from '../../shared/image/digest.ts';

const entry = (name: string, bytes: Buffer) => ({ name, size: bytes.length, chunks: Readable.from([bytes]) });

function readerOf(bytes: Buffer): RangedReader {
  return {
    size: bytes.length,
    downloaded: () => undefined,
    read: (start, end) => Promise.resolve(bytes.subarray(start, end)),
    stream: (start, end) => Readable.from([bytes.subarray(start, end)]),
    lend: (start, end) => Readable.from([bytes.subarray(start, end)]),
  };
}

test('property: files are read back as they were written, for any names and contents', async () => {
  const file = fc.tuple(
    fc.stringMatching(/^[a-zA-Z0-9äöü][a-zA-Z0-9äöü._-]{0,19}$/),
    fc.uint8Array({ maxLength: 5000 }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(file, { selector: ([name]) => name, minLength: 1, maxLength: 4 }),
      async (files) => {
        const zip = await buffer(storedZip(files.map(([name, bytes]) => entry(name, Buffer.from(bytes)))));
        const artifact = { id: 1, name: 'a', size: zip.length, digest: digestOf(zip) };
        const content = await openArtifact(artifact, readerOf(zip));
        expect(content.files).toEqual(files.map(([name, { length }]) => ({ name, size: length })));
        for (const [name, bytes] of files) {
          expect(await buffer(content.read(name, () => undefined))).toEqual(Buffer.from(bytes));
        }
      },
    ),
    { numRuns: 50 },
  );
});

// This test takes seconds, because it computes a checksum of 4.4 GB.
test('a file above 4 GiB creates a zip64, and the entry after it is found', async () => {
  const size = 4_400_000_000;
  const zeros = Buffer.alloc(4_000_000);
  // eslint-disable-next-line @typescript-eslint/require-await -- a source without waiting
  async function* large(): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; left -= zeros.length) yield zeros;
  }
  const parts: { at: number; bytes: Buffer }[] = [];
  let position = 0;
  for await (const chunk of storedZip([
    { name: 'big.tar', size, chunks: large() },
    entry('small.json', Buffer.from('{"a":1}')),
  ])) {
    if (chunk !== zeros) parts.push({ at: position, bytes: Buffer.from(viewOf(chunk)) });
    position += chunk.length;
  }
  const starts: number[] = [];
  const read = (start: number, end: number): Buffer => {
    starts.push(start);
    const result = Buffer.alloc(end - start);
    for (const { at, bytes } of parts) {
      if (at >= start && at + bytes.length <= end) bytes.copy(result, at - start);
      else if (at < end && at + bytes.length > start)
        bytes.copy(result, Math.max(0, at - start), Math.max(0, start - at));
    }
    return result;
  };
  const reader = {
    size: position,
    downloaded: () => undefined,
    read: (start: number, end: number) => Promise.resolve(read(start, end)),
    stream: (start: number, end: number) => Readable.from([read(start, end)]),
    lend: (start: number, end: number) => Readable.from([read(start, end)]),
  };
  const content = await openArtifact({ id: 1, name: 'a', size: position }, reader);
  expect(content.files).toEqual([
    { name: 'big.tar', size },
    { name: 'small.json', size: 7 },
  ]);
  // Only a stored file has ranges.
  expect(await content.ranges('big.tar')).toBeDefined();
  starts.length = 0;
  expect(await content.text('small.json')).toBe('{"a":1}');
  expect(Math.min(...starts)).toBeGreaterThan(size);
});

test('a file of more than 8 MiB is refused before its bytes are read as text', async () => {
  const most = Buffer.alloc(limits.recordBytes, ' ');
  const zip = await buffer(storedZip([entry('most', most), entry('more', Buffer.concat([most, Buffer.from(' ')]))]));
  const asked: number[] = [];
  const reader = readerOf(zip);
  const watched: RangedReader = {
    ...reader,
    read: (start, end) => {
      asked.push(end - start);
      return reader.read(start, end);
    },
    stream: (start, end) => {
      asked.push(end - start);
      return reader.stream(start, end);
    },
    lend: (start, end) => {
      asked.push(end - start);
      return reader.lend(start, end);
    },
  };
  const content = await openArtifact({ id: 1, name: 'a', size: zip.length }, watched);
  asked.length = 0;
  await expect(content.text('more')).rejects.toMatchObject({
    code: 'artifact-corrupt',
    message: 'more in the artifact "a" has 8388609 bytes; some kilobytes were expected.',
  });
  expect(asked).toEqual([]);
  expect((await content.text('most'))?.length).toBe(limits.recordBytes);
});

test('a header that moves a file past the end of the zip is refused before it is read', async () => {
  const zip = await buffer(storedZip([entry('a.json', Buffer.from('{}'))]));
  zip.writeUInt16LE(0xffff, 28);
  const content = await openArtifact({ id: 1, name: 'a', size: zip.length }, readerOf(zip));
  const refused = { code: 'artifact-corrupt', message: expect.stringContaining('ends before all of it') };
  await expect(content.text('a.json')).rejects.toMatchObject(refused);
  await expect(content.ranges('a.json')).rejects.toMatchObject(refused);
});

test('an entry whose length differs from the announced one is an error', async () => {
  const wrong = { ...entry('a', Buffer.from('abc')), size: 4 };
  await expect(buffer(storedZip([wrong]))).rejects.toThrow('a: 3 bytes instead of 4');
});

test.each([0, 10, 100, 5000])(
  'the last %d bytes are returned only after the source has ended without an error',
  async (bytes) => {
    const given: Buffer[] = [];
    async function* failing(): AsyncGenerator<Buffer> {
      for (let at = 0; at < 50; at += 1) yield await Promise.resolve(Buffer.alloc(7, at));
      throw new Error('wrong digest');
    }
    const read = async (): Promise<void> => {
      for await (const chunk of heldBack(failing(), bytes)) given.push(chunk);
    };
    await expect(read()).rejects.toThrow('wrong digest');
    expect(350 - Buffer.concat(given).length).toBeGreaterThanOrEqual(Math.min(350, bytes));
  },
);
