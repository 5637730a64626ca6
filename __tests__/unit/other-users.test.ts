import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { makeTempDir } from '../../shared/bytes/files.ts';
import { isDead, livingName } from '../../shared/bytes/locks.ts';
import { partialFile } from '../../shared/bytes/partial-file.ts';
import { layoutFolder } from '../../shared/layout/layout-folder.ts';

const other = 65534;
const log = { warning: () => undefined };
const asRoot = process.getuid?.() === 0 ? test : test.skip;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'other-users-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** Returns the name of a process that has ended. */
async function deadName(): Promise<string> {
  await using living = await livingName();
  return living.name;
}

function makeFolder(path: string, owner?: number, mode = 0o755): string {
  mkdirSync(path, { recursive: true });
  if (owner !== undefined) chownSync(path, owner, owner);
  chmodSync(path, mode);
  return path;
}

async function sweepTemp(root: string): Promise<void> {
  await using dir = await makeTempDir(root);
  expect(existsSync(dir.path)).toBe(true);
}

async function sweepPartials(path: string): Promise<void> {
  await using file = await partialFile(path, '', log);
  expect(file).toBeDefined();
}

describe('the remains of a killed step', () => {
  test('the remains of a killed step are removed, but not the target of a link in them', async () => {
    const outside = makeFolder(join(folder, 'outside'));
    writeFileSync(join(outside, 'precious'), '');
    const left = makeFolder(join(folder, `image-handover-${await deadName()}`, 'layout', 'blobs'));
    writeFileSync(join(left, 'blob'), '');
    symlinkSync(outside, join(left, 'link'));
    await sweepTemp(folder);
    expect(readdirSync(folder)).toEqual(['outside']);
    expect(readdirSync(outside)).toEqual(['precious']);
  });

  asRoot('the remains of a killed step are kept when another user owns them', async () => {
    const root = makeFolder(join(folder, 'tmp'), 0, 0o1777);
    const left = makeFolder(join(root, `image-handover-${await deadName()}`), other);
    writeFileSync(join(left, 'file'), '');
    const partial = makeFolder(join(root, `charon.tar.partial-${await deadName()}`), other);
    writeFileSync(join(partial, 'file'), '');
    await sweepTemp(root);
    await sweepPartials(join(root, 'charon.tar'));
    expect([readdirSync(left), readdirSync(partial)]).toEqual([['file'], ['file']]);
  });

  asRoot.each([
    ['is owned by another user', other, 0o755],
    ['may be written to by others', 0, 0o777],
  ])(
    'the remains are kept in a folder that %s, because another user may have put them there',
    async (_, owner, mode) => {
      const root = makeFolder(join(folder, 'theirs'), owner, mode);
      const names = [`image-handover-${await deadName()}`, `charon.tar.partial-${await deadName()}`];
      for (const name of names) writeFileSync(join(makeFolder(join(root, name)), 'file'), '');
      await sweepTemp(root);
      await sweepPartials(join(root, 'charon.tar'));
      expect(readdirSync(root)).toEqual(names.toSorted());
      for (const name of names) expect(readdirSync(join(root, name))).toEqual(['file']);
    },
  );

  asRoot('the remains are kept when a folder of another user was moved into them', async () => {
    const left = makeFolder(join(folder, `image-handover-${await deadName()}`), 0, 0o777);
    const moved = makeFolder(join(makeFolder(join(left, 'moved'), other), 'of-root'));
    writeFileSync(join(moved, 'precious'), '');
    await sweepTemp(folder);
    expect(readdirSync(moved)).toEqual(['precious']);
  });
});

describe('a folder of this step', () => {
  asRoot('a replaced folder of this step leaves the contents of its replacement unchanged', async () => {
    const root = makeFolder(join(folder, 'theirs'), other);
    const dir = await makeTempDir(root);
    const [name = ''] = readdirSync(root);
    rmSync(join(root, name), { recursive: true });
    writeFileSync(join(makeFolder(join(root, name)), 'precious'), '');
    await dir[Symbol.asyncDispose]();
    expect(readdirSync(join(root, name))).toEqual(['precious']);
  });

  asRoot(
    'a layout of another user is never replaced, because its folders could change during the removal',
    async () => {
      const place = makeFolder(join(folder, 'base'), other);
      writeFileSync(join(place, 'index.json'), '{"annotations":{"io.image-handover.layout":"1"}}');
      await expect(layoutFolder(place, log)).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringContaining(`it belongs to another user (uid ${String(other)})`),
      });
      expect(readdirSync(folder)).toEqual(['base']);
    },
  );
});

describe('a path with a link in it', () => {
  const linked = (owner: number, mode: number): string => {
    const place = makeFolder(join(folder, 'tmp'), 0, mode);
    symlinkSync(makeFolder(join(folder, 'elsewhere')), join(place, 'out'));
    lchownSync(join(place, 'out'), owner, owner);
    return join(place, 'out', 'charon.tar');
  };

  asRoot('a path is refused when its link is of another user, in a folder where every user may write', async () => {
    const path = linked(other, 0o1777);
    const refused = { code: 'invalid-input', message: expect.stringContaining('/out is a link of another user (uid ') };
    await expect(partialFile(path, '', log)).rejects.toMatchObject(refused);
    await expect(layoutFolder(path, log)).rejects.toMatchObject(refused);
    expect(readdirSync(join(folder, 'elsewhere'))).toEqual([]);
  });

  asRoot.each([
    ['is of this user', 0, 0o1777],
    ['is in a folder where other users can’t create one', other, 0o755],
  ])('a path is followed when its link %s', async (_, owner, mode) => {
    await sweepPartials(linked(owner, mode));
  });
});

