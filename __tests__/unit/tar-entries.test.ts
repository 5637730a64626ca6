import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { pack } from 'tar-stream';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { viewOf } from '../../shared/bytes/chunks.ts';
import { tarEntries } from '../../shared/tar/entries.ts';
import {
  endOfArchive,
  isZero,
  looksLikeTar,
  readPaxRecords,
  readTarHeader,
  tarBlock,
  tarHeader,
} from '../../shared/tar/header.ts';

const directory = mkdtempSync(join(tmpdir(), 'tar-entries-'));
afterAll(() => rmSync(directory, { recursive: true }));

interface Found {
  readonly name: string;
  readonly size: number;
  readonly isFile: boolean;
  readonly sha256: string;
}

const sha256 = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex');

async function entriesOf(bytes: Buffer, pieceBytes: number): Promise<readonly Found[]> {
  const found: Found[] = [];
  for await (const { name, size, isFile, content } of tarEntries(inReusedMemory(bytes, pieceBytes))) {
    const hash = createHash('sha256');
    for await (const part of content) hash.update(viewOf(part));
    found.push({ name, size, isFile, sha256: hash.digest('hex') });
  }
  return found;
}

async function packed(files: readonly (readonly [string, Buffer])[]): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of files) archive.entry({ name }, content);
  archive.finalize();
  return buffer(archive);
}

describe('a block of a tar', () => {
  test('is a header if it has the magic word and a zero byte', () => {
    expect(looksLikeTar(tarHeader('a', 1))).toBe(true);
    expect(looksLikeTar(Buffer.alloc(tarBlock))).toBe(false);
    expect(looksLikeTar(Buffer.from(`${' '.repeat(257)}ustar`.padEnd(tarBlock)))).toBe(false);
    expect(
      looksLikeTar(Buffer.concat([Buffer.from(`${' '.repeat(257)}ustar`.padEnd(tarBlock)), Buffer.alloc(9)])),
    ).toBe(false);
  });

  test('ends the archive only if all of its bytes are zero', () => {
    const last = Buffer.alloc(tarBlock);
    expect(isZero(last)).toBe(true);
    last[tarBlock - 1] = 1;
    expect(isZero(last)).toBe(false);
    expect(isZero(tarHeader('a', 1))).toBe(false);
  });

  test('has a prefix in its name in the POSIX format only', () => {
    const withPrefix = (magic: string): string | undefined => {
      const block = tarHeader('name', 1);
      block.write(magic, 257, 'latin1');
      block.write('folder', 345);
      block.fill(' ', 148, 156);
      block.write(
        block
          .reduce((sum, byte) => sum + byte)
          .toString(8)
          .padStart(6, '0'),
        148,
      );
      return readTarHeader(block)?.name;
    };
    expect(withPrefix('ustar\u000000')).toBe('folder/name');
    expect(withPrefix('ustar  \u0000')).toBe('name');
  });
});

test.each<[string, Record<string, string>]>([
  ['9 path=a\n', { path: 'a' }],
  ['11 path=ä\n9 size=1\n', { path: 'ä', size: '1' }],
  ['11 c=a=b=c\n', { c: 'a=b=c' }],
  ['', {}],
  // Everything after an unreadable record is left out.
  ['9 path=a\nx y=z\n', { path: 'a' }],
  ['9 path=a\n1 y=z\n', { path: 'a' }],
  ['9 path=a\n1.5 y=z\n', { path: 'a' }],
  ['9 path=a\nnothing', { path: 'a' }],
  ['9 path=a\n 9 path=b\n', { path: 'a' }],
])('the pax records of %j are %j', (content, records) => {
  expect(Object.fromEntries(readPaxRecords(Buffer.from(content)))).toEqual(records);
});

