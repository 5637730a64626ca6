import { describe, expect, test } from '@jest/globals';
import type { EngineClient } from '../../dev/docker-engine.ts';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { JsonObject } from '../../shared/base/json.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { engines, pruneAfterEach, service, useEngines } from '../fixtures/engine-suite.ts';
import { type Inputs, namesOn, seed, shareOn, stepOn, waysToLoad } from '../fixtures/engines.ts';
import { type FixtureImage, makeImage, savedTogether } from '../fixtures/image.ts';
import { artifactOf, publish, recordOf } from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';

// Several images in one artifact, and artifacts with false records. Expectations are compared with the chosen image, and no name
// may point to an image other than the one that the step reports.

useEngines();
pruneAfterEach();

const revision = 'org.opencontainers.image.revision';
const first = makeImage({ labels: { [revision]: 'abc123' } });
const second = makeImage({ labels: { [revision]: 'def456' } });
const named = { first: 'first:local', second: 'second:local' } as const;

type Store = 'classic' | 'containerd';
const ways = waysToLoad();

const idIn = (store: Store, { configDigest, manifestDigest }: FixtureImage): Digest =>
  store === 'classic' ? configDigest : manifestDigest;
const idOf = (engine: EngineClient, name: string): string =>
  engine.docker('image', 'inspect', '--format', '{{.Id}}', name).trim();
const load = (engine: EngineClient, inputs: Inputs): Promise<StepOutcome> =>
  stepOn(service, engine, 'load-image', inputs);

interface Both {
  readonly tarball: Buffer;
  readonly record: JsonObject;
  readonly further: JsonObject;
}

/** Creates one artifact of both images, with a correct record of each. */
function bothImages(): Both {
  const tarball = savedTogether([
    [first, [named.first]],
    [second, [named.second]],
  ]);
  const one = recordOf(first, tarball, { [revision]: 'abc123' });
  const other = { ...recordOf(second, tarball, { [revision]: 'def456' }), references: [named.second] };
  return { tarball, record: { ...one, references: [named.first], further: [other] }, further: other };
}

/** The record of a whole tarball. */
function whole(tarball: Buffer): JsonObject {
  return { tarballSize: tarball.length, tarballDigest: digestOf(tarball) };
}

