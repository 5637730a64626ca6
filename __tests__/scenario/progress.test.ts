import { afterEach, describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { FakeState } from '../fakes/docker/state.ts';
import { makeImage } from '../fixtures/image.ts';
import { errorCode, type Scenario, startScenario } from '../fixtures/scenario.ts';

// The log shows the bytes that were transferred.

let scenario: Scenario;
afterEach(() => scenario.end());

const image = makeImage({ layers: 2, layerBytes: 8_000_000, compressible: true });
const plain = makeImage({ layers: 3, layerBytes: 2_000_000, gzip: false });

/** Loads on an engine that has the image's first layers, under another tag. */
async function loadWith(
  held: number,
  { handed = image, ...state }: Partial<FakeState> & { readonly handed?: typeof image },
  inputs: Readonly<Record<string, string>> = {},
): Promise<StepOutcome> {
  scenario = await startScenario({ image: handed });
  await scenario.exports();
  const older = { imageId: 'sha256:old', tags: ['charon:old'], architecture: 'amd64', labels: {} };
  const diffIds = [...handed.diffIds.slice(0, held), 'sha256:other'];
  scenario.docker.set({ calls: [], ...state, images: held === 0 ? [] : [{ ...older, diffIds }] });
  const outcome = await scenario.loads(inputs);
  expect(outcome.log).not.toContain('::error');
  return outcome;
}

const lines = ({ log }: StepOutcome, word: string): readonly string[] =>
  log.split('\n').filter((line) => line.startsWith(word));

const row = ({ summary }: StepOutcome, name: string): string =>
  new RegExp(`^\\| ${name} \\| (.*) \\|$`, 'm').exec(summary)?.[1] ?? '';

describe.each(['classic', 'containerd'] as const)('a load into the %s store (S2.8)', (store) => {
  test('that has all layers shows this, and that nothing was decompressed', async () => {
    const outcome = await loadWith(2, { store });
    expect(outcome.outputs).toMatchObject({ size: '0', loaded: 'true' });
    expect(lines(outcome, 'Downloaded')).toEqual(['Downloaded: nothing']);
    expect(outcome.log).not.toContain('Unpacked for the engine');
    expect(row(outcome, 'Downloaded')).toBe('nothing: the engine had all layers');
    // Nothing was downloaded: the chart shows no download either.
    expect(outcome.summary).toMatch(/^ {4}Load \([\d.]+ m?s\)/m);
  });

  test('that lacks one layer shows only the bytes of that layer', async () => {
    const outcome = await loadWith(1, { store });
    expect(lines(outcome, 'Downloaded')).toEqual([
      expect.stringMatching(/^Downloaded: done, [\d.]+ [kM]B in [\d.]+ s/),
    ]);
    // A containerd store keeps layers compressed, as in the manifest.
    const unpacked = 'Unpacked for the engine: 1 of the 1 layers that it requested.';
    expect(lines(outcome, 'Unpacked')).toEqual(store === 'classic' ? [unpacked] : []);
  });

  test('that lacks one layer: the summary shows that the others were present', async () => {
    const outcome = await loadWith(1, { store });
    expect(row(outcome, 'Downloaded')).toMatch(/^4\.\d MB; the engine had the rest$/);
    expect(outcome.summary).toMatch(/^ {4}Download and load \(/m);
  });

  test('that lacks all layers shows all bytes', async () => {
    for (const overlap of ['true', 'false']) {
      const outcome = await loadWith(0, { store, handed: plain }, { overlap });
      expect(lines(outcome, 'Downloaded')).toEqual([expect.stringMatching(/^Downloaded: done, 6\.\d MB in/)]);
      expect(outcome.log).not.toContain(' %');
      expect(row(outcome, 'Downloaded')).toMatch(/^6\.\d MB$/);
      if (overlap === 'true') await scenario.end();
    }
  });
});

describe('the duration of the run', () => {
  test('is in the summary of the load: when the image was built and ready, and the duration of this job', async () => {
    const outcome = await loadWith(0, {});
    expect(row(outcome, 'Built')).toMatch(/^once, in [\d.]+ m?s; ready [\d.]+ m?s before this step began$/);
    expect(row(outcome, 'Took here')).toMatch(/^[\d.]+ m?s$/);
    const chart = (/```mermaid\n([\s\S]*?)```/.exec(outcome.summary)?.[1] ?? '').split('\n');
    expect(chart.map((line) => line.trim().replace(/ \(.*/, ''))).toEqual([
      'gantt',
      'dateFormat x',
      'axisFormat %S.%L s',
      'Find',
      'Download and load',
      '',
    ]);
  });

  test('of the build is the same in both jobs', async () => {
    scenario = await startScenario();
    const [, build] = /^ {4}Build \((.+?)\) :/m.exec((await scenario.exports()).summary) ?? [];
    expect(row(await scenario.loads(), 'Built')).toContain(`once, in ${String(build)};`);
  });

  test('is in the summary of the export', async () => {
    scenario = await startScenario();
    const outcome = await scenario.exports();
    expect(row(outcome, 'Property')).toBe('Value');
    expect(row(outcome, 'From build to handover')).toMatch(/^[\d.]+ m?s$/);
  });

  test('does not mention another job if this one built the image itself', async () => {
    scenario = await startScenario();
    const outcome = await scenario.exports({}, { action: '.' });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.summary).toContain('Loaded and verified');
    expect(row(outcome, 'Built')).toBe('');
  });
});

test('a failed upload is never shown as finished (S2.8)', async () => {
  scenario = await startScenario({ image: plain });
  scenario.service.faults.add({ on: 'put-block', times: 50, effect: { kind: 'status', status: 400 } });
  const outcome = await scenario.handOver();
  expect(errorCode(outcome)).toBe('transfer-failed');
  expect(lines(outcome, 'Uploaded')).toEqual([]);
});

test('an interrupted upload shows its progress (S2.8)', async () => {
  scenario = await startScenario({ image: plain });
  scenario.service.faults.add({ on: 'put-block-list', times: 50, effect: { kind: 'status', status: 400 } });
  const outcome = await scenario.handOver();
  expect(errorCode(outcome)).toBe('transfer-failed');
  expect(lines(outcome, 'Uploaded')).toEqual([expect.stringMatching(/^Uploaded: interrupted after 6\.\d MB/)]);
});

test('the artifact that was found is shown under its heading (S2.8)', async () => {
  const { log } = await loadWith(0, {});
  expect(log).toMatch(
    /::group::Find the artifact\n(?:::add-mask::.*\n)*Artifact "docker-image": id \d+, .*\n::endgroup::/,
  );
});

test('a transfer of a few bytes shows no speed (S2.8)', async () => {
  const small = makeImage({ layers: 1, layerBytes: 2000 });
  const outcome = await loadWith(0, { handed: small });
  expect(lines(outcome, 'Downloaded')).toEqual([expect.stringMatching(/^Downloaded: done, [\d.]+ kB in [\d.]+ m?s$/)]);
});
