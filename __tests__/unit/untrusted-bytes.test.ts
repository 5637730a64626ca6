import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { deflateRawSync, gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { openArtifact } from '../../shared/artifacts/zip/content.ts';
import type { RangedReader } from '../../shared/artifacts/blob/ranged-reader.ts';
import { storedZip } from '../../shared/artifacts/zip/zip-writer.ts';
import { resolveArtifact } from '../../shared/handed-over/opened-artifact.ts';
import { limits } from '../../shared/base/limits.ts';
import { proxyUrl } from '../../shared/http/proxies.ts';
import { harmlessLines } from '../../shared/base/text.ts';
import { BuildProgress } from '../../shared/docker/build-progress.ts';
import {
  parseInfo,
  parseInspect,
  parseListing,
  parseLoadOutput,
  parsePodmanInfo,
  parsePodmanInspect,
  parsePush,
} from '../../shared/docker/output.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { parseArchiveManifest, parseConfig, parseIndex, parseManifest } from '../../shared/image/manifest.ts';
import { imagesOf, parseRecord, recordName } from '../../shared/image/record.ts';
import { formatReference, parseReference } from '../../shared/image/reference.ts';
import { tarEntries } from '../../shared/tar/entries.ts';
import { tarHeader, tarPadding } from '../../shared/tar/header.ts';
import { chooseImage, imagesIn } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';
import { wholeTarball } from '../../load-image/into/whole-tarball.ts';
import { mutated, mutatedJson, settings, codeOf } from '../fixtures/any-bytes.ts';
import { json, makeImage, ociArchive, podmanTarball, savedTarball, tar } from '../fixtures/image.ts';

// Any bytes give a value or an error with a matching code. They never give another error, an endless wait, or high memory use.

const image = makeImage({ layers: 2, layerBytes: 700 });
const plain = makeImage({ layers: 2, layerBytes: 700, gzip: false });
const first = savedTarball(image, ['charon:local']);
const tarballs = [first, ociArchive([image]), podmanTarball(plain, ['charon:local'])];
const platform = { os: 'linux', architecture: 'amd64' };

const validRecord = {
  schema: 1,
  references: ['charon:local'],
  platform: 'linux/amd64',
  configDigest: image.configDigest,
  manifestDigests: [image.manifestDigest],
  diffIds: image.diffIds,
  labels: { a: 'b' },
  layers: image.layerDigests.map((digest, at) => ({ digest, size: 500, mediaType: 'a/b', offset: 512 + 1024 * at })),
  configAt: { offset: 5000, size: 300 },
  manifestAt: { offset: 6000, size: 300 },
  further: [],
  tarballName: 'charon.tar',
  tarballSize: 10_000,
  tarballDigest: digestOf('x'),
  tarballCompression: 'none',
  producer: { repository: 'org/charon', runId: '1', runAttempt: 1, commit: 'abc', jobKey: 'build/0' },
};

function readerOf(bytes: Buffer): RangedReader {
  const part = (start: number, end: number): Buffer => {
    if (start < 0 || end > bytes.length || start > end) throw new Error(`asked for ${String(start)}-${String(end)}`);
    return bytes.subarray(start, end);
  };
  return {
    size: bytes.length,
    downloaded: () => undefined,
    read: (start, end) => Promise.resolve(part(start, end)),
    stream: (start, end) => Readable.from([part(start, end)]),
    lend: (start, end) => Readable.from([part(start, end)]),
  };
}

const check = <T>(bytes: fc.Arbitrary<T>, codes: readonly string[], work: (value: T) => unknown): Promise<void> =>
  fc.assert(
    fc.asyncProperty(bytes, async (value) => {
      const code = await codeOf(() => work(value));
      if (code !== undefined && !codes.includes(code)) throw new Error(`it ended with ${code}`);
    }),
    settings,
  );

const anyBytes = fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes));
const anyText = fc.oneof(fc.string({ unit: 'binary', maxLength: 500 }), fc.json().map(String));

