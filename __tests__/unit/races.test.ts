import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { makeImage, savedTogether, type FixtureImage } from '../fixtures/image.ts';
import { loadHandover, type LoadTools } from '../../load-image/load-image.ts';
import type { EachPlan } from '../../load-image/plan/plan.ts';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { timeline } from '../../shared/base/timeline.ts';
import { streamableChunks } from '../../shared/bytes/chunks.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import { claimTags } from '../../shared/docker/tag-claims.ts';
import { guardTags } from '../../shared/docker/tag-guard.ts';
import { digestOf, isDigest } from '../../shared/image/digest.ts';
import { parsePlatform } from '../../shared/image/platform.ts';
import { formatReference, parseTaggedReference } from '../../shared/image/reference.ts';
import { imagesIn } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';

// Two steps that set one reference at once: the test decides when each of them gets its answer from the engine.

const platform = parsePlatform('linux/amd64');
const silent: Log = {
  info: () => undefined,
  notice: () => undefined,
  warning: () => undefined,
  chapter: (_title, work) => work(),
  progress: (_what, _total, work) => work(() => undefined),
};

let places = 0;

/** An engine of the classic store. Each of its answers waits for its turn. */
class Store {
  readonly images = new Map<string, Omit<InspectedImage, 'repoTags' | 'imageId'>>();
  readonly tags = new Map<string, string>();
  readonly info: EngineInfo;

  constructor() {
    places += 1;
    const dataRoot = `/races/${String(process.pid)}/${String(places)}`;
    this.info = { version: '28', platform, imageStore: 'classic', dataRoot, hostName: 'elsewhere' };
  }

  /** @param refused a reference that this step of the two can't set */
  engine(turn: () => Promise<unknown>, refused?: string): Engine {
    const found = (name: string): InspectedImage | undefined => {
      const imageId = isDigest(name) ? name : (this.tags.get(name) ?? '');
      const image = this.images.get(imageId);
      const repoTags = [...this.tags].flatMap(([tag, id]) => (id === imageId ? [tag] : []));
      return image === undefined ? undefined : { ...image, imageId, repoTags };
    };
    const untag = async (reference: string): Promise<void> => {
      await turn();
      const imageId = this.tags.get(reference) ?? '';
      this.tags.delete(reference);
      if (![...this.tags.values()].includes(imageId)) this.images.delete(imageId);
    };
    const engine: Engine = {
      program: 'docker',
      nameOf: (reference) => reference,
      info: () => Promise.resolve(this.info),
      inspect: async (name) => {
        await turn();
        return found(name);
      },
      confirm: undefined,
      load: async (chunks) => {
        const { images } = imagesIn(await seeTarball(streamableChunks(chunks)));
        await turn();
        for (const { configDigest, config, references } of images) {
          this.images.set(configDigest, { ...config, size: 1 });
          for (const reference of references) this.tags.set(formatReference(reference), configDigest);
        }
        return [];
      },
      pull: undefined,
      save: () => {
        throw new Error('nothing is saved');
      },
      tag: async (image, reference) => {
        await turn();
        const imageId = found(image)?.imageId;
        if (imageId === undefined || reference === refused)
          throw new HandoverError('load-failed', `No such image: ${image}`, 'None.');
        this.tags.set(reference, imageId);
      },
      untag,
      release: async (reference) => {
        await turn();
        this.tags.delete(reference);
      },
      images: async () => {
        await turn();
        return [...this.tags].map(([reference, imageId]) => ({ reference, imageId }));
      },
      get forCleanUp() {
        return engine;
      },
    };
    return engine;
  }
}

const names = ['app:1', 'app:2'];

function contentOf(image: FixtureImage): ArtifactContent {
  const tarball = savedTogether([[image, names]]);
  return {
    artifact: { id: 1, name: 'image', size: tarball.length, digest: digestOf(tarball) },
    downloaded: () => undefined,
    files: [{ name: 'image.tar', size: tarball.length }],
    text: () => Promise.resolve(undefined),
    read: async function* () {
      yield await Promise.resolve(tarball);
    },
    ranges: () => Promise.resolve(undefined),
  };
}

const small = { layers: 1, layerBytes: 1000 };
const [one, other, older] = [makeImage(small), makeImage(small), makeImage(small)];

