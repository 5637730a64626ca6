import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { partialTarballChunks, planPartialTarball } from '../../load-image/overlap/partial-tarball.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { tarBlock, tarHeader, tarPadding } from '../../shared/tar/header.ts';

const contentOf = (name: string): Buffer => Buffer.from(`layer ${name} `.repeat(100));
const diffId = (name: string): Digest => digestOf(`plain ${name}`);
const head = Buffer.from('the small entries');

/** A record, and the bytes of its tarball: a head, then the layers once each. */
function handedOver(names: readonly string[]): { readonly record: HandoverRecord; readonly tarball: Buffer } {
  const parts: Buffer[] = [head];
  const offsets = new Map<string, number>();
  for (const name of new Set(names)) {
    const content = contentOf(name);
    offsets.set(name, Buffer.concat(parts).length + tarBlock);
    parts.push(tarHeader(`blobs/sha256/${digestOf(content).slice(7)}`, content.length), content);
    parts.push(Buffer.alloc(tarPadding(content.length)));
  }
  const tarball = Buffer.concat([...parts, Buffer.alloc(2 * tarBlock)]);
  const layers = names.map((name) => {
    const content = contentOf(name);
    return { digest: digestOf(content), size: content.length, mediaType: '', offset: offsets.get(name) ?? 0 };
  });
  const record: HandoverRecord = {
    references: [{ ...parseTaggedReference('charon:local') }],
    platform: parsePlatform('linux/amd64'),
    configDigest: digestOf('config'),
    manifestDigests: [],
    diffIds: names.map(diffId),
    layers,
    labels: {},
    tarballName: 'charon.tar',
    tarballSize: tarball.length,
    tarballDigest: digestOf(tarball),
    tarballCompression: 'none',
    producer: { repository: '', runId: '', runAttempt: 1, commit: '', jobKey: '' },
  };
  return { record, tarball };
}

async function bytesOf(names: readonly string[], held: readonly string[], damage = -1): Promise<Buffer> {
  const { record, tarball } = handedOver(names);
  const partial = planPartialTarball(record, [held.map(diffId)]);
  if (partial === undefined) return tarball;
  if (damage >= 0) tarball[damage] = 0;
  const read = (start: number, end: number): AsyncIterable<Buffer> =>
    inReusedMemory(tarball.subarray(start, end), Math.ceil((end - start) / 2));
  return copiedBytes(partialTarballChunks(partial, read));
}

describe('which layers are sent', () => {
  const sent = (names: readonly string[], ...chains: readonly (readonly string[])[]): readonly string[] => {
    const { record } = handedOver(names);
    const partial = planPartialTarball(
      record,
      chains.map((chain) => chain.map(diffId)),
    );
    const digests = (partial?.parts ?? record.layers).map((part) => part.digest);
    return [...new Set(names)].filter((name) => digests.includes(digestOf(contentOf(name))));
  };

  test.each([
    ['an engine without images gets all', ['a', 'b', 'c'], [], ['a', 'b', 'c']],
    ['the same base is left out', ['a', 'b', 'c'], [['a', 'b', 'x']], ['c']],
    ['the longest chain counts', ['a', 'b', 'c'], [['a'], ['a', 'b'], ['x', 'b', 'c']], ['c']],
    ['the same layer on another base is sent', ['a', 'b', 'c'], [['x', 'b', 'c']], ['a', 'b', 'c']],
    ['an engine with all of it gets none', ['a', 'b'], [['a', 'b', 'c']], []],
    ['a blob that comes twice is sent when one place needs it', ['a', 'b', 'a'], [['a', 'b']], ['a']],
  ])('%s', (_, names, chains, expected) => {
    expect(sent(names, ...chains)).toEqual(expected);
  });

  test('a record that doesn’t tell where layers lie leaves nothing out', () => {
    const { record } = handedOver(['a', 'b']);
    const held = [[diffId('a')]];
    const placeless = record.layers.map(({ digest, size, mediaType }) => ({ digest, size, mediaType }));
    expect(planPartialTarball(record, held)).toBeDefined();
    expect(planPartialTarball({ ...record, layers: placeless }, held)).toBeUndefined();
    expect(planPartialTarball({ ...record, tarballCompression: 'gzip' }, held)).toBeUndefined();
    expect(planPartialTarball({ ...record, diffIds: [diffId('a')] }, held)).toBeUndefined();
  });
});

describe('the bytes of a partial tarball', () => {
  test('property: what is sent is the whole tarball without the entries left out', async () => {
    const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(names, fc.nat({ max: 5 }), async (all, count) => {
        const whole = handedOver(all).tarball;
        const entry = (name: string): number => {
          const { length } = contentOf(name);
          return tarBlock + length + tarPadding(length);
        };
        const skipped = all.slice(0, count).reduce((sum, name) => sum + entry(name), 0);
        const expected = Buffer.concat([head, whole.subarray(head.length + skipped)]);
        expect(await bytesOf(all, all.slice(0, count))).toEqual(expected);
      }),
    );
  });

  test('a layer that arrives damaged is artifact-corrupt before its end is given out', async () => {
    const damage = handedOver(['a', 'b']).tarball.length - 3 * tarBlock;
    await expect(bytesOf(['a', 'b'], ['a'], damage)).rejects.toMatchObject({
      code: 'artifact-corrupt',
      message: expect.stringContaining(digestOf(contentOf('b'))),
    });
  });
});
