import { describe, expect, test } from '@jest/globals';
import { code, joined, layerTable, link, markdownTable, page, prose, safe, words } from '../../shared/base/markdown.ts';
import { formatBytes, formatDuration, quoteForeign } from '../../shared/base/text.ts';

describe('formatting of texts', () => {
  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [110_000, '110 kB'],
    [99_940, '99.9 kB'],
    [99_950, '100 kB'],
    [999_499, '999 kB'],
    [999_500, '1.0 MB'],
    [2_500_000_000, '2.5 GB'],
    [5e15, '5000 TB'],
  ])('%d bytes: %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
  test.each([
    [0.2, '0 ms'],
    [40, '40 ms'],
    [99.9, '100 ms'],
    [100, '0.1 s'],
    [400, '0.4 s'],
    [59_900, '59.9 s'],
    [60_000, '1 min 0 s'],
    [125_400, '2 min 5 s'],
    [3_600_000, '60 min 0 s'],
  ])('%d ms: %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  test('text from third parties can’t break out of a line, a table or code', () => {
    expect(quoteForeign('a\n::error::b\u001b[31m', 20)).toBe('a ::error::b [31m');
    expect(quoteForeign('a\u009b31m\u202eb\u2028c')).toBe('a 31m b c');
    expect(quoteForeign('\u2029 a\r\n')).toBe('a');
    expect(quoteForeign('x'.repeat(50), 10)).toBe(`${'x'.repeat(10)}…`);
    expect(quoteForeign('x'.repeat(10), 10)).toBe('x'.repeat(10));
    expect(quoteForeign('x'.repeat(301))).toBe(`${'x'.repeat(300)}…`);
    const table = markdownTable(['a'], [[code('b|c\nd')], [words('b|c\nd')]]);
    expect(String(table)).toBe('| a |\n| --- |\n| `b\\|c d` |\n| b&#124;c d |');
    expect(String(code('a`b'))).toBe("`a'b`");
    const chart = page([], [{ name: 'Load: x\n%%{init: a}%%;<b>', startMs: 1, endMs: 1 }]);
    expect(String(chart)).toContain('    Load  x init  a b  (1 ms) :t0, 1, 2\n');
    expect(String(page([], [])).trim()).toBe('');
  });
});

describe('Markdown of any text', () => {
  test.each([
    ['- a', '&#45; a'],
    ['+ a', '&#43; a'],
    ['= a', '&#61; a'],
    [' - a', ' &#45; a'],
    ['1. a', '1&#46; a'],
    [' 12) a', ' 12&#41; a'],
    ['1.', '1&#46;'],
    ['1.5', '1.5'],
    ['a - b', 'a - b'],
    ['a 1. b', 'a 1. b'],
    ['a \r\n\t\u200b b', 'a b'],
    ['\\ ` * _ [ ] < > # ~ | &', '&#92; &#96; &#42; &#95; &#91; &#93; &#60; &#62; &#35; &#126; &#124; &#38;'],
    ['@me', '`@me`'],
    ['$x$', '`$x$`'],
    ['(#1)', '(`#1`)'],
    ['gh-1', '`gh-1`'],
    ['GHSA-x', '`GHSA-x`'],
    ['CVE-1', '`CVE-1`'],
    ['xGH-1', 'xGH-1'],
    ['see ftp://x, too', 'see `ftp://x`, too'],
    ['www.x', '`www.x`'],
    ['mailto:a', '`mailto:a`'],
    ['xmpp:a', '`xmpp:a`'],
    ['tel:1', '`tel:1`'],
    ['hotel:1', 'hotel:1'],
    [':+1:', '`:+1:`'],
    ['a:b', 'a:b'],
    ['abcdef1', '`abcdef1`'],
    ['abcdef', 'abcdef'],
    ['a'.repeat(41), 'a'.repeat(41)],
  ])('%j is %s as text (S0.6)', (text, markdown) => {
    expect(String(words(text))).toBe(markdown);
  });

  test.each([
    ['', '` `'],
    ['a\n b', '`a b`'],
    ['`a`', "`'a'`"],
  ])('%j is %s in code style (S0.6)', (text, markdown) => {
    expect(String(code(text))).toBe(markdown);
  });

  test.each([
    ['https://x/a?b=1&c=(2)', '[t](https://x/a?b=1&amp;c=%282%29)'],
    ['http://x/', '[t](http://x/)'],
    ['http://x/?a=|`\\', '[t](http://x/?a=%7c%60%5c)'],
    ['javascript:alert(1)', 't'],
    ['x', 't'],
  ])('a link to %j is %s (S0.6)', (address, markdown) => {
    expect(String(link('t', address))).toBe(markdown);
  });

  test('parts are joined with the given separator, and code ends at its backtick', () => {
    expect(String(joined([words('a'), words('b')], ', '))).toBe('a, b');
    expect(String(safe`**${words('a')}** and ${code('b')}`)).toBe('**a** and `b`');
    expect(String(prose('Set `a` or `b` (#1)'))).toBe('Set `a` or `b` (`#1`)');
    expect(String(prose('a ```b``` c'))).toBe("a 'b' c");
  });

  test('a bar in code doesn’t end a table cell, even after a backslash (S0.6)', () => {
    const table = markdownTable(['#', 'b'], [[code('a\\|b'), code('||')]]);
    expect(String(table)).toBe('| &#35; | b |\n| --- | --- |\n| `a\\\\\\|b` | `\\|\\|` |');
  });

  test('layers are shown in a folded table', () => {
    const layer = { digest: `sha256:${'a'.repeat(64)}`, size: 2000, mediaType: 'application/vnd.oci.x.tar+gzip' };
    expect(String(layerTable([layer]))).toBe(
      '<details><summary>1 layer</summary>\n\n| &#35; | Digest | Size | Format |\n| --- | --- | --- | --- |\n' +
        `| 1 | \`sha256:${'a'.repeat(12)}\` | 2.0 kB | tar+gzip |\n\n</details>`,
    );
  });

  test.each([
    [60_000, '%S.%L s'],
    [60_001, '%M:%S'],
  ])('a chart of %d ms has the axis %s', (endMs, axis) => {
    expect(String(page([], [{ name: 'a', startMs: 0, endMs }])).split('\n')).toContain(`    axisFormat ${axis}`);
  });

  test('a chart of one job has no sections', () => {
    const spans = [
      { name: 'a.b-c_(d)/+', startMs: 10.4, endMs: 20.6 },
      { name: 'é: 1', startMs: 20.6, endMs: 20.6 },
    ];
    expect(String(page([], spans)).trimEnd()).toBe(
      [
        '```mermaid',
        'gantt',
        '    dateFormat x',
        '    axisFormat %S.%L s',
        '    a.b-c_(d)/+ (11 ms) :t0, 10, 21',
        '    é  1 (1 ms) :t1, 21, 22',
        '```',
      ].join('\n'),
    );
  });
});

describe('a job summary', () => {
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
