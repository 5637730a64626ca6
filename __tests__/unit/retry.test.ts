import { describe, expect, test } from '@jest/globals';
import { HttpError } from '../../shared/http/answer.ts';
import { again, backoff, isTransient, retry } from '../../shared/http/retry.ts';

const systemError = (code: string): Error => Object.assign(new Error(code), { code });

describe('another attempt', () => {
  test.each([
    ...['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETUNREACH', 'ENETDOWN', 'EHOSTUNREACH'],
    ...['EAI_AGAIN', 'ENOTFOUND', 'UND_ERR_SOCKET', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
    ...['UND_ERR_BODY_TIMEOUT', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'HPE_INVALID_EOF_STATE', 'CUT_SHORT'],
  ])('may help after %s', (code) => {
    expect(isTransient(systemError(code))).toBe(true);
  });

  test.each(['ENOSPC', 'EACCES', 'CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT', ''])(
    'can’t help after %j',
    (code) => {
      expect(isTransient(systemError(code))).toBe(false);
    },
  );

  test.each([
    [408, true],
    [429, true],
    [500, true],
    [502, true],
    [503, true],
    [504, true],
    [400, false],
    [403, false],
    [404, false],
    [409, false],
    [501, false],
  ])('after the status %i: %j', (status, helps) => {
    const error = Object.assign(new HttpError(status, '', `HTTP ${String(status)}`), { code: 'ECONNRESET' });
    expect(isTransient(error)).toBe(helps);
  });
});

describe('a retry', () => {
  const options = { attempts: 3, delayMs: () => 0, isRetryable: (error: unknown) => !(error instanceof RangeError) };

  test('repeats an action until it succeeds, up to the given number of attempts', async () => {
    let tries = 0;
    const twice = (): Promise<number> =>
      (tries += 1) < 3 ? Promise.reject(new Error('again')) : Promise.resolve(tries);
    expect(await retry(twice, options)).toBe(3);
    tries = -9;
    await expect(retry(twice, options)).rejects.toThrow('again');
    expect(tries).toBe(-6);
  });

  test('doesn’t repeat a permanent failure', async () => {
    let tries = 0;
    const never = (): Promise<never> => {
      tries += 1;
      return Promise.reject(new RangeError('no'));
    };
    await expect(retry(never, options)).rejects.toThrow('no');
    expect(tries).toBe(1);
  });

  test('ends its pause when the step is cancelled', async () => {
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

  test.each([
    [3000, 'in 3.0 s'],
    [3_600_000, 'in 1 min 0 s'],
  ])('after a requested pause of %i ms, the pause is at most one minute', async (retryAfterMs, pause) => {
    const cancel = new AbortController();
    const lines: string[] = [];
    const onRetry = (line: string): void => {
      lines.push(line);
      cancel.abort();
    };
    const busy = (): Promise<never> => Promise.reject(new HttpError(503, '', 'HTTP 503', retryAfterMs));
    await expect(again('call', busy, { what: 'It', onRetry, signal: cancel.signal })).rejects.toThrow();
    expect(lines).toEqual([`It: HTTP 503; attempt 1 of 5, the next ${pause}.`]);
  });

  test('is made at once if that can help, and only then without a pause', async () => {
    const lines: string[] = [];
    const errors = [new Error('moved'), systemError('EPIPE'), new Error('for ever')];
    const request = (): Promise<never> => Promise.reject(errors[lines.length] ?? new Error('unreachable'));
    const options = {
      what: 'It',
      onRetry: (line: string) => void lines.push(line),
      isAtOnce: (error: unknown) => error instanceof Error && error.message === 'moved',
      signal: new AbortController().signal,
    };
    await expect(again('cleanup', request, options)).rejects.toThrow('for ever');
    expect(lines).toEqual([
      'It: moved; attempt 1 of 3, the next at once.',
      expect.stringMatching(/^It: EPIPE; attempt 2 of 3, the next in [\d.]+ m?s\.$/),
    ]);
  });

  test('has pauses that double up to a limit, with a random spread of a quarter', () => {
    const pause = backoff(1000, 4000);
    const spread = Array.from({ length: 300 }, () => pause(1));
    expect(Math.min(...spread)).toBeLessThan(800);
    expect(Math.max(...spread)).toBeGreaterThan(1200);
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
