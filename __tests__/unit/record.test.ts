import { Readable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { HandoverError } from '../../shared/base/errors.ts';
import { limits } from '../../shared/base/limits.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { layerBytes } from '../../shared/handed-over/identity.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatRecord, type HandoverRecord, imagesOf, parseRecord } from '../../shared/image/record.ts';
import { parsePinnedReference, parseTaggedReference } from '../../shared/image/reference.ts';

const platform = parsePlatform('linux/amd64');
const references = [parseTaggedReference('charon:local'), parseTaggedReference('ghcr.io/org/charon:1')];

describe('the record', () => {
  const digest = fc.stringMatching(/^[0-9a-f]{64}$/).map((hex): `sha256:${string}` => `sha256:${hex}`);
  const record: fc.Arbitrary<HandoverRecord> = fc.record({
    references: fc.constant(references),
    platform: fc.constant(platform),
    configDigest: digest,
    manifestDigests: fc.array(digest, { maxLength: 2 }),
    diffIds: fc.array(digest, { maxLength: 4 }),
    layers: fc.array(fc.record({ digest, size: fc.nat(1000), mediaType: fc.string(), offset: fc.nat(1000) }), {
      maxLength: 4,
    }),
    labels: fc.dictionary(fc.stringMatching(/^[a-z.]{1,9}$/), fc.string()),
    tarballName: fc.constant('charon.tar'),
    tarballSize: fc.integer({ min: 2000, max: 2 ** 50 }),
    tarballDigest: digest,
    tarballCompression: fc.constantFrom('none' as const, 'gzip' as const, 'zstd' as const),
    producer: fc.record({
      repository: fc.string(),
      runId: fc.string(),
      runAttempt: fc.nat(),
      commit: fc.string(),
      jobKey: fc.string(),
    }),
  });

  test('property: load reads what export writes, and ignores unknown fields', () => {
    fc.assert(
      fc.property(record, (written) => {
        expect(parseRecord(formatRecord(written))).toEqual(written);
        const more = { ...JSON.parse(formatRecord(written)), future: true };
        expect(parseRecord(JSON.stringify(more))).toEqual(written);
      }),
    );
  });

  test.each([
    [
      'in the form that export writes',
      { began: 1, started: 1, built: 2, ready: 3 },
      { began: 1, started: 1, built: 2, ready: 3 },
    ],
    ['that run backwards', { began: 4, started: 3, built: 2, ready: 1 }, undefined],
    ['that are texts', { began: '1', started: '1', built: '2', ready: '3' }, undefined],
    ['that are too large', { began: 0, started: 0, built: 1, ready: 2 ** 60 }, undefined],
    ['that are missing', null, undefined],
  ])('times %s: they are shown if they are possible, and otherwise omitted', (_, times, expected) => {
    const [good] = fc.sample(record, 1);
    if (good === undefined) throw new Error('no sample');
    expect(parseRecord(JSON.stringify({ ...JSON.parse(formatRecord(good)), times })).times).toEqual(expected);
  });

  test.each([
    ['another schema', { schema: 2 }, 'has schema 2'],
    ['a reference that docker would refuse', { references: ['a b'] }, 'a reference in it is malformed'],
    ['a path as the tarball’s name', { tarballName: '../x' }, 'not a file name'],
    [
      'a layer outside the tarball',
      { layers: [{ digest: digestOf(''), size: 10, offset: 9e15 }] },
      'outside the tarball',
    ],
    ['a negative size', { tarballSize: -1 }, 'tarballSize'],
    ['a digest with a path in it', { configDigest: 'sha256:../../etc' }, 'configDigest'],
    ['two thousand layers', { layers: Array.from({ length: 2000 }, () => ({})) }, '2000 layers'],
  ])('%s is refused as artifact-corrupt', (_, change, message) => {
    const [good] = fc.sample(record, 1);
    if (good === undefined) throw new Error('no sample');
    const text = JSON.stringify({ ...JSON.parse(formatRecord(good)), ...change });
    expect(() => parseRecord(text)).toThrow(message);
  });

  const one = digestOf('one');
  const whole: HandoverRecord = {
    references,
    platform,
    configDigest: one,
    manifestDigests: [digestOf('manifest')],
    diffIds: [digestOf('layer')],
    labels: { a: 'b' },
    layers: [
      { digest: digestOf('packed'), size: 10, mediaType: 'application/vnd.oci.image.layer.v1.tar', offset: 90 },
      { digest: digestOf('without a place'), size: 1000, mediaType: '', offset: undefined },
    ],
    configAt: { offset: 80, size: 20 },
    manifestAt: { offset: 0, size: 100 },
    created: '2026-01-01T00:00:00Z',
    tarballName: 'charon.tar',
    tarballSize: 100,
    tarballDigest: one,
    tarballCompression: 'none',
    producer: { repository: 'org/charon', runId: '1', runAttempt: 2, commit: 'abc', jobKey: 'build' },
    pushedReference: parsePinnedReference(`ghcr.io/org/charon@${one}`),
    indexDigest: digestOf('index'),
    times: { began: 1, started: 1, built: 1, ready: 1 },
  };
  const written = (change: object): string => JSON.stringify({ ...JSON.parse(formatRecord(whole)), ...change });

  test('every member is read as it was written, including further images', () => {
    const { configDigest, manifestDigests, diffIds, labels, layers } = whole;
    const other = { platform, configDigest, manifestDigests, diffIds, labels, layers };
    const places = { configAt: undefined, manifestAt: undefined };
    const further = [{ ...other, ...places, references: [parseTaggedReference('other:1')] }];
    const record = { ...whole, further };
    expect(parseRecord(formatRecord(record))).toStrictEqual(record);
    expect(imagesOf(record)).toEqual([record, ...further]);
    expect(imagesOf(whole)).toEqual([whole]);
    const text = formatRecord(record);
    expect(text).toMatch(/^\{\n {2}"schema": 1,\n[^]*\}\n$/);
    expect(JSON.parse(text)).toMatchObject({
      references: ['charon:local', 'ghcr.io/org/charon:1'],
      platform: 'linux/amd64',
      pushedReference: `ghcr.io/org/charon@${one}`,
      further: [{ references: ['other:1'], platform: 'linux/amd64' }],
    });
  });

  test('members of the producer with a wrong type are empty', () => {
    const nobody = { repository: '', runId: '', runAttempt: 0, commit: '', jobKey: '' };
    expect(parseRecord(written({ producer: 'me' })).producer).toEqual(nobody);
    const wrong = { repository: 1, runId: 2, runAttempt: '3', commit: null, jobKey: [] };
    expect(parseRecord(written({ producer: wrong })).producer).toEqual(nobody);
    expect(parseRecord(written({ created: 5 }))).toHaveProperty('created', undefined);
    expect(parseRecord(written({ layers: [{ digest: one, size: 1, mediaType: 2 }] })).layers).toStrictEqual([
      { digest: one, size: 1, mediaType: '', offset: undefined },
    ]);
  });

  test.each([
    [{ began: 0, started: 0, built: 0, ready: 1 }, true],
    [{ began: 2, started: 1, built: 3, ready: 4 }, false],
    [{ began: 1, started: 3, built: 2, ready: 4 }, false],
    [{ began: 1, started: 2, built: 4, ready: 3 }, false],
    [{ started: 2, built: 3, ready: 4 }, false],
    [{ began: 1, built: 3, ready: 4 }, false],
    [{ began: 1, started: 2, ready: 4 }, false],
    [{ began: 1, started: 2, built: 3 }, false],
  ])('times %j are shown: %s', (times, shown) => {
    expect(parseRecord(written({ times })).times).toEqual(shown ? times : undefined);
  });

  const at = (count: number, item: unknown): readonly unknown[] => Array.from({ length: count }, () => item);
  const layer = { digest: one, size: 1 };
  const further = { references: ['a:1'], platform: 'linux/amd64', configDigest: one };

  test('the greatest permitted number of images, references and layers is read', () => {
    expect(parseRecord(written({ layers: at(limits.layers, layer) })).layers).toHaveLength(limits.layers);
    expect(parseRecord(written({ diffIds: at(limits.layers, one) })).diffIds).toHaveLength(limits.layers);
    expect(parseRecord(written({ references: at(limits.references, 'a:1') })).references).toHaveLength(
      limits.references,
    );
    expect(imagesOf(parseRecord(written({ further: at(limits.images - 1, further) })))).toHaveLength(limits.images);
  });

  test.each([
    ['no schema', { schema: undefined }, 'has schema undefined; this version reads schema 1.'],
    ['a schema without a text form', { schema: { toString: 1 } }, 'has schema {"toString":1}; this version'],
    ['a compression without a text form', { tarballCompression: { toString: 1 } }, 'compression "{"toString":1}"'],
    ['no reference', { references: [] }, 'it has no references'],
    ['too many references', { references: at(limits.references + 1, 'a:1') }, 'it lists 251 references'],
    ['a reference by digest', { references: [`a@${one}`] }, 'a reference in it is malformed'],
    ['a malformed platform', { platform: 'linux' }, 'its platform is malformed'],
    ['no platform', { platform: undefined }, 'its platform is malformed'],
    ['a pushed reference by tag', { pushedReference: 'a:1' }, 'its pushed reference is malformed'],
    ['a pushed reference that isn’t a text', { pushedReference: 1 }, 'its pushed reference is malformed'],
    ['an index digest of another algorithm', { indexDigest: `sha512:${'a'.repeat(128)}` }, 'its indexDigest is not a'],
    ['a config without a valid position', { configAt: 5 }, 'its configAt is not a position in the tarball'],
    ['a manifest without a valid position', { manifestAt: null }, 'its manifestAt is not a position in the tarball'],
    ['a manifest without an offset', { manifestAt: { size: 1 } }, 'its offset is not a byte count'],
    [
      'a config outside the tarball',
      { configAt: { offset: 81, size: 20 } },
      'a config or manifest lies outside the tarball',
    ],
    [
      'a manifest outside the tarball',
      { manifestAt: { offset: 0, size: 101 } },
      'a config or manifest lies outside the tarball',
    ],
    ['a layer outside the tarball', { layers: [{ ...layer, offset: 100 }] }, `layer ${one} lies outside the tarball`],
    ['a layer without a digest', { layers: [{ size: 1 }] }, 'its digest is not a digest'],
    ['a layer without a size', { layers: [{ digest: one }] }, 'its size is not a byte count'],
    ['a layer before the tarball', { layers: [{ ...layer, offset: -1 }] }, 'its offset is not a byte count'],
    ['too many layers', { layers: at(limits.layers + 1, layer) }, 'it lists 1001 layers'],
    ['too many diff IDs', { diffIds: at(limits.layers + 1, one) }, 'its diffIds are not digests'],
    ['an invalid diff ID', { diffIds: [one, 'x'] }, 'its diffIds are not digests'],
    ['an invalid manifest digest', { manifestDigests: ['x'] }, 'its manifestDigests are not digests'],
    ['too many images', { further: at(limits.images, further) }, 'it lists 101 further images'],
    ['a further image that isn’t an object', { further: [further, 5] }, 'a further image in it is not a JSON object'],
    ['further images that aren’t a list', { further: 5 }, 'a further image in it is not a JSON object'],
    [
      'a further image outside',
      { further: [{ ...further, configAt: { offset: 100, size: 1 } }] },
      'outside the tarball',
    ],
    ['a folder as the name', { tarballName: 'a/b' }, 'its tarball name is not a file name'],
    ['a folder of Windows as the name', { tarballName: 'a\\b' }, 'its tarball name is not a file name'],
    ['the folder above as the name', { tarballName: '..' }, 'its tarball name is not a file name'],
    [
      'the record’s own name as the tarball’s name',
      { tarballName: 'image-handover.json' },
      'its tarball name is not a file name',
    ],
    ['no name', { tarballName: '' }, 'its tarball name is not a file name'],
    ['another compression', { tarballCompression: 'xz' }, 'its compression "xz" is unknown'],
    ['no tarball digest', { tarballDigest: undefined }, 'its tarballDigest is not a digest'],
  ])('%s is refused with a message that shows the reason', (_, change, message) => {
    expect(() => parseRecord(written(change))).toThrow(
      expect.objectContaining({ code: 'artifact-corrupt', message: expect.stringContaining(message) }),
    );
  });

  test('a text that isn’t a record is quoted in the message, shortened', () => {
    expect(() => parseRecord(`[${'x'.repeat(100)}]`)).toThrow(
      new HandoverError(
        'artifact-corrupt',
        `The record image-handover.json in the artifact can't be used: it is not a JSON object: "[${'x'.repeat(79)}…".`,
        'Run the job that exports the image again.',
      ),
    );
    expect(() => parseRecord('[]')).toThrow('it is not a JSON object: "[]"');
  });

  test('a record of more than 8 MiB is neither read nor written', () => {
    const text = formatRecord(whole).trimEnd();
    const padded = (bytes: number): string => text + ' '.repeat(bytes - Buffer.byteLength(text));
    expect(parseRecord(padded(limits.recordBytes))).toEqual(whole);
    expect(() => parseRecord(padded(limits.recordBytes + 1))).toThrow('it is larger than 8 MiB');
    const labels = (bytes: number): HandoverRecord => ({ ...whole, labels: { a: 'x'.repeat(bytes) } });
    const most = limits.recordBytes - Buffer.byteLength(formatRecord(labels(0)));
    expect(Buffer.byteLength(formatRecord(labels(most)))).toBe(limits.recordBytes);
    expect(() => formatRecord(labels(most + 1))).toThrow(
      expect.objectContaining({
        code: 'tarball-invalid',
        message: expect.stringContaining(
          `the record of them would have ${String(limits.recordBytes + 1)} bytes, more than 8 MiB.`,
        ),
        hint: 'Shorten the labels, or hand over fewer images in one artifact.',
      }),
    );
  });

  test.each([
    [2, 'The artifact was made by a newer export-image: use the same version of both actions.'],
    [0, 'Use the same version of export-image and load-image.'],
    ['2', 'Use the same version of export-image and load-image.'],
  ])('the hint for schema %j is to use one version', (schema, hint) => {
    expect(() => parseRecord(written({ schema }))).toThrow(expect.objectContaining({ code: 'artifact-corrupt', hint }));
  });

  test('the error of a corrupt layer names the layer', async () => {
    const layer = { digest: one, size: 5, mediaType: 'application/vnd.oci.image.layer.v1.tar', offset: 0 };
    const read = (): Readable => Readable.from([Buffer.from('bytes')]);
    await expect(copiedBytes(layerBytes(layer, read, () => undefined))).rejects.toMatchObject({
      code: 'artifact-corrupt',
      message: `The layer ${one} in the artifact is not a tar, compressed or not (its media type is ${layer.mediaType}).`,
      hint: 'Run the job that exports the image again.',
    });
  });
});