describe('the entries of a tar', () => {
  // tar-stream writes ustar, and pax for values that don't fit into it.
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z0-9.ä-ü]{1,40}(\/[a-z0-9]{1,90}){0,4}$/), { maxLength: 5 });
  const contents = fc.array(fc.uint8Array({ maxLength: 3000 }), { minLength: 5, maxLength: 5 });
  test('are read as they were packed, for any split of the bytes', async () => {
    await fc.assert(
      fc.asyncProperty(names, contents, fc.integer({ min: 1, max: 5000 }), async (all, bytes, pieceBytes) => {
        const files = all.map((name, at) => [name, Buffer.from(bytes[at] ?? [])] as const);
        const expected = files.map(([name, content]) => ({
          name,
          size: content.length,
          isFile: true,
          sha256: sha256(content),
        }));
        expect(await entriesOf(await packed(files), pieceBytes)).toEqual(expected);
      }),
      { numRuns: 60 },
    );
  });

  test.each(['gnu', 'pax', 'ustar', 'oldgnu'])('are the same from GNU tar’s format %s', async (format) => {
    const root = join(directory, format);
    const long = `${'deep-folder-name/'.repeat(8)}${'file'.repeat(format === 'ustar' ? 12 : 40)}`;
    mkdirSync(join(root, long, '..'), { recursive: true });
    writeFileSync(join(root, long), 'long');
    writeFileSync(join(root, 'plain'), Buffer.alloc(70_000, 7));
    symlinkSync(format === 'ustar' ? 'plain' : 'far-away/'.repeat(20), join(root, 'link'));
    const file = join(directory, `${format}.tar`);
    execFileSync('tar', ['-C', root, `--format=${format}`, '-cf', file, 'plain', 'link', long]);
    const found = await entriesOf(readFileSync(file), 3001);
    expect(found.map(({ name, isFile }) => [name, isFile])).toEqual([
      ['plain', true],
      ['link', false],
      [long, true],
    ]);
    expect(found.map(({ sha256: digest }) => digest)).toEqual([
      sha256(Buffer.alloc(70_000, 7)),
      sha256(''),
      sha256('long'),
    ]);
  });

  test('keep a long name that is followed by a link’s long target or a global header', async () => {
    const long = 'name/'.repeat(40);
    const said = (type: string, content: string): Buffer =>
      Buffer.concat([typed(tarHeader('said', content.length), type), Buffer.from(content.padEnd(512, '\0'))]);
    const extensions = [said('L', long), said('K', 'target/'.repeat(30)), said('g', '20 comment=whatever\n')];
    const entries = [typed(tarHeader('short', 0), '2'), tarHeader('next', 0)];
    const found = await entriesOf(Buffer.concat([...extensions, ...entries, endOfArchive]), 333);
    expect(found.map(({ name, isFile }) => [name, isFile])).toEqual([
      [long, false],
      ['next', true],
    ]);
  });

  test('may be skipped, unread or half read', async () => {
    const bytes = await packed([
      ['one', Buffer.alloc(5000, 1)],
      ['two', Buffer.alloc(5000, 2)],
      ['three', Buffer.from('three')],
    ]);
    const seen: string[] = [];
    for await (const { name, content } of tarEntries(inReusedMemory(bytes, 700))) {
      seen.push(name);
      if (name === 'two') for await (const part of content) if (part.length > 0) break;
      if (name === 'three') expect((await buffer(content)).toString()).toBe('three');
    }
    expect(seen).toEqual(['one', 'two', 'three']);
  });

  test('have sizes above 8 GiB in GNU’s form and in pax’s', async () => {
    const size = 9 * 2 ** 30;
    const first = async (bytes: Buffer): Promise<number | undefined> => {
      for await (const entry of tarEntries(Readable.from([bytes]))) return entry.size;
      return undefined;
    };
    expect(await first(tarHeader('huge', size))).toBe(size);
    const record = `${String(`99 size=${String(size)}\n`.length)} size=${String(size)}\n`;
    const extension = Buffer.concat([paxHeader(record.length), Buffer.from(record.padEnd(512, '\0'))]);
    expect(await first(Buffer.concat([extension, tarHeader('huge', 0)]))).toBe(size);
  });

  test('are read to the end of the source, which is ended when the reader stops', async () => {
    const state = { read: 0, ended: false };
    async function* source(): AsyncGenerator<Buffer> {
      try {
        const padding = [endOfArchive, endOfArchive, endOfArchive];
        for (const chunk of [tarHeader('a', 0), tarHeader('b', 0), ...padding]) {
          state.read += 1;
          await Promise.resolve();
          yield chunk;
        }
      } finally {
        state.ended = true;
      }
    }
    for await (const { size } of tarEntries(source())) expect(size).toBe(0);
    expect(state).toEqual({ read: 5, ended: true });
    state.read = 0;
    state.ended = false;
    for await (const { name } of tarEntries(source())) if (name === 'a') break;
    expect(state).toEqual({ read: 1, ended: true });
  });
});

/** The header before pax records. */
function paxHeader(size: number): Buffer {
  return typed(tarHeader('pax', size), 'x');
}

/** A file's header, changed into another type. */
function typed(header: Buffer, type: string): Buffer {
  const before = header[156] ?? 0;
  header.write(type, 156, 'latin1');
  // The checksum increases by the same amount.
  const sum = Number.parseInt(header.toString('latin1', 148, 154), 8) + type.charCodeAt(0) - before;
  header.write(sum.toString(8).padStart(6, '0'), 148, 'latin1');
  return header;
}

describe('an incomplete tar', () => {
  const whole = Buffer.concat([tarHeader('a', 1000), Buffer.alloc(1024, 1), endOfArchive]);
  const wrongSum = Buffer.from(whole);
  wrongSum[0] = 0x62;
  test.each([
    ['a tar that is cut in a header', whole.subarray(0, 100), 'it ends at byte 100'],
    ['a tar that is cut in a file’s content', whole.subarray(0, 1300), 'it ends at byte 1300'],
    ['a tar that is cut in the padding', whole.subarray(0, 1520), 'it ends at byte 1520'],
    ['a file that isn’t a tar', Buffer.from('hello '.repeat(500)), 'wrong checksum'],
    ['an edited header', wrongSum, 'wrong checksum'],
    [
      'an endless pax header',
      Buffer.concat([paxHeader(2 ** 24), Buffer.alloc(2 ** 20)]),
      'a header has 16777216 bytes',
    ],
  ])('%s is tarball-invalid', async (_, bytes, message) => {
    await expect(entriesOf(bytes, 333)).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: expect.stringContaining(message),
    });
  });

  test('an error of the source itself is passed on', async () => {
    async function* failing(): AsyncGenerator<Buffer> {
      yield whole.subarray(0, 600);
      await Promise.resolve();
      throw new Error('docker save failed');
    }
    const read = async (): Promise<void> => {
      for await (const { content } of tarEntries(failing())) await buffer(content);
    };
    await expect(read()).rejects.toThrow('docker save failed');
  });
});