describe('property: any bytes in place of', () => {
  let zip: Buffer;
  beforeAll(async () => {
    const entry = (name: string, bytes: Buffer) => ({ name, size: bytes.length, chunks: Readable.from([bytes]) });
    zip = await buffer(storedZip([entry('charon.tar', first), entry(recordName, json(validRecord))]));
  });

  test('an artifact’s zip', () =>
    check(
      fc.oneof(
        fc.constant(0).chain(() => mutated(zip)),
        anyBytes,
      ),
      ['artifact-corrupt'],
      async (bytes) => {
        const content = await openArtifact(
          { id: 1, name: 'a', size: bytes.length, digest: digestOf(zip) },
          readerOf(bytes),
        );
        await content.text(recordName);
        const [file] = content.files;
        if (file === undefined) return;
        const read = await content.ranges(file.name);
        if (read !== undefined) await buffer(Readable.from(read(0, file.size, () => undefined)));
        const whole = await buffer(Readable.from(content.read(file.name, () => undefined)));
        // A successful read returned exactly the sent bytes.
        expect(whole.equals(first)).toBe(true);
      },
    ));

  test('a record', () =>
    check(fc.oneof(mutatedJson(validRecord), anyText), ['artifact-corrupt'], (text) => {
      for (const one of imagesOf(parseRecord(text))) {
        expect(one.references.length).toBeLessThanOrEqual(limits.references);
        for (const { size, offset = 0 } of one.layers) expect(Number.isSafeInteger(size + offset)).toBe(true);
      }
    }));

  test.each([
    [
      'config',
      parseConfig,
      { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: image.diffIds }, config: { Labels: { a: 'b' } } },
    ],
    ['manifest', parseManifest, JSON.parse(String(image.blobs.get(image.manifestDigest)))],
    [
      'index',
      parseIndex,
      { manifests: [{ mediaType: 'a/b', digest: digestOf('x'), size: 5, platform, annotations: {} }] },
    ],
    ['archive manifest', parseArchiveManifest, [{ Config: 'a', RepoTags: ['a:1'], Layers: ['b'] }]],
  ] as const)('a %s', (_, parse, valid) =>
    check(fc.oneof(mutatedJson(valid), anyText), ['tarball-invalid'], (text) => {
      expect(parse(Buffer.from(text), 'it')).toBeDefined();
    }),
  );

  test.each(tarballs.map((valid, at) => [at, valid] as const))('tarball %i, as export-image reads it', (_, valid) =>
    check(
      fc.oneof(mutated(valid), anyBytes),
      ['tarball-invalid', 'image-not-found', 'platform-mismatch', 'invalid-input'],
      async (bytes) => {
        const { images } = imagesIn(await seeTarball(Readable.from([bytes])));
        const { diffIds } = chooseImage(images, undefined, platform).config;
        // Even if other bytes have changed, the image in it is the original one.
        expect([image.diffIds, plain.diffIds]).toContainEqual(diffIds);
      },
    ),
  );

  test.each(tarballs.map((valid, at) => [at, valid] as const))('tarball %i, as load-image forwards it', (_, valid) =>
    check(
      fc.oneof(mutated(valid), mutated(gzipSync(valid)), anyBytes),
      ['tarball-invalid', 'image-not-found', 'platform-mismatch', 'invalid-input', 'artifact-corrupt'],
      async (bytes) => {
        const artifact = { id: 1, name: 'a', size: bytes.length };
        const content = await openArtifact(artifact, readerOf(bytes));
        const wish = {
          reference: undefined,
          expectedConfigDigest: undefined,
          expectedRevision: undefined,
          host: undefined,
        };
        const opened = resolveArtifact({ origin: 'artifact', content, record: undefined, identified: undefined }, wish);
        const passing = wholeTarball({ opened, platform, repository: 'a.invalid/b' }, () => undefined);
        const passed = await buffer(Readable.from(passing.chunks));
        // Only this action's own entries name images in it.
        for await (const { name, content: bytesOf } of tarEntries(Readable.from([passed]))) {
          if (name === 'manifest.json')
            expect(String(await buffer(Readable.from(bytesOf)))).not.toContain('charon:local');
        }
      },
    ),
  );

  test('a tar', () =>
    check(fc.oneof(mutated(first), anyBytes), ['tarball-invalid'], async (bytes) => {
      let all = 0;
      for await (const { size } of tarEntries(Readable.from([bytes]))) all += size;
      // An entry that is read to its end has its announced size.
      expect(all).toBeLessThanOrEqual(bytes.length);
    }));

  test('output of docker and podman', () =>
    check(
      fc.oneof(
        anyText,
        mutatedJson([{ Id: 'sha256:1', RepoTags: ['a:1'], Config: { Labels: {} }, RootFS: { Layers: [] } }]),
      ),
      [],
      (text) => {
        for (const parse of [parseInfo, parseInspect, parseListing, parseLoadOutput, parsePush]) parse(text);
        for (const parse of [parsePodmanInfo, parsePodmanInspect]) parse(text);
      },
    ));

  test('output of buildx, none of which becomes a workflow command', () =>
    check(
      fc.oneof(
        anyText,
        mutatedJson({
          vertexes: [{ digest: 'a', name: 'b' }],
          logs: [{ data: 'AAAA', vertex: 'a' }],
          statuses: [{ id: 'x' }],
        }),
      ),
      [],
      (text) => {
        const lines: string[] = [];
        const progress = new BuildProgress((line) => void lines.push(line));
        progress.line(text);
        progress.failure();
        for (const line of lines.flatMap((said) => harmlessLines(said).split(/[\r\n]/)))
          expect(line).not.toMatch(/^[\s\u0085]*::|##\[/);
      },
    ));

  test('a reference, which keeps its meaning when it is accepted and written', () =>
    check(anyText, ['invalid-input'], (text) => {
      const reference = parseReference(text);
      expect(formatReference(parseReference(formatReference(reference)))).toBe(formatReference(reference));
    }));

  test('a proxy', () => check(anyText, ['unsupported-host'], (value) => proxyUrl({ variable: 'HTTPS_PROXY', value })));
});

