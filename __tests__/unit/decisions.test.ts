import { describe, expect, test } from '@jest/globals';
import { chooseTarball } from '../../load-image/plan/plan.ts';
import { serviceCredentials } from '../../shared/artifacts/service-credentials.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { code, gantt, layerTable, markdownTable, words } from '../../shared/base/markdown.ts';
import { backoff, retry } from '../../shared/base/retry.ts';
import { formatBytes, formatDuration, quoteForeign } from '../../shared/base/text.ts';
import { diskSpace, explainDiskFull } from '../../shared/bytes/disk-space.ts';
import { jobContext } from '../../shared/runner/context.ts';

describe('which file is the tarball', () => {
  test.each([
    [['charon.tar'], 'charon.tar'],
    [['any name'], 'any name'],
    [['README.md', 'image.tar.gz'], 'image.tar.gz'],
    [['a.txt', 'b.TGZ', 'image-handover.json'], 'b.TGZ'],
    [['a.txt', 'b.tar.xz'], 'b.tar.xz'],
  ])('%j: %s', (names, chosen) => {
    expect(chooseTarball('x', names)).toBe(chosen);
  });

  test.each([[[]], [['a.tar', 'b.tar']], [['a.txt', 'b.txt']]])('%j is not clear', (names: readonly string[]) => {
    expect(() => chooseTarball('x', names)).toThrow('should hold one tarball');
  });
});

describe('retrying', () => {
  const options = { attempts: 3, delayMs: () => 0, isRetryable: (error: unknown) => !(error instanceof RangeError) };

  test('until it works, and no more often than said', async () => {
    let tries = 0;
    const twice = (): Promise<number> =>
      (tries += 1) < 3 ? Promise.reject(new Error('again')) : Promise.resolve(tries);
    expect(await retry(twice, options)).toBe(3);
    tries = -9;
    await expect(retry(twice, options)).rejects.toThrow('again');
    expect(tries).toBe(-6);
  });

  test('what can’t get better is not tried again', async () => {
    let tries = 0;
    const never = (): Promise<never> => {
      tries += 1;
      return Promise.reject(new RangeError('no'));
    };
    await expect(retry(never, options)).rejects.toThrow('no');
    expect(tries).toBe(1);
  });

  test('a cancel ends the pause', async () => {
    const cancel = new AbortController();
    const work = retry(() => Promise.reject(new Error('again')), {
      ...options,
      delayMs: () => 60_000,
      signal: cancel.signal,
    });
    setTimeout(() => {
      cancel.abort();
    }, 20);
    await expect(work).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('pauses double up to a limit, with a spread of a quarter', () => {
    const pause = backoff(1000, 4000);
    for (const [attempt, ms] of [
      [1, 1000],
      [2, 2000],
      [3, 4000],
      [9, 4000],
    ] as const) {
      expect(pause(attempt)).toBeGreaterThanOrEqual(ms * 0.75);
      expect(pause(attempt)).toBeLessThanOrEqual(ms * 1.25);
    }
  });
});

describe('words for people', () => {
  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [110_000, '110 kB'],
    [999_700, '1.0 MB'],
    [2_500_000_000, '2.5 GB'],
  ])('%d bytes: %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
  test.each([
    [0.2, '0 ms'],
    [40, '40 ms'],
    [400, '0.4 s'],
    [59_900, '59.9 s'],
    [125_000, '2 min 5 s'],
  ])('%d ms: %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  test('text of others can’t break out of a line, a table or code', () => {
    expect(quoteForeign('a\n::error::b\u001b[31m', 20)).toBe('a ::error::b [31m');
    expect(quoteForeign('a\u009b31m\u202eb\u2028c')).toBe('a 31m b c');
    expect(quoteForeign('x'.repeat(50), 10)).toBe(`${'x'.repeat(10)}…`);
    const table = markdownTable(['a'], [[code('b|c\nd')], [words('b|c\nd')]]);
    expect(String(table)).toBe('| a |\n| --- |\n| `b\\|c d` |\n| b&#124;c d |');
    expect(String(code('a`b'))).toBe("`a'b`");
    const chart = gantt([{ name: 'Load: x\n%%{init: a}%%;<b>', startMs: 1, endMs: 1 }]);
    expect(String(chart)).toContain('    Load  x init  a b  (1 ms) :t0, 1, 2\n');
    expect(String(gantt([]))).toBe('');
  });

  test('a chart of what others did before has a section for each, on one clock that begins with the first of them', () => {
    const before = [{ name: 'Job: a', spans: [{ name: 'Build', startMs: -5000, endMs: -1000 }] }];
    expect(String(gantt([{ name: 'Load', startMs: 100, endMs: 2100 }], before, 'This job')).split('\n')).toEqual([
      '```mermaid',
      '%%{init: {"gantt": {"leftPadding": 75}}}%%',
      'gantt',
      '    dateFormat x',
      '    axisFormat %S.%L s',
      '    section Job  a',
      '    Build (4.0 s) :t0x0, 0, 4000',
      '    section This job',
      '    Load (2.0 s) :t1x0, 5100, 7100',
      '```',
    ]);
  });
});

