import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import type { PushInputs } from '../../export-image/inputs.ts';
import { noAttestations, planAttestations, planPush } from '../../export-image/plan/push-plan.ts';
import { chooseTags } from '../../shared/image/tags.ts';
import { exceeded, registryLimit } from '../../shared/docker/registry-commands.ts';
import { RegistryFailure } from '../../shared/base/errors.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatReference, parsePinnedReference, type TaggedReference } from '../../shared/image/reference.ts';
import { exportFacts, exportInputs } from '../fixtures/export-inputs.ts';

const digest = `sha256:${'d'.repeat(64)}`;
const amd64 = parsePlatform('linux/amd64');

describe('a registry failure', () => {
  test.each([
    ['unexpected status from HEAD request to https://ghcr.io/v2/a/b/blobs/x: 403 Forbidden', true],
    ['Get "http://127.0.0.1:401/v2/": dial tcp 127.0.0.1:401: connect: connection refused', false],
    ['denied: permission_denied: write_package', true],
    ['no basic auth credentials', true],
    ['push access denied, repository does not exist or may require authorization', true],
    ['manifest unknown: manifest unknown', true],
    ['failed to resolve reference "ghcr.io/denied/app:1": not found', true],
    ['no matching manifest for linux/arm64/v8 in the manifest list entries', true],
    ['failed to push ghcr.io/denied/app:1: i/o timeout', false],
    ['Head "https://ghcr.io/v2/denied/app/blobs/x": EOF', false],
    ['unexpected status: 503 Service Unavailable', false],
    ['toomanyrequests: You have reached your pull rate limit', false],
    ['it took longer than 25 min 0 s', false],
  ])('%j is not worth another attempt: %s (S1.5)', (said, permanent) => {
    const failure = new RegistryFailure('The push', ['ghcr.io/denied/app:1'], said);
    expect(failure.permanent).toBe(permanent);
    expect(failure.code).toBe('registry-failed');
    expect(failure.message).toContain('ghcr.io/denied/app:1');
  });
});

describe('the time limit of an attempt at a registry (S1.5)', () => {
  test('a command that takes longer than the limit is ended, counted from the start of its push', () => {
    jest.useFakeTimers();
    try {
      const limit = registryLimit();
      jest.advanceTimersByTime(50 * 60_000);
      limit.start();
      jest.advanceTimersByTime(25 * 60_000 - 1);
      limit.start();
      expect(exceeded(limit)).toBeUndefined();
      expect(limit.signal.aborted).toBe(false);
      jest.advanceTimersByTime(1);
      expect(exceeded(limit)).toBe('it took longer than 25 min 0 s');
      expect(limit.signal.aborted).toBe(true);
    } finally {
      jest.useRealTimers();
    }
  });
});

const tagList = (tags: string): readonly TaggedReference[] =>
  chooseTags({ tags, repository: undefined }, { event: { kind: 'none', reason: '' }, metadata: {} }, []);

