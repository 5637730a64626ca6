import { describe, expect, test } from '@jest/globals';
import { chooseTarball } from '../../load-image/plan/plan.ts';

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
