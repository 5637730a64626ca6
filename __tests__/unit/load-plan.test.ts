import { describe, expect, test } from '@jest/globals';
import { loadInputs as inputs } from '../fixtures/load-inputs.ts';
import { planLoad } from '../../load-image/plan/plan.ts';
import { fallbackReference } from '../../shared/handed-over/opened-artifact.ts';
import { formatReference } from '../../shared/image/reference.ts';

const hex = 'c'.repeat(64);

describe('planLoad', () => {
  test.each(['registry', 'artifact-then-registry'])('podman and `from: %s` contradict each other', (from) => {
    const both = { ...inputs, engine: 'podman', from };
    expect(() => planLoad(both)).toThrow(expect.objectContaining({ code: 'invalid-input' }));
    expect(planLoad({ ...both, from: 'artifact' }).engine).toBe('podman');
  });

  test('without choices: the reference is the record’s, and nothing else is expected', () => {
    expect(planLoad(inputs)).toEqual({
      artifactName: 'docker-image',
      reference: undefined,
      tarballPath: undefined,
      expectedConfigDigest: undefined,
      expectedRevision: undefined,
      checkPlatform: true,
      overlap: true,
      from: 'artifact',
      registryImage: undefined,
      engine: 'docker',
      into: { kind: 'engine' },
      layoutPath: undefined,
    });
    expect(formatReference(fallbackReference)).toBe('charon:local');
  });

  test('choices are passed on: reference, path, revision, platform check', () => {
    const change = { image: 'charon', tarball: '/tmp/charon.tar', expectedRevision: 'abc', checkPlatform: false };
    expect(planLoad({ ...inputs, ...change })).toMatchObject({
      reference: { repository: 'charon', tag: 'latest' },
      tarballPath: '/tmp/charon.tar',
      expectedRevision: 'abc',
      checkPlatform: false,
    });
  });

  test.each([hex, `sha256:${hex}`])('the config digest %j is taken as the full form', (text) => {
    expect(planLoad({ ...inputs, expectedConfigDigest: text }).expectedConfigDigest).toBe(`sha256:${hex}`);
  });

  test.each([
    ['a short digest', { expectedConfigDigest: 'sha256:abc' }, 'is "sha256:abc"'],
    ['another algorithm', { expectedConfigDigest: `sha512:${hex}` }, 'expected sha256:<64 hex digits>'],
    ['a malformed reference (S0.7)', { image: 'charon:local:' }, 'is not an image reference'],
    ['a reference with a digest', { image: `charon@sha256:${hex}` }, 'stored under a digest'],
    ['a name with a line end', { artifactName: 'docker\nimage' }, 'is not a valid name of an artifact'],
  ])('%s is refused with the text in the message', (_, change, message) => {
    expect(() => planLoad({ ...inputs, ...change })).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(message) }),
    );
  });
});