describe('an artifact that is a decompression bomb', () => {
  /** A zip with one deflated member, whose directory claims a small size. */
  function bomb(name: string, content: Buffer, said: number): Buffer {
    const packed = deflateRawSync(content, { level: 9 });
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(said, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\u0003\u0004', 'latin1'), common, Buffer.from(name), packed]);
    const central = Buffer.concat([
      Buffer.from('PK\u0001\u0002\u0014\u0000', 'latin1'),
      common,
      Buffer.alloc(14),
      Buffer.from(name),
    ]);
    const end = Buffer.alloc(22);
    end.write('PK\u0005\u0006', 0, 'latin1');
    end.writeUInt16LE(1, 8);
    end.writeUInt16LE(1, 10);
    end.writeUInt32LE(central.length, 12);
    end.writeUInt32LE(local.length, 16);
    return Buffer.concat([local, central, end]);
  }

  test('a record whose kilobytes unpack to megabytes is abandoned after a few kilobytes', async () => {
    const zip = bomb(recordName, Buffer.alloc(200_000_000, ' '), 1000);
    expect(zip.length).toBeGreaterThan(190_000);
    let taken = 0;
    const inPieces = function* (start: number, end: number): Generator<Buffer> {
      for (let at = start; at < end; at += 512) {
        taken += 512;
        yield zip.subarray(at, Math.min(end, at + 512));
      }
    };
    const reader = readerOf(zip);
    const counting: RangedReader = {
      ...reader,
      stream: (start, end) => Readable.from(inPieces(start, end)),
      lend: (start, end) => Readable.from(inPieces(start, end)),
    };
    const content = await openArtifact({ id: 1, name: 'a', size: zip.length }, counting);
    // The directory has been read, so the remaining reads are of the content.
    taken = 0;
    expect(await codeOf(() => content.text(recordName))).toBe('artifact-corrupt');
    // Each kilobyte read unpacks to a megabyte.
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThan(100_000);
  });

  test('a record with a large announced size is refused before it is unpacked', async () => {
    const zip = bomb(recordName, Buffer.alloc(20_000_000, ' '), 20_000_000);
    const content = await openArtifact({ id: 1, name: 'a', size: zip.length }, readerOf(zip));
    expect(await codeOf(() => content.text(recordName))).toBe('artifact-corrupt');
  });
});

describe('values beyond their limits', () => {
  test.each([
    ['references', { references: Array.from({ length: 10_000 }, (_, at) => `a:${String(at)}`) }],
    ['layers', { layers: Array.from({ length: 2000 }, () => validRecord.layers[0]) }],
    ['further images', { further: Array.from({ length: 200 }, () => validRecord) }],
    ['bytes', { tarballSize: 2 ** 53 }],
    ['bytes before it', { layers: [{ ...validRecord.layers[0], offset: -1 }] }],
    ['bytes after it', { layers: [{ ...validRecord.layers[0], offset: 9_999 }] }],
    ['a size that isn’t a number', { tarballSize: '10' }],
    ['a name with a folder', { tarballName: '../charon.tar' }],
    ['a newer schema', { schema: 2 }],
  ])('%s: the record is refused', async (_, change) => {
    expect(await codeOf(() => parseRecord(JSON.stringify({ ...validRecord, ...change })))).toBe('artifact-corrupt');
  });

  test('lines in a media type', async () => {
    const manifest = JSON.parse(String(image.blobs.get(image.manifestDigest)));
    const layers = [{ ...manifest.layers[0], mediaType: 'a/b\r\nset-cookie: c' }];
    expect(await codeOf(() => parseManifest(json({ ...manifest, layers }), 'it'))).toBe('tarball-invalid');
  });

  test('levels of JSON', async () => {
    const deep = `{"rootfs":{},"config":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    expect(await codeOf(() => parseConfig(Buffer.from(deep), 'it'))).toBe('tarball-invalid');
  });

  test('entries of a tar, or bytes in one', async () => {
    const many = Buffer.concat([Buffer.alloc(512 * (limits.tarEntries + 1), tarHeader('a', 0)), Buffer.alloc(1024)]);
    const large = tarHeader('a', 8 ** 11);
    large.fill(0xff, 128, 136);
    let sum = 0;
    large.fill(0x20, 148, 156);
    for (const byte of large) sum += byte;
    large.write(`${sum.toString(8).padStart(6, '0')}\u0000 `, 148, 'latin1');
    for (const bytes of [
      many,
      Buffer.concat([large, Buffer.alloc(1024)]),
      tar([['x'.repeat(99), Buffer.alloc(1)]]).subarray(0, 700),
    ]) {
      const read = async (): Promise<void> => {
        // One comparison for all: an `expect` for each of a hundred thousand entries takes 18 seconds.
        let largest = 0;
        for await (const { size } of tarEntries(Readable.from([bytes]))) largest = Math.max(largest, size);
        expect(largest).toBeLessThan(2 ** 53);
      };
      expect(await codeOf(read)).toBe('tarball-invalid');
    }
  });

  test('letters of a name', async () => {
    const name = Buffer.from('x'.repeat(70_000));
    const header = tarHeader('long', name.length);
    header.write('L', 156);
    header.fill(0x20, 148, 156);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\u0000 `, 148, 'latin1');
    const bytes = Buffer.concat([header, name, Buffer.alloc(tarPadding(name.length)), tar([['a', Buffer.from('b')]])]);
    const read = async (): Promise<void> => {
      for await (const entry of tarEntries(Readable.from([bytes]))) expect(entry.name).toBe('');
    };
    expect(await codeOf(read)).toBe('tarball-invalid');
  });

  test('pax records without a length', async () => {
    const pax = (content: string): Buffer => {
      const header = tarHeader('pax', content.length);
      header.write('x', 156);
      header.fill(0x20, 148, 156);
      const sum = header.reduce((total, byte) => total + byte, 0);
      header.write(`${sum.toString(8).padStart(6, '0')}\u0000 `, 148, 'latin1');
      return Buffer.concat([header, Buffer.from(content.padEnd(512, '\0')), tar([['a', Buffer.from('b')]])]);
    };
    for (const content of [
      'abc',
      '',
      ' ',
      '0 a=b\n',
      '-5 a=b\n',
      '12 size=-9\n',
      '20 size=1e300\nxxxxxx\n',
      '99999999 path=a\n',
    ]) {
      const read = async (): Promise<void> => {
        for await (const { size } of tarEntries(Readable.from([pax(content)]))) expect(size).toBeGreaterThanOrEqual(0);
      };
      expect([undefined, 'tarball-invalid']).toContain(await codeOf(read));
    }
  });
});
