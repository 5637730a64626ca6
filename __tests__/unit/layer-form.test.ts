import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { endOfArchive, looksLikeJson } from '../../shared/tar/header.ts';
import { layerPackingOf, wrongForm } from '../../shared/tar/compression.ts';
import { imagesIn } from '../../shared/tar/tarball-images.ts';
import { readTarball, SeenTarball, seeTarball } from '../../shared/tar/tarball-reader.ts';
import { codeOf } from '../fixtures/any-bytes.ts';
import { json, makeImage, savedTarball, tar } from '../fixtures/image.ts';
import { rewritten } from '../fixtures/lying-artifact.ts';

const plain = tar([['a', Buffer.from('b')]]);
const oldTar = (): Buffer => {
  const bytes = Buffer.from(plain);
  bytes.fill(0, 257, 265);
  bytes.fill(0x20, 148, 156);
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\u0000 `, 148, 'latin1');
  return bytes;
};
/** Returns JSON that is also a valid tar header, with the right checksum and with `ustar` in the right place. */
const both = (): Buffer => {
  const bytes = Buffer.alloc(600, ' ');
  bytes.write('{"a":"');
  bytes.write('ustar', 257);
  bytes.write('"}', 598);
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  // Six digits of the sum, in the eight bytes that count as blanks.
  bytes.write(sum.toString(8).padStart(6, '0'), 148, 'latin1');
  return bytes;
};
const oci = 'application/vnd.oci.image.layer.v1.tar';
const docker = 'application/vnd.docker.image.rootfs.diff.tar';

describe('the form of a layer is found from its first bytes (B.11)', () => {
  test.each<[string, Buffer, string | undefined]>([
    ['a tar', plain, 'none'],
    ['a tar in the format before POSIX', oldTar(), 'none'],
    ['an empty tar', endOfArchive, 'none'],
    ['no bytes', Buffer.alloc(0), 'none'],
    ['gzip', gzipSync(plain), 'gzip'],
    ['zstd', zstdCompressSync(plain), 'zstd'],
    ['JSON', json({ a: 'b'.repeat(600) }), undefined],
    ['JSON after 600 blanks', Buffer.from(`${' '.repeat(600)}{}`), undefined],
    ['JSON that is also a tar header', both(), undefined],
    ['text', Buffer.from('x'.repeat(600)), undefined],
    ['half a header', plain.subarray(0, 300), undefined],
  ])('the packing of a layer is found for %s', (_, bytes, packing) => {
    expect(layerPackingOf(bytes)).toBe(packing);
  });

  test.each<[string, Buffer, boolean]>([
    [oci, plain, true],
    [`${oci}+gzip`, gzipSync(plain), true],
    [`${oci}+zstd`, zstdCompressSync(plain), true],
    [docker, plain, true],
    [docker, gzipSync(plain), true],
    [`${docker}.gzip`, gzipSync(plain), true],
    ['', zstdCompressSync(plain), true],
    [`${oci}+gzip`, plain, false],
    [`${oci}+zstd`, gzipSync(plain), false],
    [`${docker}.gzip`, plain, false],
    [oci, gzipSync(plain), false],
    [oci, json({}), false],
    ['', json({}), false],
    [`${oci}+gzip`, json({}), false],
  ])('the form is compared with the media type %s in case %#', (mediaType, bytes, isRight) => {
    expect(wrongForm(mediaType, layerPackingOf(bytes)) === undefined).toBe(isRight);
  });

  test('a layer in an unknown compression is refused with its media type', () => {
    // The frame magic number of LZ4.
    const bytes = Buffer.concat([Buffer.from([0x04, 0x22, 0x4d, 0x18]), Buffer.alloc(600, 1)]);
    expect(wrongForm(`${oci}+lz4`, layerPackingOf(bytes))).toContain(`${oci}+lz4`);
  });

  test('a layer is distinguished from JSON with any number of blanks in front of it', () => {
    expect([plain, endOfArchive, Buffer.alloc(0), gzipSync(plain)].map(looksLikeJson)).toEqual([
      false,
      false,
      false,
      false,
    ]);
    expect([json({}), both(), Buffer.alloc(600, ' ')].map(looksLikeJson)).toEqual([true, true, true]);
  });
});

describe('a tarball', () => {
  const image = makeImage({ layers: 1, layerBytes: 700 });
  const [config = Buffer.alloc(0)] = [image.blobs.get(image.configDigest)];

  test('a tarball yields no config, with any bytes before or after the config', async () => {
    const hidden = [
      Buffer.concat([Buffer.alloc(600, ' '), config]),
      Buffer.concat([config, Buffer.alloc(5_000_000, ' ')]),
      both(),
    ];
    const bytes = savedTarball(rewritten(image, { more: hidden }), ['charon:local']);
    const out: string[] = [];
    for await (const { name, chunks } of readTarball(Readable.from([bytes]), new SeenTarball())) {
      out.push(name);
      await buffer(Readable.from(chunks));
    }
    expect(out).toEqual(image.layerDigests.map((digest) => `blobs/sha256/${digest.slice(7)}`));
  });

  test.each<[string, (text: string) => string]>([
    ['another media type', (text) => text.replace('tar+gzip', 'tar+zstd')],
    ['no compression', (text) => text.replace('tar+gzip', 'tar')],
    ['another size', (text) => text.replace(/("layers":.*"size":)\d+/, '$17')],
  ])('a tarball is refused when its layer has %s in the manifest', async (_, manifest) => {
    const bytes = savedTarball(rewritten(image, { manifest }), ['charon:local']);
    expect(await codeOf(async () => imagesIn(await seeTarball(Readable.from([bytes]))))).toBe('tarball-invalid');
  });
});