describe('a folder that another user replaces with a link while the step writes in it', () => {
  /** Returns a folder in a place where every user may write, and the attack of its owner. */
  const attacked = (): { readonly place: string; readonly victim: string; readonly swap: () => void } => {
    const place = makeFolder(join(makeFolder(join(folder, 'tmp'), 0, 0o1777), 'out'), other);
    const victim = makeFolder(join(folder, 'victim'));
    for (const name of ['charon.tar', 'index.json']) writeFileSync(join(victim, name), 'precious');
    const swap = (): void => {
      renameSync(place, `${place}.aside`);
      symlinkSync(victim, place);
      lchownSync(place, other, other);
    };
    return { place, victim, swap };
  };
  const expectUnharmed = (victim: string): void => {
    expect(readdirSync(victim)).toEqual(['charon.tar', 'index.json']);
    for (const name of readdirSync(victim)) expect(readFileSync(join(victim, name), 'utf8')).toBe('precious');
  };

  asRoot('the target of the link is unchanged, and the file appears in the folder that was opened', async () => {
    const { place, victim, swap } = attacked();
    {
      await using file = await partialFile(join(place, 'charon.tar'), '', log);
      swap();
      await file.commit();
    }
    expectUnharmed(victim);
    expect(readdirSync(`${place}.aside`)).toEqual(['charon.tar']);
  });

  asRoot('the target of the link is unchanged when the step fails', async () => {
    const { place, victim, swap } = attacked();
    {
      await using file = await partialFile(join(place, 'charon.tar'), '', log);
      await using layout = await layoutFolder(join(place, 'layout'), log);
      expect([file, layout]).toHaveLength(2);
      swap();
    }
    expectUnharmed(victim);
    expect(readdirSync(`${place}.aside`)).toEqual([]);
  });

  asRoot('the target of the link is unchanged even when the link replaces the layout itself', async () => {
    const { place, victim } = attacked();
    {
      await using layout = await layoutFolder(join(place, 'layout'), log);
      const [name = ''] = readdirSync(place);
      renameSync(join(place, name), `${place}.aside`);
      symlinkSync(victim, join(place, name));
      await layout.commit([]).catch(() => undefined);
    }
    expectUnharmed(victim);
  });
});

test.each(['darwin', 'win32'] as const)(
  'on %s, without handles and locks, all files are written and removed as well',
  async (platform) => {
    const before = process.platform;
    Object.defineProperty(process, 'platform', { value: platform });
    try {
      const path = join(folder, 'out', 'charon.tar');
      {
        await using temp = await makeTempDir(folder);
        writeFileSync(join(temp.path, 'file'), '');
        await using file = await partialFile(path, '', log);
        await file.commit();
        await using layout = await layoutFolder(join(folder, 'out', 'layout'), log);
        await layout.commit([]);
        await using given = await layoutFolder(join(folder, 'out', 'other'), log);
        expect(given).toBeDefined();
      }
      expect([readdirSync(folder), readdirSync(join(folder, 'out'))]).toEqual([['out'], ['charon.tar', 'layout']]);
    } finally {
      Object.defineProperty(process, 'platform', { value: before });
    }
  },
);

describe('the check whether a step is still running', () => {
  test('a name is not dead when its lock can’t be tested', async () => {
    const dead = await deadName();
    expect(await isDead(dead)).toBe(true);
    failToBind('EPERM');
    expect(await isDead(dead)).toBe(false);
  });

  test('a step that couldn’t lock its name is not dead for other processes', async () => {
    failToBind('EMFILE');
    await using living = await livingName();
    jest.restoreAllMocks();
    expect(await isDead(living.name)).toBe(false);
  });

  test('a locked partial file of any age is kept', async () => {
    const path = join(folder, 'charon.tar');
    await using living = await livingName();
    const partial = `${path}.partial-${living.name}`;
    writeFileSync(partial, 'half');
    utimesSync(partial, 0, 0);
    await sweepPartials(path);
    expect(existsSync(partial)).toBe(true);
  });

  test('a partial file of another host is kept for as long as a step can run', async () => {
    const partial = join(folder, 'charon.tar.partial-0123abcd-0123456789abcdef0123456789abcdef');
    const daysAgo = (days: number): number => Date.now() / 1000 - days * 24 * 60 * 60;
    writeFileSync(partial, 'half');
    utimesSync(partial, daysAgo(4), daysAgo(4));
    await sweepPartials(join(folder, 'charon.tar'));
    expect(existsSync(partial)).toBe(true);
    utimesSync(partial, daysAgo(7), daysAgo(7));
    await sweepPartials(join(folder, 'charon.tar'));
    expect(existsSync(partial)).toBe(false);
  });
});

function failToBind(code: string): void {
  jest.spyOn(Server.prototype, 'listen').mockImplementation(function (this: Server): Server {
    process.nextTick(() => this.emit('error', Object.assign(new Error(`bind ${code}`), { code })));
    return this;
  });
}
