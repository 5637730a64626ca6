import { describe, expect, test } from '@jest/globals';
import { tarballNameOf } from '../../shared/handed-over/opened-artifact.ts';

/** Returns the tarball's name in an artifact without a record. */
function tarballName(artifact: string, names: readonly string[]): string {
  const content = {
    artifact: { id: 1, name: artifact, size: 1 },
    downloaded: () => undefined,
    files: names.map((name) => ({ name, size: 1 })),
    text: () => Promise.resolve(undefined),
    read: () => {
      throw new Error('nothing is read');
    },
    ranges: () => Promise.resolve(undefined),
  };
  return tarballNameOf({ content, record: undefined });
}

describe('the choice of the tarball', () => {
  test.each([
    [['charon.tar'], 'charon.tar'],
    [['any name'], 'any name'],
    [['README.md', 'image.tar.gz'], 'image.tar.gz'],
    [['a.txt', 'b.TGZ', 'image-handover.json'], 'b.TGZ'],
    [['a.txt', 'b.tar.xz'], 'b.tar.xz'],
    [['a.txt', 'b.tar.bz2'], 'b.tar.bz2'],
    [['a.txt', 'b.txz'], 'b.txz'],
    [['a.txt', 'b.tbz2'], 'b.tbz2'],
  ])('the tarball in %j is %s', (names, chosen) => {
    expect(tarballName('x', names)).toBe(chosen);
  });

  test.each([[[]], [['a.tar', 'b.tar']], [['a.txt', 'b.txt']]])('%j is ambiguous', (names: readonly string[]) => {
    expect(() => tarballName('x', names)).toThrow('should hold one tarball');
  });

  test.each([
    [['image-handover.json', 'charon.tar'], 'charon.tar'],
    [['out/charon.tar.zst', 'out/README'], 'out/charon.tar.zst'],
    [['a.tar.md', 'b.tzst'], 'b.tzst'],
    [['x.tar/notes.txt', 'real.tar'], 'real.tar'],
  ])('the tarball among %j is %s', (names, chosen) => {
    expect(tarballName('docker-image', names)).toBe(chosen);
  });

  test('an error about an ambiguous choice names the artifact and lists at most ten files (S0.8)', () => {
    const names = Array.from({ length: 12 }, (_, at) => `file-${String(at)}.txt`);
    expect(() => tarballName('docker-image', names)).toThrow(
      expect.objectContaining({
        code: 'image-not-found',
        message: `The artifact "docker-image" should hold one tarball of an image; it holds ${names.slice(0, 10).join(', ')}.`,
      }),
    );
  });

  test('an artifact with only the record contains no file', () => {
    expect(() => tarballName('docker-image', ['image-handover.json'])).toThrow('it holds no file');
  });
});
