import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { lowerLayers } from '../../export-image/lower-layers.ts';
import { copiedBytes } from '../../shared/copied-bytes.ts';
import { dockerCli } from '../../shared/docker/cli.ts';
import { dockerEngine, type Engine } from '../../shared/docker/engine.ts';
import { countLowerLayers, type LayerBytes, parseLayerSizes } from '../../shared/docker/lower-layers.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { blobPath, readOciLayout } from '../../shared/image/oci-layout.ts';
import { writeOciLayout } from '../../shared/image/oci-layout-writer.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { readSmallTar } from '../../shared/image/small-tar.ts';
import { parseJson } from '../../shared/json.ts';
import { makeImage, savedTarball, tar } from '../fixtures/image.ts';

const directory = mkdtempSync(join(tmpdir(), 'lower-'));
const pathBefore = process.env['PATH'] ?? '';
let abort: AbortController;
beforeEach(() => {
  abort = new AbortController();
});
afterEach(() => {
  process.env['PATH'] = pathBefore;
});
afterAll(() => rmSync(directory, { recursive: true }));

const [a, b, c] = ['a', 'b', 'c'].map(digestOf);
const image: InspectedImage = {
  imageId: digestOf('image'),
  repoTags: [],
  platform: parsePlatform('linux/arm64'),
  diffIds: [a, b, c].filter((digest) => digest !== undefined),
  labels: {},
  size: 400,
};

describe('how many of the lowest layers', () => {
  test.each([
    [[10, 20, 30], { atLeast: 5, atMost: 30 }, 2],
    [[10, 20, 30], { atLeast: 5, atMost: 29 }, 1],
    [[10, 20, 30], { atLeast: 11, atMost: 29 }, 0],
    [[40, 1, 1], { atLeast: 1, atMost: 30 }, 0],
    [[10, 20, 30], { atLeast: 5, atMost: 60 }, 3],
    [[], { atLeast: 1, atMost: 10 }, 0],
  ])('of %p come to %p: %d', (sizes, bytes, count) => {
    expect(countLowerLayers(sizes, bytes)).toBe(count);
  });

  test('docker history tells of the highest first; steps that add nothing, and lines that are no sizes, are left out', () => {
    expect(parseLayerSizes('0\n250000000\n0\n1200\n<missing>\n7\n')).toEqual([7, 1200, 250_000_000]);
  });
});

