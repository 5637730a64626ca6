import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { imagesInputs } from '../fixtures/load-inputs.ts';
import { formatMapping, type MappedImage } from '../../load-image/digests.ts';
import { selectArtifacts } from '../../shared/handed-over/find.ts';
import type { ImagesInputs } from '../../load-image/inputs.ts';
import { type ImagesPlan, planImages } from '../../load-image/plan/plan.ts';
import { fittingLoads } from '../../load-image/into/into-holders.ts';
import { isPattern, matchesPattern } from '../../shared/image/artifact-name.ts';

const plan = (change: Partial<ImagesInputs> = {}): ImagesPlan =>
  planImages({ ...imagesInputs, ...change }, { ownRepository: 'org/charon', limitMinutes: 30 });

describe('matchesPattern', () => {
  test.each([
    ['docker-image-*', 'docker-image-runtime', true],
    ['docker-image-*', 'docker-image-', true],
    ['docker-image-*', 'docker-image', false],
    ['*-ui', 'docker-image-operate-ui', true],
    ['*-ui', 'docker-image-operate-ui-2', false],
    ['docker-*-u?', 'docker-image-operate-ui', true],
    ['a*b*c', 'aXbXbXc', true],
    ['a*b*c', 'aXbXbX', false],
    ['?', '', false],
    ['*', '', true],
    ['**', 'x', true],
    ['a.c', 'abc', false],
    ['[ab]', 'a', false],
    ['(a+)+$*', 'aaaa', false],
    ['Image-*', 'image-a', false],
  ])('the pattern %j matches %j: %j', (pattern, name, matches) => {
    expect(matchesPattern(pattern, name)).toBe(matches);
  });

  const name = fc.string().filter((text) => !isPattern(text));

  test('property: a name matches only itself', () => {
    fc.assert(
      fc.property(name, name, (one, other) => {
        expect(matchesPattern(one, one)).toBe(true);
        expect(matchesPattern(one, other)).toBe(one === other);
      }),
    );
  });

  test('property: a pattern with * or ? for parts of a name matches the name', () => {
    fc.assert(
      fc.property(name, name, name, (first, middle, last) => {
        expect(matchesPattern(`${first}*${last}`, `${first}${middle}${last}`)).toBe(true);
        expect(matchesPattern(`${first}${'?'.repeat(middle.length)}${last}`, `${first}${middle}${last}`)).toBe(true);
      }),
    );
  });

  test('property: the result is the same as that of a matcher that tries every possibility', () => {
    const tries = (pattern: string, text: string): boolean => {
      const [first, ...rest] = pattern;
      if (first === undefined) return text === '';
      if (first === '*') return tries(rest.join(''), text) || (text !== '' && tries(pattern, text.slice(1)));
      return text !== '' && (first === '?' || first === text[0]) && tries(rest.join(''), text.slice(1));
    };
    const short = fc.array(fc.constantFrom('a', 'b', '*', '?'), { maxLength: 7 }).map((parts) => parts.join(''));
    const text = fc.array(fc.constantFrom('a', 'b'), { maxLength: 7 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(short, text, (pattern, given) => {
        expect(matchesPattern(pattern, given)).toBe(tries(pattern, given));
      }),
      { numRuns: 1000 },
    );
  });
});

describe('planImages', () => {
  test('one name has the plan of one image', () => {
    expect(plan()).toMatchObject({
      kind: 'one',
      wanted: ['docker-image'],
      each: { checkPlatform: true },
    });
    expect(plan({ artifactNames: ['a', 'a'] })).toMatchObject({ kind: 'one' });
  });

  test.each([
    [['a', 'b'], true, 'several'],
    [['a*'], true, 'several'],
    [['a'], false, 'mapping'],
    [['a', 'b?'], false, 'mapping'],
  ] as const)('the names %j with load: %j have the plan %s', (artifactNames, load, kind) => {
    expect(plan({ artifactNames, load })).toMatchObject({
      kind,
      wanted: artifactNames,
      remove: false,
    });
  });

  test('ids select artifacts instead of names; one id selects one image', () => {
    const expectedConfigDigest = `sha256:${'a'.repeat(64)}`;
    const one = { artifactIds: ['7', '7'], image: 'x', expectedConfigDigest };
    expect(plan(one)).toMatchObject({ kind: 'one', wanted: ['id:7'] });
    const both = { artifactIds: ['7', '8'] };
    expect(plan(both)).toMatchObject({ kind: 'several', wanted: ['id:7', 'id:8'] });
    expect(plan({ ...both, load: false })).toMatchObject({ kind: 'mapping', wanted: ['id:7', 'id:8'] });
  });

  test('`remove` removes the loaded artifacts, and without a load the step does nothing else', () => {
    expect(plan({ remove: true })).toMatchObject({ kind: 'one', remove: true });
    expect(plan({ load: false, remove: true })).toMatchObject({ kind: 'removal' });
  });

  test.each([
    ['a slash in one of several', { artifactNames: ['a', 'b/c'] }, '"b/c"'],
    ['a slash in a pattern', { artifactNames: ['b/c*'] }, '"b/c"'],
    [
      'an id that isn’t a number',
      { artifactIds: ['7', 'docker-image'] },
      '`artifact-ids` has "docker-image"; expected',
    ],
    ['an id of zero', { artifactIds: ['0'] }, '`artifact-ids` has "0"; expected'],
    [
      'a tarball for several ids',
      { artifactIds: ['7', '8'], tarball: '/x' },
      '`artifact-ids` (id:7, id:8) selects several images, but `tarball`',
    ],
    ['no name', { artifactNames: [] }, 'The input `artifact-name` is empty.'],
    ['an invalid name, with load: false', { artifactNames: [''], load: false }, 'it is empty'],
    ['a pattern for the digests', { digestsArtifact: 'digests-*' }, '"*"'],
    ['a slash in one, with load: false', { artifactNames: ['b/c'], load: false }, '"b/c"'],
    [
      'a tarball with load: false',
      { load: false, tarball: '/tmp/x' },
      'With `load: false` no image is loaded, but `tarball` can',
    ],
    ['a reference with load: false', { load: false, image: 'x' }, 'but `image` can apply to one loaded image only.'],
    ['a layout with load: false', { load: false, ociLayout: '/out' }, 'but `oci-layout` can'],
    ['a place to load from with load: false', { load: false, from: 'registry' }, 'but `from` can'],
    [
      'digests of artifacts that are only removed',
      { load: false, remove: true, digestsArtifact: 'digests' },
      'no record is read, so there are no digests',
    ],
    ['a place to load into with load: false', { load: false, into: 'kind' }, 'but `into` can'],
    [
      'a reference for several images',
      { artifactNames: ['a', 'b'], image: 'x' },
      '`artifact-name` (a, b) selects several images, but `image`',
    ],
    [
      'a tarball for several images',
      { artifactNames: ['a*'], tarball: '/x' },
      '`artifact-name` (a*) selects several images, but `tarball`',
    ],
    ['a layout for several images', { artifactNames: ['a*'], ociLayout: '/out' }, 'but `oci-layout` can'],
    [
      'a digest for several images',
      { artifactNames: ['a*'], expectedConfigDigest: 'x' },
      'but `expected-config-digest` can',
    ],
    [
      'another place for several images',
      { artifactNames: ['a*'], from: 'registry', image: 'x' },
      'but `image` and `from` can',
    ],
  ])('the plan refuses %s', (_, change, message) => {
    expect(() => plan(change)).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(message) }),
    );
  });

  test('several images are accepted for a cluster, and an expected digest is accepted for a mapping', () => {
    const hint = 'Leave it out, or load that image in a separate step.';
    expect(() => plan({ load: false, image: 'x' })).toThrow(expect.objectContaining({ hint }));
    expect(plan({ artifactNames: ['a', 'b'], into: 'kind' })).toMatchObject({
      kind: 'several',
      each: { into: { kind: 'cluster', tool: 'kind', cluster: 'kind' } },
      digests: undefined,
    });
    const expectedConfigDigest = `sha256:${'a'.repeat(64)}`;
    expect(plan({ load: false, expectedConfigDigest })).toMatchObject({
      kind: 'mapping',
      each: { expectedConfigDigest },
    });
  });
});