describe.each(ways)('on the %s store, overlap: %s', (store, overlap) => {
  const kinds: readonly (readonly [string, boolean])[] = [
    ['with a record', true],
    ['without a record', false],
  ];
  test.each(shareOn(store, kinds))(
    'expectations are compared with the image that `image` chooses, and only that one is loaded, %s (S0.4, S3.1)',
    async (_, hasRecord) => {
      const engine = engines[store];
      const { tarball, record } = bothImages();
      await publish(service, { tarball, record: hasRecord ? record : undefined });
      for (const [image, commit, name, other] of [
        [first, 'abc123', named.first, second],
        [second, 'def456', named.second, first],
      ] as const) {
        for (const loaded of ['true', hasRecord ? 'false' : 'true']) {
          const inputs = { overlap, image: name, 'expected-revision': commit };
          const outcome = await load(engine, { ...inputs, 'expected-config-digest': image.configDigest });
          expect(outcome.log).not.toContain('::error');
          expect(outcome.outputs).toMatchObject({ image: name, 'config-digest': image.configDigest, loaded });
          expect(idOf(engine, name)).toBe(idIn(store, image));
          expect(namesOn(engine)).toEqual([name]);
        }
        engine.docker('image', 'rm', name);
        const wrong = await load(engine, { overlap, image: name, 'expected-config-digest': other.configDigest });
        expect(errorCode(wrong)).toBe('image-mismatch');
        expect(errorMessage(wrong)).toContain(image.configDigest);
        const built = await load(engine, { overlap, image: name, 'expected-revision': '000000' });
        expect(errorCode(built)).toBe('revision-mismatch');
        expect(namesOn(engine)).toEqual([]);
      }
    },
  );

  test('all images are loaded under their own names if none is chosen (S3.1)', async () => {
    const engine = engines[store];
    const { tarball, record } = bothImages();
    for (const said of shareOn(store, [undefined, record])) {
      await publish(service, { tarball, record: said });
      const outcome = await load(engine, { overlap, 'expected-config-digest': first.configDigest });
      expect(outcome.log).not.toContain('::error');
      expect(namesOn(engine)).toEqual([named.first, named.second]);
      expect(idOf(engine, named.first)).toBe(idIn(store, first));
      expect(idOf(engine, named.second)).toBe(idIn(store, second));
      engine.docker('image', 'rm', named.first, named.second);
    }
  });

  test('if two images claim one name, neither passes under the other’s name, and the old image of that name is kept (S0.4, S2.7)', async () => {
    const engine = engines[store];
    const { tarball, record, further } = bothImages();
    const before = makeImage({ layers: 1 });
    seed(engine, before, [named.first]);
    const tags = savedTogether([
      [first, ['one:local', named.first]],
      [second, ['other:local', named.first]],
    ]);
    const claim = (references: readonly string[]): JsonObject => ({
      ...record,
      further: [{ ...further, references }],
    });
    const claims: readonly (readonly [Buffer, JsonObject | undefined])[] = [
      [tarball, claim([named.first])],
      [tarball, claim([named.second, `docker.io/library/${named.first}`])],
      [tags, undefined],
    ];
    for (const [content, said] of shareOn(store, claims)) {
      await publish(service, { tarball: content, record: said });
      const outcome = await load(engine, { overlap, 'expected-config-digest': first.configDigest });
      expect(outcome.exitCode).toBe(1);
      expect(['artifact-corrupt', 'image-mismatch', 'tarball-invalid']).toContain(errorCode(outcome));
      expect(errorMessage(outcome)).toContain(named.first);
      expect(namesOn(engine)).toEqual([named.first]);
      expect(idOf(engine, named.first)).toBe(idIn(store, before));
    }
  });

  const zeros = `sha256:${'0'.repeat(64)}`;
  const lies: readonly (readonly [string, (further: JsonObject, record: JsonObject) => JsonObject])[] = [
    ['config digest', (further) => ({ ...further, configDigest: zeros })],
    ['config digest of the first', (further, record) => ({ ...further, configDigest: record['configDigest'] })],
    ['all but the name of the first', (further, record) => ({ ...record, references: further['references'] })],
    ['config of the first', (further, record) => ({ ...further, configAt: record['configAt'] })],
    ['manifest of the first', (further, record) => ({ ...further, manifestAt: record['manifestAt'] })],
    ['layers of the first', (further, record) => ({ ...further, layers: record['layers'] })],
    ['diff IDs of the first', (further, record) => ({ ...further, diffIds: record['diffIds'] })],
    ['no layers', (further) => ({ ...further, layers: [] })],
    ['a place beyond the end', (further) => ({ ...further, configAt: { offset: 2 ** 40, size: 9 } })],
    ['no references', (further) => ({ ...further, references: [] })],
    ['platform', (further) => ({ ...further, platform: 'linux/s390x' })],
  ];

  test('a false claim of the second record is an error or has no effect; the first image is correct or not loaded (S0.4, S3.1)', async () => {
    const engine = engines[store];
    const { tarball, record, further } = bothImages();
    for (const [what, lie] of shareOn(store, lies)) {
      await publish(service, { tarball, record: { ...record, further: [lie(further, record)] } });
      for (const inputs of [{ overlap }, { overlap, image: named.first }]) {
        const outcome = await load(engine, inputs);
        expect([what, outcome.log]).toEqual([what, expect.not.stringContaining('defect')]);
        const names = namesOn(engine);
        if (outcome.exitCode !== 0) {
          expect([what, errorCode(outcome), ...names]).toEqual([what, 'artifact-corrupt']);
          continue;
        }
        expect([what, idOf(engine, named.first)]).toEqual([what, idIn(store, first)]);
        // A second name of the first image comes from its record, and is correct.
        const isFirst = what === 'all but the name of the first' && !('image' in inputs);
        expect([what, ...names]).toEqual([what, named.first, ...(isFirst ? [named.second] : [])]);
        if (isFirst) expect(idOf(engine, named.second)).toBe(idIn(store, first));
        engine.docker('image', 'rm', ...names);
      }
    }
  });

  test('a damaged layer of the second image never becomes an image (S0.4, S3.1)', async () => {
    const engine = engines[store];
    const { tarball, record } = bothImages();
    const at = tarball.indexOf(second.blobs.get(second.layerDigests[1] ?? second.configDigest) ?? 'none') + 2000;
    expect(at).toBeGreaterThan(2000);
    const damaged = Buffer.from(tarball);
    damaged.writeUInt8(damaged.readUInt8(at) ^ 1, at);
    await publish(service, { tarball: damaged, record: { ...record, ...whole(damaged) } });
    for (const inputs of shareOn(store, [{ overlap }, { overlap, image: named.second }])) {
      const outcome = await load(engine, inputs);
      expect(outcome.exitCode).toBe(1);
      expect(['artifact-corrupt', 'tarball-invalid']).toContain(errorCode(outcome));
      expect(namesOn(engine)).toEqual([]);
    }
    const chosen = await load(engine, { overlap, image: named.first });
    if (chosen.exitCode === 0) expect(idOf(engine, named.first)).toBe(idIn(store, first));
    else expect(errorCode(chosen)).toBe('artifact-corrupt');
    expect(namesOn(engine)).toEqual(chosen.exitCode === 0 ? [named.first] : []);
  });

  test('an artifact with too many images is an error, not a smaller artifact (S0.4, S3.1)', async () => {
    const engine = engines[store];
    const { tarball, record, further } = bothImages();
    const many = Array.from({ length: 101 }, (_, at) => ({ ...further, references: [`further:${String(at)}`] }));
    for (const said of shareOn(store, [many, [further, 'text'], 'text'])) {
      await publish(service, { tarball, record: { ...record, further: said } });
      const outcome = await load(engine, { overlap });
      expect(errorCode(outcome)).toBe('artifact-corrupt');
      expect(namesOn(engine)).toEqual([]);
    }
  });

  test.each(shareOn(store, ['SHA256:', 'docker.io/library/sha256:', 'library/sha256:']))(
    'a reference that looks like an image ID (%s…) is never used as a name, so no green step loses its image (S0.4)',
    async (prefix) => {
      const engine = engines[store];
      const { record, tarball } = artifactOf(first, [named.first]);
      const id = idIn(store, first).slice('sha256:'.length);
      for (const hex of [id, id.slice(0, 12), id.slice(0, 4)]) {
        await publish(service, { tarball, record: { ...record, references: [`${prefix}${hex}`] } });
        const outcome = await load(engine, { overlap });
        expect([hex, errorCode(outcome), ...namesOn(engine)]).toEqual([hex, 'artifact-corrupt']);
      }
      const asked = await load(engine, { overlap, image: `${prefix}${id}` });
      expect([errorCode(asked), ...namesOn(engine)]).toEqual(['invalid-input']);
    },
  );
});
