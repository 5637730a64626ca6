import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { partialFile } from '../../shared/bytes/partial-file.ts';

const log = { warning: () => undefined };
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'partial-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const partials = async (): Promise<readonly string[]> =>
  (await readdir(folder)).filter((name) => name.includes('.partial'));

async function* bytes(): AsyncGenerator<Buffer> {
  yield await Promise.resolve(Buffer.from('an image'));
}

describe('a tarball that is written to the disk', () => {
  test('a partial file can be read only by its owner, and has an unpredictable name', async () => {
    const path = join(folder, 'charon.tar');
    const names = new Set<string>();
    for (let time = 0; time < 2; time += 1) {
      await using file = await partialFile(path, '', log);
      const [name = ''] = await partials();
      names.add(name);
      expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600);
      for await (const chunk of file.tee(bytes())) expect(chunk).toHaveLength(8);
      await file.commit();
    }
    expect(names.size).toBe(2);
    expect([...names].join()).not.toContain(`-${String(process.pid)}`);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readFile(path, 'utf8')).toBe('an image');
    expect(await partials()).toEqual([]);
  });

  test('a link with the final name of the tarball is replaced, not followed', async () => {
    const [path, other] = [join(folder, 'charon.tar'), join(folder, 'other')];
    await writeFile(other, 'untouched');
    await symlink(other, path);
    await using file = await partialFile(path, '', log);
    for await (const chunk of file.tee(bytes())) expect(chunk).toHaveLength(8);
    await file.commit();
    expect(await readFile(other, 'utf8')).toBe('untouched');
    expect(await readFile(path, 'utf8')).toBe('an image');
  });

  test('the partial files of a killed step are removed, and nothing else', async () => {
    const path = join(folder, 'charon.tar');
    const left = await partialFile(path, '', log);
    const [name = ''] = await partials();
    await left[Symbol.asyncDispose]();
    const kept = [
      'charon.tar.partial',
      'charon.tar.partial-mine',
      'other.tar.partial-0123abcd-0123456789abcdef0123456789abcdef',
    ];
    const foreign = 'charon.tar.partial-0123abcd-0123456789abcdef0123456789abcdef';
    for (const each of [name, foreign, ...kept]) await writeFile(join(folder, each), 'half');
    await (await partialFile(path, '', log))[Symbol.asyncDispose]();
    expect((await partials()).toSorted()).toEqual([...kept, foreign].toSorted());
    // The file of another host or container is removed after a day.
    await utimes(join(folder, foreign), 0, 0);
    await (await partialFile(path, '', log))[Symbol.asyncDispose]();
    expect((await partials()).toSorted()).toEqual(kept.toSorted());
  });

  const asRoot = process.getuid?.() === 0 ? test : test.skip;
  asRoot('the file of another user in a folder like /tmp is refused before anything is written', async () => {
    const path = join(folder, 'charon.tar');
    await chmod(folder, 0o1777);
    await writeFile(path, 'another’s');
    await chown(path, 1234, 1234);
    process.seteuid?.(65534);
    const getuid = process.getuid;
    try {
      process.getuid = () => 65534;
      await expect(partialFile(path, '', log)).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringContaining('a file of another user (uid 1234)'),
      });
    } finally {
      if (getuid !== undefined) process.getuid = getuid;
      process.seteuid?.(0);
    }
    expect(await readFile(path, 'utf8')).toBe('another’s');
    expect(await partials()).toEqual([]);
  });
});

test('a folder that has taken the place of the file and can’t be replaced is reported as an invalid path', async () => {
  const place = join(folder, 'taken.tar');
  const attempted = async (): Promise<void> => {
    await using file = await partialFile(place, '', log);
    await mkdir(place);
    await file.commit();
  };
  await expect(attempted()).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringMatching(/^The tarball can't be written to .*taken\.tar: .*directory/),
  });
  expect(await readdir(folder)).toEqual(['taken.tar']);
});
