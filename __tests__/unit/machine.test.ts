import { describe, expect, test } from '@jest/globals';
import { serviceCredentials } from '../../shared/artifacts/service/results-service.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { diskSpace, explainDiskFull } from '../../shared/bytes/disk-space.ts';
import { jobContext } from '../../shared/runner/context.ts';

describe('the machine', () => {
  test('the disk space of a missing path is that of its nearest existing parent', async () => {
    const here = await diskSpace('/tmp');
    const deep = await diskSpace('/tmp/not/there/yet');
    expect(deep?.mountPoint).toBe(here?.mountPoint);
    expect(here?.freeBytes).toBeGreaterThan(0);
  });

  test('a full disk is reported as not-enough-space, and any other error is unchanged', () => {
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    expect(explainDiskFull(full, '/x', 'do y')).toMatchObject({ code: 'not-enough-space', hint: 'do y' });
    const other = new Error('other');
    expect(explainDiskFull(other, '/x', 'do y')).toBe(other);
  });

  test('a job has a cache service only with a token and an address', () => {
    expect(jobContext({}).hasCacheService).toBe(false);
    expect(jobContext({ ACTIONS_RUNTIME_TOKEN: 'x' }).hasCacheService).toBe(false);
    expect(jobContext({ ACTIONS_RUNTIME_TOKEN: 'x', ACTIONS_CACHE_URL: 'y' }).hasCacheService).toBe(true);
    expect(jobContext({ GITHUB_RETENTION_DAYS: '5' }).maxRetentionDays).toBe(5);
  });

  test.each([
    ['true', true],
    ['1', true],
    ['false', false],
    ['yes', false],
    [undefined, false],
  ])('ACTIONS_CACHE_SERVICE_V2=%s means the service of BuildKit 0.20 or newer: %j', (value, uses) => {
    const address = { ACTIONS_RUNTIME_TOKEN: 'x', ACTIONS_RESULTS_URL: 'https://y/' };
    expect(jobContext({ ...address, ACTIONS_CACHE_SERVICE_V2: value }).usesCacheV2).toBe(uses);
    expect(jobContext({ ACTIONS_RUNTIME_TOKEN: 'x', ACTIONS_CACHE_SERVICE_V2: value }).usesCacheV2).toBe(false);
  });

  test.each([
    ['', 'https://x', 'ACTIONS_RUNTIME_TOKEN is not set'],
    ['a.b.c', '', 'ACTIONS_RESULTS_URL is not set'],
    ['a.b.c', 'nonsense', 'not a URL'],
    ['a.e30.c', 'https://x', 'no scope'],
  ])('the credentials %j at %j are refused', (token, url, message) => {
    expect(() => serviceCredentials(token, url, 'GitHub')).toThrow(HandoverError);
    expect(() => serviceCredentials(token, url, 'GitHub')).toThrow(message);
  });
});