describe('a job summary', () => {
  test.each([
    ['docker-image-worker', 170],
    ['x'.repeat(200), 260],
  ])('has room for the section %s', (name, padding) => {
    const before = [{ name: `Job of ${name}`, spans: [{ name: 'Build', startMs: -5000, endMs: -1000 }] }];
    const chart = String(gantt([{ name: 'Load', startMs: 100, endMs: 2100 }], before, 'This job'));
    expect(chart).toContain(`"leftPadding": ${String(padding)}}`);
    for (const [, section = ''] of chart.matchAll(/section (.*)/g)) expect(section.length).toBeLessThan(42);
  });

  test.each([
    [1, '1 layer'],
    [2, '2 layers'],
  ])('counts %d as %s', (count, words) => {
    const layer = {
      digest: `sha256:${'0'.repeat(64)}`,
      size: 1,
      mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    };
    expect(String(layerTable(Array.from({ length: count }, () => layer)))).toContain(`<summary>${words}</summary>`);
  });
});

describe('the machine', () => {
  test('a path that isn’t there yet counts as its nearest parent', async () => {
    const here = await diskSpace('/tmp');
    const deep = await diskSpace('/tmp/not/there/yet');
    expect(deep?.mountPoint).toBe(here?.mountPoint);
    expect(here?.freeBytes).toBeGreaterThan(0);
  });

  test('a full disk is told as such, anything else stays what it is', () => {
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    expect(explainDiskFull(full, '/x', 'do y')).toMatchObject({ code: 'not-enough-space', hint: 'do y' });
    const other = new Error('other');
    expect(explainDiskFull(other, '/x', 'do y')).toBe(other);
  });

  test('the cache service is there only with a token and an address', () => {
    expect(jobContext({}).hasCacheService).toBe(false);
    expect(jobContext({ ACTIONS_RUNTIME_TOKEN: 'x' }).hasCacheService).toBe(false);
    expect(jobContext({ ACTIONS_RUNTIME_TOKEN: 'x', ACTIONS_CACHE_URL: 'y' }).hasCacheService).toBe(true);
    expect(jobContext({ GITHUB_RETENTION_DAYS: '5' }).maxRetentionDays).toBe(5);
  });

  test.each([
    ['', 'https://x', 'ACTIONS_RUNTIME_TOKEN is not set'],
    ['a.b.c', '', 'ACTIONS_RESULTS_URL is not set'],
    ['a.b.c', 'nonsense', 'not a URL'],
    ['a.e30.c', 'https://x', 'no scope'],
  ])('credentials %j at %j are refused', (token, url, message) => {
    expect(() => serviceCredentials(token, url)).toThrow(HandoverError);
    expect(() => serviceCredentials(token, url)).toThrow(message);
  });
});