describe('what push uploads', () => {
  const tags = tagList('a/b:1');
  const inputs: PushInputs = {
    enabled: true,
    platforms: [],
    onFailure: 'error',
    provenance: undefined,
    sbom: undefined,
  };

  test('unless a push is requested, nothing is pushed and `tags` is not read', () => {
    expect(planPush({ ...inputs, enabled: false }, [], 'tarball', amd64, noAttestations)).toBeUndefined();
  });

  test.each([
    [[], []],
    [['linux/amd64'], []],
    [
      ['linux/amd64', 'linux/arm64'],
      ['amd64', 'arm64'],
    ],
    [['linux/arm64'], ['arm64']],
  ])('push-platforms %j (S1.11)', (platforms, listed) => {
    const plan = planPush({ ...inputs, platforms }, tags, 'build', amd64, noAttestations);
    expect(plan?.listedPlatforms.map(({ architecture }) => architecture)).toEqual(listed);
  });

  test.each([
    ['tarball', {}, tags, 'A `source-tarball` can be handed over, but not pushed.'],
    ['layout', {}, tags, 'A `source-layout` can be handed over, but not pushed.'],
    [
      'engine',
      { platforms: ['linux/amd64', 'linux/arm64'] },
      tags,
      '`push-platforms` is linux/amd64, linux/arm64, but',
    ],
    ['build', {}, [], 'the input `tags` is empty'],
    ['build', { onFailure: 'ignore' }, tags, 'The input `push-failure` is "ignore"; expected error or warn.'],
    ['build', { enabled: false, onFailure: '' }, tags, 'The input `push-failure` is ""'],
    ['build', { enabled: false, platforms: ['linux'] }, tags, 'linux'],
  ] as const)('a push of a %s with %j is refused, with the value seen (S1.5)', (source, given, references, message) => {
    const plan = (): unknown => planPush({ ...inputs, ...given }, references, source, amd64, noAttestations);
    expect(plan).toThrow(expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(message) }));
  });

  test('the image of an engine is pushed for its own platform, and a failure may only warn', () => {
    const engine = { ...inputs, platforms: ['linux/amd64'], onFailure: 'warn' };
    expect(planPush(engine, tags, 'engine', amd64, noAttestations)).toEqual({
      references: tags,
      listedPlatforms: [],
      onFailure: 'warn',
    });
  });

  test('each line is one reference in lower case, a missing tag is latest, and JSON is also read (S1.6, S2.4)', () => {
    expect(tagList('\nghcr.io/Org/App:V1\r\n\r\n b/c \n').map(formatReference)).toEqual([
      'ghcr.io/org/app:V1',
      'b/c:latest',
    ]);
    expect(tagList('ghcr.io/Org/App:V1')[0]?.loweredFrom).toBe('ghcr.io/Org/App:V1');
    expect(tagList('{"tags":["a:1","b:2"]}').map(formatReference)).toEqual(['a:1', 'b:2']);
  });

  test('there are as many references as different lines that aren’t empty (S1.6)', () => {
    const line = fc.constantFrom('', '  ', 'a/b:1', 'ghcr.io/c/d', 'localhost:5000/e:f');
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const full = new Set(lines.filter((text) => text.trim() !== ''));
        fc.pre(full.size > 0);
        expect(tagList(lines.join('\n'))).toHaveLength(full.size);
      }),
    );
  });
});

test('a pulled reference is pinned by its digest, and a tag next to the digest is dropped', () => {
  expect(formatReference(parsePinnedReference(`ghcr.io/a/b:1@${digest}`))).toBe(`ghcr.io/a/b@${digest}`);
  expect(() => parsePinnedReference('ghcr.io/a/b:1')).toThrow('has no digest');
});

describe('the attestations of a push are those of docker/build-push-action', () => {
  const builder = 'builder-id=https://github.com/Wikid82/Charon/actions/runs/7/attempts/2';
  const attestationsOf = (inputs: Partial<PushInputs>, facts: Partial<typeof exportFacts> = {}) =>
    planAttestations({ ...exportInputs.push, ...inputs }, { ...exportFacts, ...facts });
  const ofRepository = (isPrivate: boolean) => ({
    event: { ...exportFacts.event, payload: { repository: { private: isPrivate } } },
  });

  test.each([
    ['of a public repository', {}, ofRepository(false), `mode=max,${builder}`],
    ['of a private repository', {}, ofRepository(true), `mode=min,inline-only=true,${builder}`],
    ['with BUILDX_NO_DEFAULT_ATTESTATIONS', {}, { noDefaultAttestations: true }, 'false'],
    ['true', { provenance: 'true' }, { noDefaultAttestations: true }, builder],
    ['True outside of a workflow', { provenance: 'True' }, { runUrl: '' }, 'true'],
    ['false', { provenance: 'false' }, {}, 'false'],
    ['with a mode', { provenance: 'mode=max' }, {}, `mode=max,${builder}`],
    [
      'with its own builder',
      { provenance: 'mode=min,builder-id=https://ci/1' },
      {},
      'mode=min,builder-id=https://ci/1',
    ],
  ] as const)('provenance %s', (_, inputs, facts, expected) => {
    expect(attestationsOf(inputs, facts).provenance).toBe(expected);
  });

  test.each([
    [undefined, 'false', false],
    ['False', 'false', false],
    ['true', 'true', true],
    ['generator=ghcr.io/org/scanner', 'generator=ghcr.io/org/scanner', true],
  ])('sbom %s is %s', (sbom, expected, areWanted) => {
    expect(attestationsOf({ sbom })).toMatchObject({ sbom: expected, areWanted });
  });

  test('`source-image` has none, and requesting them is an error', () => {
    const tags = tagList('a/b:1');
    const push = (attestations: typeof noAttestations) =>
      planPush({ ...exportInputs.push, enabled: true }, tags, 'engine', amd64, attestations);
    expect(push(attestationsOf({}))).toMatchObject({ references: tags });
    expect(() => push(attestationsOf({ sbom: 'true' }))).toThrow('only a build has attestations');
  });
});
