import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import { makeImage } from '../fixtures/image.ts';
import { handOverMade } from '../fixtures/lying-artifact.ts';
import { type PlainServer, startPlainServer } from '../fixtures/plain-server.ts';
import { errorCode, errorMessage, type Scenario, startScenario } from '../fixtures/scenario.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';

// HTTP allows a server to respond to a range request with the whole blob (RFC 9110 section 14.2).

let scenario: Scenario;
let server: PlainServer | undefined;
afterEach(async () => {
  await server?.stop();
  server = undefined;
  await scenario.end();
});

const image = makeImage({ layers: 3, layerBytes: 1_000_000, gzip: false });
const artifactSize = (): number => scenario.service.artifacts[0]?.size ?? 0;
const tags = (): readonly string[] => scenario.docker.state().images.flatMap((one) => one.tags);

/** Starts Python's file server with an artifact's blob, changed by `change`. */
async function onPlainServer(change: (blob: Buffer) => Buffer = (blob) => blob): Promise<PlainServer> {
  scenario = await startScenario({ image });
  await handOverMade(scenario.service, image);
  scenario.docker.set({ images: [], calls: [] });
  const { service, directory } = scenario;
  const blob = await copiedBytes(service.blobs.read(service.artifacts[0]?.blob ?? '', 0, artifactSize()));
  await writeFile(join(directory, 'blob.zip'), change(blob));
  server = await startPlainServer(directory);
  const body = JSON.stringify({ signed_url: `${server.url}/blob.zip?sig=secret` });
  service.faults.add({ on: 'GetSignedArtifactURL', times: 99, effect: { kind: 'status', status: 200, body } });
  return server;
}

describe('a server that ignores ranges', () => {
  test.each(['classic', 'containerd'] as const)(
    'the whole blob is read once and loaded into the %s store (S0.4)',
    async (store) => {
      const { requests } = await onPlainServer();
      scenario.docker.set({ store });
      const outcome = await scenario.loads();
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs).toMatchObject({
        loaded: 'true',
        'config-digest': image.configDigest,
        source: 'artifact',
      });
      expect(outcome.log).toContain('it is downloaded as a whole');
      expect(outcome.outputs['size']).toBe(String(artifactSize()));
      expect(outcome.log.match(/^Downloaded: /gm)).toHaveLength(1);
      // One request for a range, and one for the whole blob.
      expect(requests).toHaveLength(2);
      expect(outcome.leftInTemp).toEqual([]);
      expect(tags()).toEqual(['charon:local']);

      const again = await scenario.loads();
      expect(again.outputs).toMatchObject({ loaded: 'false', source: 'engine', size: String(artifactSize()) });
    },
  );

  test('damage is found before the engine receives a byte (S0.8)', async () => {
    await onPlainServer((blob) => {
      blob[1_500_000] = (blob[1_500_000] ?? 0) ^ 0xff;
      return blob;
    });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(outcome.leftInTemp).toEqual([]);
    expect(scenario.docker.state().calls.filter(([command]) => command === 'load' || command === 'pull')).toEqual([]);
  });

  test.each([
    ['shorter', (blob: Buffer) => blob.subarray(0, 1_500_000)],
    ['longer', (blob: Buffer) => Buffer.concat([blob, blob])],
  ])('a blob that is %s than the service lists', async (_, change) => {
    await onPlainServer(change);
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(errorMessage(outcome)).toContain(`lists ${String(artifactSize())}`);
    expect(outcome.leftInTemp).toEqual([]);
    expect(tags()).toEqual([]);
  });
});

describe('a service that ignores ranges', () => {
  test.each<[string, Fault]>([
    ['the connection is reset', { on: 'get', after: 1, times: 2, effect: { kind: 'reset', afterBytes: 1_500_000 } }],
    ['the body ends early', { on: 'get', after: 1, times: 2, effect: { kind: 'short', afterBytes: 1_500_000 } }],
    ['the store is busy', { on: 'get', after: 1, times: 2, effect: { kind: 'status', status: 503 } }],
    ['the signed URL has expired', { on: 'get', after: 1, times: 2, effect: { kind: 'status', status: 403 } }],
  ])('%s: the whole blob is requested again', async (_, fault) => {
    scenario = await startScenario({ image, service: { ignoresRanges: true } });
    await handOverMade(scenario.service, image);
    scenario.service.faults.add(fault);
    const outcome = await scenario.loads();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ loaded: 'true', 'config-digest': image.configDigest });
    expect(outcome.log).toContain('attempt 1 of 6, the next');
    expect(outcome.leftInTemp).toEqual([]);
  });

  test('a connection that keeps breaking: transfer-failed, and nothing is left behind', async () => {
    scenario = await startScenario({ image, service: { ignoresRanges: true } });
    await handOverMade(scenario.service, image);
    scenario.service.faults.add({ on: 'get', after: 1, times: 50, effect: { kind: 'status', status: 400 } });
    const outcome = await scenario.loads();
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect([outcome.leftInTemp, tags()]).toEqual([[], []]);
  });

  test('the artifact of another run is loaded (S3.3)', async () => {
    scenario = await startScenario({ image, service: { ignoresRanges: true } });
    scenario.service.addRun({ id: 100 });
    await handOverMade(scenario.service, image, { job: { runId: '100' } });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ loaded: 'true', 'run-id': '100', 'config-digest': image.configDigest });
    expect(outcome.leftInTemp).toEqual([]);
  });
});
