import fc from 'fast-check';
import { describe, expect, test } from '@jest/globals';
import { differences, type ExpectedImage, requireExpected, requireSameImage } from '../../load-image/verify.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { parsePlatform, platformOf } from '../../shared/image/platform.ts';

const expected: ExpectedImage = {
  configDigest: digestOf('config'),
  manifestDigests: [digestOf('manifest')],
  diffIds: [digestOf('1'), digestOf('2')],
  platform: parsePlatform('linux/arm64'),
  labels: {},
};
const found = {
  imageId: digestOf('config'),
  repoTags: ['charon:local'],
  platform: platformOf('linux', 'arm64', 'v8'),
  diffIds: expected.diffIds,
  labels: {},
  size: 1,
};
const nothing = { expectedConfigDigest: undefined, expectedRevision: undefined, checkPlatform: true };
const host = platformOf('linux', 'aarch64');

describe('requireSameImage', () => {
  test('the very image passes, whatever way the engine spells its platform (S0.4)', () => {
    expect(() => {
      requireSameImage('charon:local', expected, found);
    }).not.toThrow();
  });

  test('another image under the tag is image-mismatch, with all differences and the tag', () => {
    const other = { ...found, imageId: digestOf('other'), diffIds: [], platform: platformOf('linux', 'amd64') };
    const message = [
      `charon:local is not the image that was handed over: image ID ${digestOf('other')} instead of ` +
        `${digestOf('config')} or ${digestOf('manifest')}`,
      `layers none instead of 2 up to ${digestOf('2').slice(0, 19)}…`,
      'platform linux/amd64 instead of linux/arm64.',
    ].join('; ');
    expect(() => {
      requireSameImage('charon:local', expected, other);
    }).toThrow(expect.objectContaining({ code: 'image-mismatch', message }));
  });

  test('property: any change of the layers is one difference, and no change is none', () => {
    const digests = fc.array(fc.nat({ max: 3 }), { maxLength: 4 }).map((list) => list.map((n) => digestOf(String(n))));
    fc.assert(
      fc.property(digests, digests, (one, other) => {
        const same = one.join() === other.join();
        const said = differences({ ...expected, diffIds: one }, { ...found, diffIds: other });
        expect(said).toHaveLength(same ? 0 : 1);
      }),
    );
  });
});

describe('requireExpected', () => {
  const check =
    (expectations: Partial<{ expectedConfigDigest: Digest; expectedRevision: string; checkPlatform: boolean }>) =>
    (image: Partial<ExpectedImage>, engine = host) =>
    () => {
      requireExpected({ ...nothing, ...expectations }, { ...expected, ...image }, engine);
    };
  const revision = (value: string) => ({ labels: { 'org.opencontainers.image.revision': value } });

  test.each([
    ['the revision that was asked for (S1.8)', check({ expectedRevision: 'abc' })(revision('abc'))],
    ['the config digest that was asked for', check({ expectedConfigDigest: digestOf('config') })({})],
    ['an image without a revision when none is expected', check({})({})],
    ['another variant of the engine’s architecture', check({})({ platform: platformOf('linux', 'arm64', 'v9') })],
    ['an emulated platform', check({ checkPlatform: false })({}, platformOf('linux', 'x86_64'))],
  ])('%s passes', (_, work) => {
    expect(work).not.toThrow();
  });

  test.each([
    [
      'another commit (S1.8)',
      check({ expectedRevision: 'abc' })(revision('def')),
      'revision-mismatch',
      'was built from def',
    ],
    ['a part of the commit (S1.8)', check({ expectedRevision: 'abc' })(revision('abcd')), 'revision-mismatch', 'abcd'],
    ['no revision label (S1.8)', check({ expectedRevision: 'abc' })({}), 'revision-mismatch', 'has no label'],
    ['another image', check({ expectedConfigDigest: digestOf('x') })({}), 'image-mismatch', digestOf('config')],
    ['another platform', check({})({}, platformOf('linux', 'x86_64')), 'platform-mismatch', 'engine is linux/amd64'],
    ['another system', check({})({}, platformOf('windows', 'arm64')), 'platform-mismatch', 'windows/arm64'],
  ])('%s fails', (_, work, code, words) => {
    expect(work).toThrow(expect.objectContaining({ code, message: expect.stringContaining(words) }));
  });

  test('a label of someone else’s can’t start a line of its own in the message', () => {
    expect(check({ expectedRevision: 'abc' })(revision('x\n::error::y'))).toThrow('was built from x ::error::y');
  });
});
