import { describe, expect, test } from '@jest/globals';
import { code, gantt, layerTable, markdownTable, words } from '../../shared/base/markdown.ts';
import { formatBytes, formatDuration, quoteForeign } from '../../shared/base/text.ts';

describe('words for people', () => {
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

  test('text of others can’t break out of a line, a table or code', () => {
    expect(quoteForeign('a\n::error::b\u001b[31m', 20)).toBe('a ::error::b [31m');
    expect(quoteForeign('a\u009b31m\u202eb\u2028c')).toBe('a 31m b c');
    expect(quoteForeign('\u2029 a\r\n')).toBe('a');
    expect(quoteForeign('x'.repeat(50), 10)).toBe(`${'x'.repeat(10)}…`);
    expect(quoteForeign('x'.repeat(10), 10)).toBe('x'.repeat(10));
    expect(quoteForeign('x'.repeat(301))).toBe(`${'x'.repeat(300)}…`);
    const table = markdownTable(['a'], [[code('b|c\nd')], [words('b|c\nd')]]);
    expect(String(table)).toBe('| a |\n| --- |\n| `b\\|c d` |\n| b&#124;c d |');
    expect(String(code('a`b'))).toBe("`a'b`");
    const chart = gantt([{ name: 'Load: x\n%%{init: a}%%;<b>', startMs: 1, endMs: 1 }]);
    expect(String(chart)).toContain('    Load  x init  a b  (1 ms) :t0, 1, 2\n');
    expect(String(gantt([]))).toBe('');
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