const plan: EachPlan = {
  from: 'artifact',
  engine: 'docker',
  into: { kind: 'engine' },
  registryImage: undefined,
  reference: undefined,
  overlap: false,
  tarballPath: undefined,
  layoutPath: undefined,
  expectedConfigDigest: undefined,
  expectedRevision: undefined,
  checkPlatform: true,
};

interface Step {
  readonly turn: () => Promise<unknown>;
  readonly onWait?: () => void;
  readonly refused?: string;
}

/** Loads an image into the store as a step does. @returns whether that went well */
async function step(store: Store, image: FixtureImage, { turn, onWait, refused }: Step): Promise<boolean> {
  const info = (line: string): void => {
    if (line.startsWith('Waiting for another')) onWait?.();
  };
  const tools: LoadTools = {
    engine: store.engine(turn, refused),
    log: { ...silent, info },
    timeline: timeline(),
    signal: new AbortController().signal,
    store: {
      list: () => Promise.resolve([]),
      open: () => Promise.reject(new Error('nothing is opened')),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    runAttempt: 1,
  };
  const handover = { origin: 'artifact', content: contentOf(image), record: undefined, known: undefined } as const;
  try {
    await loadHandover(plan, tools, handover, store.info);
    return true;
  } catch (error) {
    if (error instanceof HandoverError) return false;
    throw error;
  }
}

const now = (): Promise<void> => Promise.resolve();

/**
 * Two steps at once. The first one begins when the second one has come to its question number `at`; that one goes on when the first
 * has come to its own number `until`, has ended, or waits for the second.
 */
async function race(
  store: Store,
  second: { readonly image: FixtureImage; readonly refused?: string },
  [at, until]: readonly [number, number],
): Promise<readonly [boolean, boolean]> {
  const [begin, goOn] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  const counted = (number: number, reached: () => Promise<unknown>): (() => Promise<unknown>) => {
    let asked = 0;
    return () => {
      asked += 1;
      return asked === number ? reached() : now();
    };
  };
  const overtaken = (): Promise<unknown> => {
    begin.resolve(undefined);
    return goOn.promise;
  };
  const resume = (): Promise<unknown> => {
    goOn.resolve(undefined);
    return now();
  };
  const last = step(store, second.image, { ...second, turn: counted(at, overtaken) }).finally(() => {
    begin.resolve(undefined);
  });
  await begin.promise;
  const first = step(store, one, { turn: counted(until, resume), onWait: () => void resume() }).finally(
    () => void resume(),
  );
  return Promise.all([first, last]);
}

// A step asks some thirty times; each that waits for the other looks again after some hundredths of a second.
const questions = 36;

describe('two loads that set the same references at once', () => {
  const images = [
    ['of one image', one],
    ['of two images', other],
  ] as const;

  /** The first is verified, so its references stay, unless the second has moved them on and is verified, too. */
  const expectVerified = (store: Store, image: FixtureImage, outcome: readonly boolean[]): void => {
    const [first, second] = outcome;
    expect(first).toBe(true);
    const left = names.map((name) => store.tags.get(name));
    const wanted = [one, ...(second === true ? [image] : [])].map(({ configDigest }) => configDigest);
    expect(wanted).toContain(left[0]);
    expect(left).toEqual([left[0], left[0]]);
    expect([...store.tags.keys()].sort()).toEqual(names);
  };

  test.each(images)(
    '%s, one of which fails: wherever it is overtaken, it takes back nothing of the other’s (B.7)',
    async (_, image) => {
      for (let at = 1; at < questions; at += 1) {
        const store = new Store();
        const outcome = await race(store, { image, refused: 'app:2' }, [at, Infinity]);
        expectVerified(store, image, outcome);
      }
    },
    30_000,
  );

  test('property: in any order, over older tags or none, whichever reference can’t be set (B.7)', async () => {
    const turns = fc.tuple(fc.nat(questions), fc.nat(questions));
    const seconds = fc.record({ of: fc.constantFrom(0, 1), refused: fc.constantFrom('none', ...names) });
    await fc.assert(
      fc.asyncProperty(turns, seconds, fc.boolean(), async (at, { of, refused }, hadOlder) => {
        const image = of === 0 ? one : other;
        const store = new Store();
        if (hadOlder) await step(store, older, { turn: now });
        expectVerified(store, image, await race(store, { image, refused }, at));
      }),
      { numRuns: 40 },
    );
  }, 30_000);
});

describe('a guard of tags', () => {
  test('leaves alone what another step has set in the meantime, also while its own command was under way (B.7)', async () => {
    const store = new Store();
    await step(store, one, { turn: now });
    await step(store, older, { turn: now });
    const inspected = { ...store.images.get(one.configDigest) };
    store.images.set(other.configDigest, { diffIds: [], labels: {}, size: 1, platform, config: {}, ...inspected });
    store.images.set(one.configDigest, { diffIds: [], labels: {}, size: 1, platform, config: {}, ...inspected });
    const engine = store.engine(now);
    const overtaken: Engine = {
      ...engine,
      forCleanUp: engine,
      tag: async (image, reference) => {
        await engine.tag(image, reference);
        store.tags.set(reference, other.configDigest);
      },
    };
    {
      await using guard = guardTags(overtaken, () => undefined);
      const found = await guard.tag(one.configDigest, 'app:1');
      expect(found?.imageId).toBe(other.configDigest);
    }
    expect(store.tags.get('app:1')).toBe(other.configDigest);
  });

  test('restores the first image of a reference that it has set twice (B.7)', async () => {
    const store = new Store();
    await step(store, older, { turn: now });
    for (const { configDigest } of [one, other])
      store.images.set(configDigest, { diffIds: [], labels: {}, size: 1, platform, config: {} });
    const engine = store.engine(now);
    {
      await using guard = guardTags({ ...engine, forCleanUp: engine }, () => undefined);
      for (const { configDigest } of [one, other]) await guard.tag(configDigest, 'app:1');
      expect(store.tags.get('app:1')).toBe(other.configDigest);
    }
    expect(store.tags.get('app:1')).toBe(older.configDigest);
  });

  test('puts a reference back that was set by a command that failed after it', async () => {
    const store = new Store();
    await step(store, older, { turn: now });
    store.images.set(one.configDigest, { diffIds: [], labels: {}, size: 1, platform, config: {} });
    const engine = store.engine(now);
    const failing: Engine = {
      ...engine,
      forCleanUp: engine,
      tag: async (image, reference) => {
        await engine.tag(image, reference);
        throw new Error('the connection is gone');
      },
    };
    const tagged = async (): Promise<void> => {
      await using guard = guardTags(failing, () => undefined);
      await guard.tag(one.configDigest, 'app:1');
    };
    await expect(tagged()).rejects.toThrow('the connection is gone');
    expect(store.tags.get('app:1')).toBe(older.configDigest);
  });
});

describe('a claim', () => {
  const references = names.map(parseTaggedReference);
  const { signal } = new AbortController();

  test('is waited for and given back; after a while it is done without, with a warning', async () => {
    const lines: string[] = [];
    const log = { info: (line: string) => void lines.push(line), warning: (line: string) => void lines.push(line) };
    const place = `claims ${String(process.pid)}`;
    {
      await using held = await claimTags([place], references.slice(0, 1), { log, signal });
      expect(held).toBeDefined();
      await using elsewhere = await claimTags([`${place} elsewhere`], references, { log, signal });
      expect(elsewhere).toBeDefined();
      expect(lines).toEqual([]);
      const waits = { 'this-user': 60, 'other-user': 60, stranger: 60 };
      await using late = await claimTags([place], references, { log, signal }, waits);
      expect(late).toBeDefined();
      expect(lines).toEqual([
        expect.stringMatching(/^Waiting for another step that is setting app:1: process \d+ of uid/),
        expect.stringMatching(/^Setting app:1 without waiting any longer for process \d+ of uid/),
      ]);
    }
    await using again = await claimTags([place], references, { log, signal });
    expect(again).toBeDefined();
    expect(lines).toHaveLength(2);
  });

  test('is no longer waited for when the step is cancelled', async () => {
    const cancelling = new AbortController();
    const place = `cancelled ${String(process.pid)}`;
    await using held = await claimTags([place], references, { log: silent, signal });
    expect(held).toBeDefined();
    const waiting = claimTags([place], references, { log: silent, signal: cancelling.signal });
    cancelling.abort();
    await expect(waiting).rejects.toThrow('aborted');
  });
});
