import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { makeImage, type FixtureImage } from '../fixtures/image.ts';
import { contentOf, plan, RacingStore, silent } from '../fixtures/racing-store.ts';
import type { IntoTools } from '../../load-image/into/into-holders.ts';
import { loadArtifact } from '../../load-image/load-image.ts';
import { timeline } from '../../shared/base/timeline.ts';
import type { Holder } from '../../shared/docker/holders.ts';

// Several steps load images into the nodes of one cluster. In containerd an import waits while another one writes the same blob, so
// two simultaneous imports could wait for each other forever (load-image/into/into-holders.ts). The test decides when a node continues an import:
// only after each other step is importing, is waiting for its turn, or has ended.

const images = Array.from({ length: 3 }, () => makeImage({ layers: 1, layerBytes: 1000 }));
let clusters = 0;

class Cluster {
  readonly stores = [new RacingStore(), new RacingStore()] as const;
  /** The starts and ends of each node's imports. */
  readonly imports: readonly string[][] = this.stores.map(() => []);
  readonly #names: readonly string[];
  readonly #turn: (what: string) => Promise<unknown>;
  readonly #coming: Set<string>;
  readonly #allHaveCome = Promise.withResolvers<undefined>();

  /** @param steps the names of all steps that will start */
  constructor(steps: readonly string[], turn: (what: string) => Promise<unknown>) {
    clusters += 1;
    this.#names = this.stores.map((_, at) => `node-${String(process.pid)}-${String(clusters)}-${String(at)}`);
    this.#coming = new Set(steps);
    this.#turn = turn;
  }

  /** Called when a step is importing, is waiting, or has ended. */
  hasCome(step: string): void {
    this.#coming.delete(step);
    if (this.#coming.size === 0) this.#allHaveCome.resolve(undefined);
  }

  /** Returns the nodes for a step. */
  nodesOf(step: string): readonly Holder[] {
    return this.stores.map((store, at) => {
      const [name = '', imports] = [this.#names[at], this.imports[at]];
      const engine = store.engine(() => Promise.resolve());
      const load: typeof engine.load = async (chunks) => {
        imports?.push('begin');
        this.hasCome(step);
        await this.#allHaveCome.promise;
        await this.#turn(`${name} imports ${step}`);
        const loaded = await engine.load(chunks);
        imports?.push('end');
        return loaded;
      };
      return { node: name, engine: { ...engine, load, forCleanUp: engine } };
    });
  }
}

async function run(cluster: Cluster, image: FixtureImage, name: string): Promise<void> {
  const [store] = cluster.stores;
  const info = (line: string): void => {
    if (line.startsWith('Waiting for another image')) cluster.hasCome(name);
  };
  const tools: IntoTools = {
    holders: cluster.nodesOf(name),
    log: { ...silent, info },
    timeline: timeline(),
    signal: new AbortController().signal,
  };
  const content = contentOf(image, [name]);
  await loadArtifact(
    plan,
    tools,
    { origin: 'artifact', content, record: undefined, identified: undefined },
    store.info,
  );
}

test('property: in any order of steps and nodes, a node imports one image after another, and finally has all images', async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.integer({ min: 2, max: images.length }), async (turns, count) => {
      const turn = (what: string): Promise<unknown> => turns.schedule(Promise.resolve(), what);
      const chosen = images.slice(0, count).map((image, at) => [`app:${String(at)}`, image] as const);
      const names = chosen.map(([name]) => name);
      const cluster = new Cluster(names, turn);
      const steps = chosen.map(async ([name, image]) => {
        await turn(`${name} comes`);
        await run(cluster, image, name).finally(() => {
          cluster.hasCome(name);
        });
      });
      await turns.waitFor(Promise.all(steps));
      for (const imports of cluster.imports) expect(imports).toEqual(names.flatMap(() => ['begin', 'end']));
      for (const { tags } of cluster.stores) expect([...tags.keys()].sort()).toEqual(names);
    }),
    { numRuns: 10 },
  );
}, 60_000);
