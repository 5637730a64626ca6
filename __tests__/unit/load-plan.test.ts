import { describe, expect, test } from '@jest/globals';
import { loadInputs as inputs } from '../fixtures/load-inputs.ts';
import { planLoad } from '../../load-image/plan/plan.ts';
import { fallbackReference } from '../../shared/handed-over/opened-artifact.ts';
import { formatReference } from '../../shared/image/reference.ts';

const hex = 'c'.repeat(64);

describe('planLoad', () => {
  test.each(['registry', 'artifact-then-registry'])('a plan refuses podman together with `from: %s`', (from) => {
    const both = { ...inputs, engine: 'podman', from };
    expect(() => planLoad(both)).toThrow(expect.objectContaining({ code: 'invalid-input' }));
    expect(planLoad({ ...both, from: 'artifact' }).engine).toBe('podman');
  });

  test('a plan without inputs has the reference of the record, and expects nothing else', () => {
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

  test('a plan contains the values of the inputs: reference, path, revision, platform check', () => {
    const change = { image: 'charon', tarball: '/tmp/charon.tar', expectedRevision: 'abc', checkPlatform: false };
    expect(planLoad({ ...inputs, ...change })).toMatchObject({
      reference: { repository: 'charon', tag: 'latest' },
      tarballPath: '/tmp/charon.tar',
      expectedRevision: 'abc',
      checkPlatform: false,
    });
  });

  test.each([hex, `sha256:${hex}`])('a plan accepts the config digest %j and changes it to the full form', (text) => {
    expect(planLoad({ ...inputs, expectedConfigDigest: text }).expectedConfigDigest).toBe(`sha256:${hex}`);
  });

  test.each([
    ['a short digest', { expectedConfigDigest: 'sha256:abc' }, 'is "sha256:abc"', 'output `config-digest`'],
    ['another algorithm', { expectedConfigDigest: `sha512:${hex}` }, 'expected sha256:<64 hex digits>', ''],
    ['a malformed reference (S0.7)', { image: 'charon:local:' }, 'is not an image reference', ''],
    ['a reference with a digest', { image: `charon@sha256:${hex}` }, 'stored under a digest', ''],
    ['a registry image without a digest', { registryImage: 'charon:1' }, '"charon:1" has no digest', ''],
    ['a name with a line end', { artifactName: 'docker\nimage' }, 'is not a valid name of an artifact', ''],
    [
      'an unknown `from`',
      { from: 'cache' },
      'The input `from` is "cache"; expected artifact, registry, artifact-then-registry, registry-then-artifact.',
      'Correct `from`',
    ],
    ['an unknown engine', { engine: 'ctr' }, 'The input `engine` is "ctr"; expected docker or podman.', ''],
  ])('a plan refuses %s and shows the text in the message', (_, change, message, hint) => {
    expect(() => planLoad({ ...inputs, ...change })).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });

  test.each([
    [
      { into: 'kind', ociLayout: undefined },
      { kind: 'cluster', tool: 'kind', cluster: 'kind' },
    ],
    [
      { into: 'containerd:k8s.io', ociLayout: '/out' },
      { kind: 'containerd', namespace: 'k8s.io' },
    ],
    [{ into: 'none', ociLayout: '/out' }, { kind: 'none' }],
  ])('the inputs %j select the destination of the image (B.4, B.5)', (places, into) => {
    expect(planLoad({ ...inputs, ...places })).toMatchObject({ into, layoutPath: places.ociLayout });
  });

  test('a plan accepts into: none with a tarball, and from: registry with a digest', () => {
    expect(planLoad({ ...inputs, tarball: '/x.tar', into: 'none' }).into.kind).toBe('none');
    expect(planLoad({ ...inputs, from: 'registry', registryImage: `charon@sha256:${hex}` })).toMatchObject({
      from: 'registry',
      registryImage: { repository: 'charon', digest: `sha256:${hex}` },
    });
  });

  test.each([
    [
      { from: 'registry' },
      { into: 'kind', ociLayout: undefined },
      '`into: kind:kind` and `from: registry` are given together',
      'Leave `from` out',
    ],
    [
      { from: 'registry' },
      { into: 'docker', ociLayout: '/out' },
      '`oci-layout` and `from: registry` are given together',
      'Leave `from` out',
    ],
    [
      { engine: 'podman' },
      { into: 'k3d:dev', ociLayout: undefined },
      '`engine: podman` and `into: k3d:dev` are given together',
      'Leave one of them out.',
    ],
    [{}, { into: 'none', ociLayout: undefined }, '`into: none` leaves nothing behind', 'Add one of them'],
    [{}, { into: 'nomad', ociLayout: undefined }, 'The input `into` is "nomad"', ''],
  ])('a plan refuses %j together with %j', (change, places, message, hint) => {
    expect(() => planLoad({ ...inputs, ...change, ...places })).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });
});
