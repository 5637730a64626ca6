import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { makeImage, type FixtureImage } from '../fixtures/image.ts';
import { contentOf, plan, platform, RacingStore, silent } from '../fixtures/racing-store.ts';
import type { IntoTools } from '../../load-image/into/into-holders.ts';
import { loadArtifact } from '../../load-image/load-image.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { timeline } from '../../shared/base/timeline.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import { claimTags, guardTags } from '../../shared/docker/tag-guard.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';

// Two steps set one reference at the same time: the test decides when each of them gets its response from the engine.

const names = ['app:1', 'app:2'];

const small = { layers: 1, layerBytes: 1000 };
const [one, other, older] = [makeImage(small), makeImage(small), makeImage(small)];

interface Step {
  readonly turn: () => Promise<unknown>;
  readonly onWait?: () => void;
  readonly refused?: string;
}

/**
 * Loads an image into the store like a step.
 * @returns whether the load succeeded
 */
async function step(store: RacingStore, image: FixtureImage, { turn, onWait, refused }: Step): Promise<boolean> {
  const info = (line: string): void => {
    if (line.startsWith('Waiting for another')) onWait?.();
  };
  const tools: IntoTools = {
    holders: [{ engine: store.engine(turn, refused), node: undefined }],
    log: { ...silent, info },
    timeline: timeline(),
    signal: new AbortController().signal,
  };
  const found = {
    origin: 'artifact',
    content: contentOf(image, names),
    record: undefined,
    identified: undefined,
  } as const;
  try {
    await loadArtifact(plan, tools, found, store.info);
    return true;
  } catch (error) {
    if (error instanceof HandoverError) return false;
    throw error;
  }
}

const now = (): Promise<void> => Promise.resolve();

/**
 * Runs two steps at once. The first one starts when the second one has reached its request number `at`. The second one continues when the
 * first has reached its own request number `until`, has ended, or waits for the second.
 */
async function race(
  store: RacingStore,
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

// A step sends about thirty requests; a step that waits for the other checks again after a few hundredths of a second.
const questions = 36;

describe('two loads that set the same references at once', () => {
  const images = [
    ['of one image', one],
    ['of two images', other],
  ] as const;

  /** The first is verified, so its references are kept, unless the second has moved them and is also verified. */
  const expectVerified = (store: RacingStore, image: FixtureImage, outcome: readonly boolean[]): void => {
    const [first, second] = outcome;
    expect(first).toBe(true);
    const left = names.map((name) => store.tags.get(name));
    const wanted = [one, ...(second === true ? [image] : [])].map(({ configDigest }) => configDigest);
    expect(wanted).toContain(left[0]);
    expect(left).toEqual([left[0], left[0]]);
    expect([...store.tags.keys()].sort()).toEqual(names);
  };

  test.each(images)(
    '%s, one of which fails: it removes none of the other’s references, wherever it is overtaken (B.7)',
    async (_, image) => {
      for (let at = 1; at < questions; at += 1) {
        const store = new RacingStore();
        const outcome = await race(store, { image, refused: 'app:2' }, [at, Infinity]);
        expectVerified(store, image, outcome);
      }
    },
    30_000,
  );

  test('property: the result is right in any order, with older tags or none, and with any reference that can’t be set (B.7)', async () => {
    const turns = fc.tuple(fc.nat(questions), fc.nat(questions));
    const seconds = fc.record({ of: fc.constantFrom(0, 1), refused: fc.constantFrom('none', ...names) });
    await fc.assert(
      fc.asyncProperty(turns, seconds, fc.boolean(), async (at, { of, refused }, hadOlder) => {
        const image = of === 0 ? one : other;
        const store = new RacingStore();
        if (hadOlder) await step(store, older, { turn: now });
        expectVerified(store, image, await race(store, { image, refused }, at));
      }),
      { numRuns: 40 },
    );
  }, 30_000);
});

describe('a tag guard', () => {
  test('doesn’t change a reference that another step has set in the meantime, even during its own command (B.7)', async () => {
    const store = new RacingStore();
    await step(store, one, { turn: now });
    await step(store, older, { turn: now });
    const inspected = { ...store.images.get(one.configDigest) };
    store.images.set(other.configDigest, { diffIds: [], labels: {}, platform, config: {}, ...inspected });
    store.images.set(one.configDigest, { diffIds: [], labels: {}, platform, config: {}, ...inspected });
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

  test('restores the original image of a reference that it has set twice (B.7)', async () => {
    const store = new RacingStore();
    await step(store, older, { turn: now });
    for (const { configDigest } of [one, other])
      store.images.set(configDigest, { diffIds: [], labels: {}, platform, config: {} });
    const engine = store.engine(now);
    {
      await using guard = guardTags({ ...engine, forCleanUp: engine }, () => undefined);
      for (const { configDigest } of [one, other]) await guard.tag(configDigest, 'app:1');
      expect(store.tags.get('app:1')).toBe(other.configDigest);
    }
    expect(store.tags.get('app:1')).toBe(older.configDigest);
  });

  test('restores a reference that was set by a command that failed afterwards', async () => {
    const store = new RacingStore();
    await step(store, older, { turn: now });
    store.images.set(one.configDigest, { diffIds: [], labels: {}, platform, config: {} });
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

  test('is waited for and released; after a while the step continues without it, with a warning', async () => {
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
        expect.stringMatching(/^Waiting for another step that sets app:1: process \d+ of uid/),
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
