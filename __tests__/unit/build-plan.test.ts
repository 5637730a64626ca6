import { describe, expect, test } from '@jest/globals';
import { buildInputs as build, exportFacts as runner, exportInputs } from '../fixtures/export-inputs.ts';
import type { ExportInputs } from '../../export-image/inputs.ts';
import { buildArguments } from '../../export-image/plan/build-arguments.ts';
import { withoutGhaCache } from '../../export-image/plan/cache.ts';
import { planExport } from '../../export-image/plan/plan.ts';
import { parsePlatform } from '../../shared/image/platform.ts';

const inputs: ExportInputs = { ...exportInputs, jobKey: 'build-0' };

describe('the plan of an export', () => {
  test('a build has the reference charon:local by default (S0.1)', () => {
    expect(planExport(inputs, runner).reference).toMatchObject({ repository: 'charon', tag: 'local' });
    expect(planExport({ ...inputs, image: 'app:1' }, runner).reference).toMatchObject({ repository: 'app', tag: '1' });
  });

  test('a plan uses type=gha on a runner, omits it with a notice elsewhere, and keeps other caches', () => {
    const cacheFrom = ['type=gha,scope=a', 'type=local,src=x'];
    const caches = (hasCacheService: boolean): unknown =>
      planExport({ ...inputs, build: { ...build, cacheFrom } }, { ...runner, hasCacheService });
    expect(caches(true)).toMatchObject({ source: { build: { cacheFrom } }, notices: [] });
    expect(caches(false)).toMatchObject({
      source: { build: { cacheFrom: ['type=local,src=x'] } },
      notices: [expect.stringContaining('type=gha is omitted')],
    });
  });

  test('a plan keeps the reference of source-image unless `image` is set; a source with only a digest requires `image` (S2.1)', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    expect(planExport({ ...inputs, sourceImage: 'a/b:1\na/b:2' }, runner)).toMatchObject({
      source: { kind: 'engine', image: 'a/b:1' },
      reference: { repository: 'a/b', tag: '1' },
    });
    expect(planExport({ ...inputs, sourceImage: `a/b@${digest}`, image: 'c:1' }, runner).reference).toMatchObject({
      tag: '1',
    });
    expect(() => planExport({ ...inputs, sourceImage: `a/b@${digest}` }, runner)).toThrow('contains no tag');
  });

  test('a plan limits the retention to the maximum of the repository, with a notice', () => {
    const plan = planExport({ ...inputs, retentionDays: 30 }, { ...runner, maxRetentionDays: 5 });
    expect(plan.retentionDays).toBe(5);
    expect(plan.notices[0]).toContain('5 days at most, not 30');
  });

  test.each([
    ['type=gha', true],
    ['gha', true],
    ['scope=x,type=gha', true],
    ['type=registry,ref=ghcr.io/gha', false],
    ['type=local,src=gha', false],
  ])('the cache %s is recognized as the Actions cache: %s', (cache, is) => {
    expect(withoutGhaCache([cache]).caches).toEqual(is ? [] : [cache]);
  });

  test('the arguments of a build end with the context after --, so that it is never mistaken for a flag', () => {
    const args = buildArguments(
      { ...build, context: '-x' },
      [parsePlatform('linux/amd64')],
      [{ kind: 'oci-layout', directory: '/t/a,b', compression: { format: 'gzip', level: undefined } }],
      [],
    );
    expect(args.slice(-2)).toEqual(['--', '-x']);
    expect(args).toContain('type=oci,tar=false,compression=gzip,"dest=/t/a,b"');
  });
});
