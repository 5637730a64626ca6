import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { claimName } from '../../export-image/upload.ts';
import type { Artifact, ArtifactStore } from '../../shared/artifacts/store.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { digestOf } from '../../shared/image/digest.ts';
import type { Producer } from '../../shared/image/record.ts';
import { codeOf } from '../fixtures/any-bytes.ts';

const name = 'docker-image';
const job = (jobKey: string, runAttempt: number): Producer => ({
  ...{ repository: 'org/charon', runId: '1', commit: 'abc' },
  ...{ jobKey, runAttempt },
});

/** Returns a record that names the artifact's producer. */
const recordOf = (producer: Producer): string =>
  JSON.stringify({
    ...{ schema: 1, references: ['charon:local'], platform: 'linux/amd64', configDigest: digestOf('config') },
    ...{ manifestDigests: [digestOf('manifest')], diffIds: [], labels: {}, layers: [], further: [] },
    ...{ tarballName: 'charon.tar', tarballSize: 10_000, tarballDigest: digestOf('tar'), tarballCompression: 'none' },
    producer,
  });

/** The artifacts of a run. The scheduler orders the calls of its stores. */
class Run {
  readonly artifacts = new Map<number, Producer>();
  readonly removed: Producer[] = [];
  readonly #turn: (what: string) => Promise<unknown>;

  constructor(turn: (what: string) => Promise<unknown>) {
    this.#turn = turn;
  }

  add(producer: Producer): Artifact {
    const id = this.artifacts.size + this.removed.length + 1;
    this.artifacts.set(id, producer);
    return { id, name, size: 1 };
  }

  /** Returns the run's artifacts for one of its jobs. The service reserves a name for the first upload with that name. */
  seenBy(producer: Producer): ArtifactStore {
    return {
      list: async () => {
        await this.#turn('lists');
        return [...this.artifacts.keys()].map((id) => ({ id, name, size: 1 }));
      },
      open: async (artifact) => {
        await this.#turn('reads the record');
        const owner = this.artifacts.get(artifact.id);
        if (owner === undefined) throw new HandoverError('artifact-not-found', 'It is gone.', 'Look again.');
        const text = (): Promise<string> => Promise.resolve(recordOf(owner));
        const nothing = { read: () => unused(), ranges: () => unused(), downloaded: () => undefined };
        return { artifact, files: [], text, ...nothing };
      },
      upload: async () => {
        await this.#turn('uploads');
        if (this.artifacts.size > 0) throw new HandoverError('artifact-name-taken', 'It is taken.', 'Take another.');
        return this.add(producer);
      },
      remove: async ({ id }) => {
        await this.#turn('removes');
        const owner = this.artifacts.get(id);
        if (owner !== undefined) this.removed.push(owner);
        this.artifacts.delete(id);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
}

function unused(): never {
  throw new Error('A claim reads the record only.');
}

async function* noFiles(): AsyncGenerator<never> {
  // Nothing is uploaded but the name.
}

/** Does what export-image does with a name, from the look-up to the upload. */
async function handOver(run: Run, producer: Producer): Promise<void> {
  const store = run.seenBy(producer);
  const release = await claimName({ artifactName: name, whenTaken: 'fail' }, { store, producer });
  await release();
  await store.upload({ name, retentionDays: 1, files: noFiles(), onBytes: () => undefined });
}

test('property: when several steps want a name, exactly one gets it in any order, and the others fail with an error (S2.5)', () =>
  fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.option(fc.constantFrom('build/0', 'test/0', 'another/0'), { nil: undefined }),
      async (turns, earlier) => {
        const run = new Run((what) => turns.schedule(Promise.resolve(), what));
        const before = earlier === undefined ? undefined : job(earlier, 1);
        if (before !== undefined) run.add(before);
        // Two of them are steps of the same job.
        const contenders = [job('build/0', 2), job('build/0', 2), job('test/0', 2)];
        const codes = await turns.waitFor(
          Promise.all(contenders.map((producer) => codeOf(() => handOver(run, producer)))),
        );
        // Only an earlier attempt of the same job is replaced, and only by that job.
        expect(run.removed).toEqual(before !== undefined && earlier !== 'another/0' ? [before] : []);
        const winners = contenders.filter((_, at) => codes[at] === undefined);
        expect([...run.artifacts.values()]).toEqual(earlier === 'another/0' ? [before] : winners);
        expect(winners).toHaveLength(earlier === 'another/0' ? 0 : 1);
        for (const code of codes) expect([undefined, 'artifact-name-taken']).toContain(code);
      },
    ),
    { numRuns: 300 },
  ));