test('selectArtifacts returns the newest artifact of each name, sorted, and the patterns that match nothing', () => {
  const artifacts = [
    { id: 4, name: 'b', size: 1 },
    { id: 3, name: 'a', size: 1 },
    { id: 2, name: 'b', size: 1 },
    { id: 1, name: 'c', size: 1 },
  ];
  const { selected, missing } = selectArtifacts(['b', '?', 'd*', 'e'], artifacts);
  expect(selected.map(({ id }) => id)).toEqual([3, 4, 1]);
  expect(missing).toEqual(['d*', 'e']);
  expect(selectArtifacts(['b'], artifacts).selected.map(({ id }) => id)).toEqual([4]);
  const byId = selectArtifacts(['id:2', 'id:1', 'id:5'], artifacts);
  expect(byId.selected.map(({ id }) => id)).toEqual([2, 1]);
  expect(byId.missing).toEqual(['id:5']);
});

test.each([
  [[1, 1, 1, 1, 1], undefined, 3],
  [[1, 1], undefined, 2],
  [[5, 5, 5], 15, 3],
  [[5, 5, 5], 14, 2],
  [[1, 1, 9, 8], 17, 2],
  [[1, 1, 9, 8], 16, 1],
  [[100], 1, 1],
  [[], 1, 1],
])('loads that require %j bytes each, with %j bytes free, run at the same time: %j', (needs, free, count) => {
  expect(fittingLoads(needs, free)).toBe(count);
});

test('property: the mapping is JSON with every image, for any names', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string().filter((text) => text !== '__proto__')), (names) => {
      const images = names.map((name, position): MappedImage => ({
        name,
        artifact: undefined,
        reference: `app:${String(position)}`,
        configDigest: '',
        manifestDigest: '',
        pushedReference: '',
        platform: 'linux/amd64',
        size: position,
      }));
      const mapping: unknown = JSON.parse(formatMapping(images));
      expect(mapping).toEqual(
        Object.fromEntries(images.map(({ name, size }) => [name, expect.objectContaining({ size })])),
      );
    }),
  );
});
