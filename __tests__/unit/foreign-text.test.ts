import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { prose } from '../../shared/base/markdown.ts';
import { harmlessLines, quoteError } from '../../shared/base/text.ts';
import { runnerCommands } from '../fixtures/runner-commands.ts';

describe('foreign text in the log', () => {
  test.each([
    '::add-mask::true',
    '  ::stop-commands::x',
    '\u0085::error::x',
    'step 1\r::set-env name=A::b',
    '#5 0.3 ##[add-mask]true',
    '##[group]##[add-mask]true',
    '###[warning]x',
    'a\r\n::warning::b\n::debug::c',
  ])('the text %j is changed so that it is not a workflow command (S0.6)', (text) => {
    expect(runnerCommands(text)).not.toEqual([]);
    expect(runnerCommands(harmlessLines(text))).toEqual([]);
  });

  test('a text without workflow commands is unchanged (S0.6)', () => {
    for (const text of ['', 'a::b', '#1 [2/3] RUN a', 'x\ny', '# [x]']) expect(harmlessLines(text)).toBe(text);
    expect(harmlessLines('a\r\nb\rc')).toBe('a\nb\nc');
    expect(harmlessLines(' ::a::\n##[b]')).toBe('>  ::a::\n## [b]');
  });

  test('property: any combination of pieces becomes text without a workflow command (S0.6)', () => {
    const pieces = ['::', ':', '#', '##[', '[', ']', 'add-mask', ' ', '\t', '\r', '\n', '\u0085', '\u2028', '> ', 'x'];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 12 }), (parts) => {
        expect(runnerCommands(harmlessLines(parts.join('')))).toEqual([]);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('foreign text in the job summary', () => {
  test.each([
    ['see [this](https://example.com)', 'see &#91;this&#93;(`https://example.com`)'],
    ['<img src=x>', '&#60;img src=x&#62;'],
    ['![x](y)', '!&#91;x&#93;(y)'],
    ['Set `tarball` to <path>', 'Set `tarball` to &#60;path&#62;'],
    ['ask @someone at a@b.c, see #1', 'ask `@someone` at `a@b.c`, see `#1`'],
    ['`a``b`<img>`c`', "`a'b`&#60;img&#62;`c`"],
    ['a ` b <img>', 'a &#96; b &#60;img&#62;'],
  ])('the message %j is shown as text in the job summary (S0.6)', (message, markdown) => {
    expect(String(prose(message))).toBe(markdown);
  });
});

test('a long error is shortened in the middle, because its end contains the cause', () => {
  const said = `Error unpacking image a:1: ${'x'.repeat(2000)}: no space left on device`;
  expect(quoteError(said)).toMatch(/^Error unpacking image a:1: x+ … x+: no space left on device$/);
  expect(quoteError(said).length).toBeLessThan(510);
  expect(quoteError('a\nb')).toBe('a b');
  expect(quoteError('ab'.repeat(250))).toBe('ab'.repeat(250));
  expect(quoteError(`${'a'.repeat(250)}x${'b'.repeat(250)}`)).toBe(`${'a'.repeat(250)} … ${'b'.repeat(250)}`);
});