describe('the lowest layers are saved as an image of their own', () => {
  const calls = join(directory, 'calls');
  const loaded = join(directory, 'loaded.tar');

  /** A docker whose history is of 100, 200 and 0 bytes, and 100 on top; `script` may answer before it does. */
  function fakeDocker(script = ''): void {
    rmSync(calls, { force: true });
    const answers = [
      `echo "$@" >> ${calls}`,
      script,
      `case "$1 $2" in`,
      `'context inspect') echo tcp://127.0.0.1:2375;;`,
      `'history '*) printf '100\\n0\\n200\\n100\\n';;`,
      `'load '*) cat > ${loaded}; echo "Loaded image ID: sha256:x";;`,
      `'save '*) head -c 3000 /dev/zero;;`,
      `esac`,
    ];
    writeFileSync(join(directory, 'docker'), `#!/bin/sh\n${answers.join('\n')}\n`, { mode: 0o755 });
    process.env['PATH'] = `${directory}${delimiter}${pathBefore}`;
  }
  const called = (): readonly string[] => readFileSync(calls, 'utf8').trim().split('\n');
  const warnings: string[] = [];
  const saveLower = (bytes: LayerBytes = { atLeast: 50, atMost: 350 }): AsyncIterable<Buffer> => {
    const save = dockerEngine(dockerCli(abort.signal)).saveLower;
    if (save === undefined) throw new Error('docker can');
    return save(image, bytes, (text) => void warnings.push(text));
  };
  const idOfLoaded = async (): Promise<string> => {
    const files = await readSmallTar(readFileSync(loaded));
    return digestOf(files.get('config.json') ?? '');
  };

  test('which has a config and no layers, and goes again', async () => {
    fakeDocker();
    expect(await copiedBytes(saveLower())).toEqual(Buffer.alloc(3000));
    const files = await readSmallTar(readFileSync(loaded));
    expect([...files.keys()]).toEqual(['config.json', 'manifest.json']);
    expect(parseJson(files.get('config.json')?.toString() ?? '')).toMatchObject({
      os: 'linux',
      architecture: 'arm64',
      rootfs: { type: 'layers', diff_ids: [a, b] },
    });
    expect(parseJson(files.get('manifest.json')?.toString() ?? '')).toEqual([
      { Config: 'config.json', RepoTags: null, Layers: [`${a?.slice(7) ?? ''}.tar`, `${b?.slice(7) ?? ''}.tar`] },
    ]);
    const id = await idOfLoaded();
    expect(called().filter((line) => !line.startsWith('context'))).toEqual([
      `history --human=false --format {{.Size}} ${image.imageId}`,
      'load',
      `save ${id}`,
      `image rm ${id}`,
    ]);
    expect(warnings).toEqual([]);
  });

  test('whose ID is like no other’s', async () => {
    fakeDocker();
    const ids = new Set<string>();
    for (let time = 0; time < 2; time += 1) {
      await copiedBytes(saveLower());
      ids.add(await idOfLoaded());
    }
    expect(ids.size).toBe(2);
  });

  test('not at all where no layers come to so many bytes', async () => {
    fakeDocker();
    expect(await copiedBytes(saveLower({ atLeast: 301, atMost: 350 }))).toEqual(Buffer.alloc(0));
    expect(called()).toHaveLength(1);
  });

  test('it goes when nobody wants more of it, too', async () => {
    fakeDocker();
    for await (const chunk of saveLower()) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(called().at(-1)).toBe(`image rm ${await idOfLoaded()}`);
  });

  test('it goes when the job is cancelled, too', async () => {
    fakeDocker(`[ "$1" = save ] && { head -c 100 /dev/zero; exec sleep 60; }`);
    setTimeout(() => {
      abort.abort();
    }, 300);
    await expect(copiedBytes(saveLower())).rejects.toThrow();
    expect(called().at(-1)).toBe(`image rm ${await idOfLoaded()}`);
  });

  test('an engine that doesn’t take it has the words; what it may have stored is removed', async () => {
    fakeDocker(`[ "$1" = load ] && { cat > /dev/null; echo 'layer not found' >&2; exit 1; }`);
    await expect(copiedBytes(saveLower())).rejects.toMatchObject({
      code: 'load-failed',
      message: expect.stringContaining('layer not found'),
    });
    expect(called().at(-1)).toMatch(/^image rm sha256:/);
  });

  test('if it stays, that is told', async () => {
    fakeDocker(`[ "$1 $2" = 'image rm' ] && { echo 'image is in use' >&2; exit 1; }`);
    await copiedBytes(saveLower());
    expect(warnings).toEqual([expect.stringMatching(/^The image sha256:\w+ stays in the engine: image is in use$/)]);
  });
});

describe('layers that come ahead of their image', () => {
  const platform = parsePlatform('linux/amd64');
  const compression = { format: 'zstd', level: 1 } as const;
  const fixture = makeImage({ gzip: false, layers: 3, layerBytes: 300_000, compressible: true });
  const [lowest, second, highest] = fixture.diffIds;
  const nameOf = (digest = ''): string => `blobs/sha256/${digest.slice(7)}`;
  const bytesOf = (digest = lowest): Buffer => fixture.blobs.get(digest ?? digestOf('')) ?? Buffer.alloc(0);
  const whole = (): AsyncIterable<Buffer> => Readable.from([savedTarball(fixture, ['a:1'])]);
  const newLayout = (): string => mkdtempSync(join(directory, 'layout-'));
  const slowly = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    await sleep(100);
    yield* chunks;
  };

  test('are taken from there, and not again from the image', async () => {
    const layout = newLayout();
    const other = tar([['other', Buffer.alloc(1000, 'other')]]);
    const ahead = Readable.from([tar([[nameOf(lowest), other]])]);
    const replaced = await writeOciLayout(() => slowly(whole()), layout, compression, ahead);
    const { digest = digestOf('') } = replaced.get(lowest ?? digestOf('')) ?? {};
    const stored = readFileSync(blobPath(layout, digest));
    expect(stored.length).toBeLessThan(1000);
    expect(replaced.size).toBe(3);
    expect(readdirSync(layout).filter((name) => name.startsWith('partial-'))).toEqual([]);
  });

  test('give the same image as without them; of the rest of what came ahead nothing stays', async () => {
    const [without, withThem] = [newLayout(), newLayout()];
    const lower = [lowest, second].map((digest) => [nameOf(digest), bytesOf(digest)] as const);
    const config = Buffer.from('{"comment":"for a moment"}');
    const ahead = tar([...lower, [nameOf(digestOf(config)), config], ['index.json', Buffer.from('{}')]]);
    const replaced = await writeOciLayout(whole, without, compression);
    expect(await writeOciLayout(() => slowly(whole()), withThem, compression, Readable.from([ahead]))).toEqual(
      replaced,
    );
    for (const folder of ['.', 'blobs/sha256'])
      expect(readdirSync(join(withThem, folder))).toEqual(readdirSync(join(without, folder)));
    expect((await readOciLayout(withThem, platform, replaced)).configDigest).toBe(fixture.configDigest);
  });

  test.each([
    ['cut in a layer', 100_000],
    ['cut between two', undefined],
  ])('but are %s come again', async (_, bytes) => {
    const layout = newLayout();
    const ahead = tar([[nameOf(lowest), bytesOf()]]).subarray(
      0,
      bytes ?? 512 + Math.ceil(bytesOf().length / 512) * 512,
    );
    const replaced = await writeOciLayout(() => slowly(whole()), layout, compression, Readable.from([ahead]));
    expect(replaced).toEqual(await writeOciLayout(whole, newLayout(), compression));
    expect(readdirSync(layout).filter((name) => name.startsWith('partial-'))).toEqual([]);
  });

  test('and come later than the image are not waited for', async () => {
    const state = { closed: false, asked: 0 };
    const endless = async function* (): AsyncGenerator<Buffer> {
      try {
        for (;;) {
          state.asked += 1;
          await sleep(5);
          yield tar([[nameOf(highest), bytesOf(highest)]]).subarray(0, -1024);
        }
      } finally {
        state.closed = true;
      }
    };
    const replaced = await writeOciLayout(() => slowly(whole()), newLayout(), compression, endless());
    expect([replaced.size, state.closed]).toEqual([3, true]);
    expect(state.asked).toBeLessThan(200);
  });

  test('don’t hide what is wrong with the image itself', async () => {
    const ahead = Readable.from([tar([[nameOf(lowest), bytesOf()]])]);
    const cut = (): AsyncIterable<Buffer> => Readable.from([savedTarball(fixture, ['a:1']).subarray(0, 400_000)]);
    await expect(writeOciLayout(() => slowly(cut()), newLayout(), compression, ahead)).rejects.toMatchObject({
      code: 'tarball-invalid',
    });
  });
});

describe('whether layers are saved ahead', () => {
  const info: EngineInfo = {
    version: '28.5.2',
    platform: parsePlatform('linux/amd64'),
    imageStore: 'classic',
    dataRoot: directory,
    hostName: hostname(),
  };
  const large = { ...image, size: 300_000_000 };
  const said: string[] = [];
  const log = { info: (text: string) => void said.push(text), warning: (text: string) => void said.push(text) };
  const asked: LayerBytes[] = [];

  async function ahead(
    facts: EngineInfo,
    wanted: InspectedImage | undefined,
    saveLower: Engine['saveLower'] = (_, bytes) => {
      asked.push(bytes);
      return Readable.from([Buffer.from('layers')]);
    },
  ): Promise<string> {
    asked.length = 0;
    const engine = { saveLower };
    return (await copiedBytes(lowerLayers({ engine, log }, () => Promise.resolve([facts, wanted])))).toString();
  }

  test('up to half of the image, on the classic store', async () => {
    expect(await ahead(info, large)).toBe('layers');
    expect(asked).toEqual([{ atLeast: 64 * 1024 * 1024, atMost: 150_000_000 }]);
  });

  test.each([
    ['on the containerd store, which is not silent', { ...info, imageStore: 'containerd' as const }, large],
    ['of an image that has gone', info, undefined],
    ['of a small image', info, { ...large, size: 120_000_000 }],
    ['by an engine whose disk can’t be seen', { ...info, hostName: 'elsewhere' }, large],
    ['without room for a second copy', info, { ...large, size: 1e15 }],
  ])('none %s', async (_, facts, wanted) => {
    expect(await ahead(facts, wanted)).toBe('');
    expect(asked).toEqual([]);
  });

  beforeEach(() => void (said.length = 0));

  test('none by an engine that can’t', async () => {
    const engine = { saveLower: undefined };
    const notAsked = (): Promise<never> => Promise.reject(new Error('asked'));
    expect(await copiedBytes(lowerLayers({ engine, log }, notAsked))).toEqual(Buffer.alloc(0));
    expect(said).toEqual([]);
  });

  test('a failure is told, and fails nothing', async () => {
    expect(await ahead(info, large, () => Readable.from(failing()))).toBe('');
    expect(said).toEqual(['The lowest layers come with the others: Error: no such layer']);
  });
  // eslint-disable-next-line require-yield, @typescript-eslint/require-await
  async function* failing(): AsyncGenerator<Buffer> {
    throw new Error('no such layer');
  }
});
