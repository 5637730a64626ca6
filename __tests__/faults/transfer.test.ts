import { existsSync } from 'node:fs';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import { makeImage } from '../fixtures/image.ts';
import { handOverMade } from '../fixtures/lying-artifact.ts';
import { errorCode, type Scenario, type ScenarioOptions, shortPauses, startScenario } from '../fixtures/scenario.ts';

let scenario: Scenario;
const begin = async (options?: ScenarioOptions): Promise<Scenario> => (scenario = await startScenario(options));
afterEach(() => scenario.end());

const handOverIt = (): Promise<void> => handOverMade(scenario.service, scenario.image);

// 12 MB: several parts of a download, several blocks of an upload.
const image = makeImage({ layers: 3, layerBytes: 4_000_000, gzip: false });
// Enough parts that some take far longer than the others.
const large = makeImage({ layers: 3, layerBytes: 10_000_000, gzip: false });
const small = makeImage({ layers: 1, layerBytes: 1000, gzip: false });
const garbage = { kind: 'status', status: 200, body: '<html>maintenance</html>' } as const;
const unknown = { kind: 'unknown-answer', body: '{"items":[]}' } as const;
const renamed = { kind: 'status', status: 200, body: '{"items":[]}' } as const;

describe('a download resumes where it was interrupted', () => {
  test.each<[string, Fault]>([
    [
      'the connection is reset in the middle of a part',
      { on: 'get', after: 2, times: 3, effect: { kind: 'reset', afterBytes: 1_500_000 } },
    ],
    [
      'the body ends early without an error',
      { on: 'get', after: 2, times: 3, effect: { kind: 'short', afterBytes: 1_500_000 } },
    ],
    ['the store is busy', { on: 'get', times: 3, effect: { kind: 'status', status: 503 } }],
    ['the signed URL has expired', { on: 'get', after: 3, times: 2, effect: { kind: 'status', status: 403 } }],
    ['the control plane is busy', { on: 'ListArtifacts', times: 2, effect: { kind: 'status', status: 500 } }],
  ])('%s', async (_, fault) => {
    const { loads, service } = await begin({ image });
    await handOverIt();
    const before = service.traffic.down;
    service.faults.add(fault);
    const outcome = await loads({}, { env: shortPauses });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['loaded']).toBe('true');
    // Resumed, not restarted: an interrupted part costs less than one additional part.
    expect(service.traffic.down - before).toBeLessThan(12_200_000 + 3 * 2_200_000);
  });

  test.each<[string, Fault['effect']]>([
    ['trickles', { kind: 'trickle', bytesPerSecond: 10_000 }],
    ['hangs', { kind: 'hang', ms: 25_000 }],
  ])('one connection %s: its part is requested again, and the first response is used', async (_, effect) => {
    const { loads, service } = await begin({ image: large });
    await handOverIt();
    const before = service.traffic.down;
    service.faults.add({ on: 'get', after: 6, times: 2, effect });
    const outcome = await loads();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['loaded']).toBe('true');
    const again = outcome.log.match(/^Bytes \d+-\d+ of the download take far longer than their neighbours/gm) ?? [];
    expect([1, 2]).toContain(again.length);
    const told = `asked twice: ${String(again.length)}, ${String(again.length)} of them with success`;
    expect(outcome.log.split('\n')).toContainEqual(expect.stringContaining(told));
    expect(outcome.summary).toContain(told);
    expect(service.traffic.down - before).toBeLessThan(30_200_000 + 2 * 2_200_000);
    // At 10 kB/s, or after 25 s, these two parts would not have arrived by now.
    expect(outcome.log).not.toContain('attempt 1 of 6');
  });

  test.each<[string, Fault['effect']]>([
    ['come from another offset', { kind: 'elsewhere', offset: 3_000_000 }],
    ['have a wrong Content-Range', { kind: 'wrong-range' }],
    ['are the whole blob', { kind: 'whole' }],
  ])('bytes of another part that %s never reach the engine as valid bytes', async (_, effect) => {
    const { loads, service, docker } = await begin({ image });
    await handOverIt();
    service.faults.add({ on: 'get', after: 4, times: 1, effect });
    const outcome = await loads();
    if (outcome.exitCode === 0) expect(outcome.outputs['config-digest']).toBe(image.configDigest);
    else {
      expect(errorCode(outcome)).toBe('artifact-corrupt');
      expect(docker.state().images).toEqual([]);
    }
    expect(outcome.log).not.toContain('defect');
    expect((await loads()).outputs['loaded']).toBeDefined();
  });

  test('bytes that change during the transfer: artifact-corrupt, no tag, no file', async () => {
    const { loads, service, docker, directory } = await begin({ image });
    await handOverIt();
    service.faults.add({ on: 'get', after: 4, effect: { kind: 'flip', offset: 1000 } });
    const kept = `${directory}/kept.tar`;
    const outcome = await loads({ tarball: kept });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(docker.state().images).toEqual([]);
    expect(existsSync(kept)).toBe(false);
  });
});

describe('an upload', () => {
  test.each<[string, Fault]>([
    ['a block is reset', { on: 'put-block', times: 2, effect: { kind: 'reset', afterBytes: 100_000 } }],
    [
      'the store is busy',
      { on: 'put-block', times: 2, effect: { kind: 'status', status: 503, headers: { 'retry-after': '1' } } },
    ],
    ['the block list is refused once', { on: 'put-block-list', effect: { kind: 'status', status: 500 } }],
    ['finalising is refused once', { on: 'FinalizeArtifact', effect: { kind: 'status', status: 502 } }],
  ])('continues if %s', async (_, fault) => {
    const { handOver, loads, service } = await begin({ image });
    service.faults.add(fault);
    expect((await handOver()).outputs['run-integration']).toBe('true');
    expect((await loads()).outputs['loaded']).toBe('true');
  });
});

describe('the official client takes over, with a notice', () => {
  test.each([
    ['ListArtifacts', garbage],
    ['ListArtifacts', renamed],
    ['GetSignedArtifactURL', renamed],
  ] as const)('if %s responds with %j', async (method, effect) => {
    const { loads, service } = await begin({ image: small });
    await handOverIt();
    service.faults.add({ on: method, effect });
    const outcome = await loads();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ image: 'charon:local', loaded: 'true' });
    expect(outcome.annotations).toContainEqual(
      expect.objectContaining({ level: 'notice', message: expect.stringContaining('official client') }),
    );
    expect(outcome.leftInTemp).toEqual([]);
  });

  test('if CreateArtifact reserves the name but its response is unknown: the reservation is removed first', async () => {
    const { handOver, loads, service } = await begin({ image: small });
    service.faults.add({ on: 'CreateArtifact', effect: unknown });
    const outcome = await handOver();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.log).toContain('official client');
    expect(service.artifacts.filter(({ name }) => name === 'docker-image')).toMatchObject([{ finalised: true }]);
    expect((await loads()).outputs['loaded']).toBe('true');
  });

  test('if the response to CreateArtifact is unknown, another job’s artifact with that name is kept', async () => {
    const { handOver, service } = await begin({ image: small });
    await handOver();
    service.faults.add({ on: 'CreateArtifact', effect: renamed });
    const outcome = await handOver();
    expect(errorCode(outcome)).toBe('artifact-name-taken');
    expect(service.artifacts.filter(({ name }) => name === 'docker-image')).toMatchObject([{ finalised: true }]);
  });

  test('if the response to CreateArtifact is unknown', async () => {
    const { handOver, loads, service } = await begin({ image: small });
    service.faults.add({ on: 'CreateArtifact', effect: renamed });
    const outcome = await handOver();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['run-integration']).toBe('true');
    expect((await loads()).outputs['loaded']).toBe('true');
  });
});

describe('responses that the official client doesn’t understand either', () => {
  test.each([
    ['ListArtifacts', garbage],
    ['ListArtifacts', unknown],
    ['GetSignedArtifactURL', renamed],
  ] as const)('%s with %j ends a load with transfer-failed and a next step', async (method, effect) => {
    const { loads, service, docker } = await begin({ image: small });
    await handOverIt();
    service.faults.add({ on: method, times: 100, effect });
    const outcome = await loads({}, { env: shortPauses });
    expect(outcome.log).not.toContain('defect');
    // The official client reads a response without a list as an empty list.
    expect(['transfer-failed', 'artifact-not-found']).toContain(errorCode(outcome));
    expect(outcome.log).toContain('Next step: ');
    expect(docker.state().images).toEqual([]);
    expect(outcome.leftInTemp).toEqual([]);
  });

  test.each([unknown])(
    'CreateArtifact with %j ends an export in the same way, and leaves no name reserved',
    async (effect) => {
      const { handOver, service } = await begin({ image: small });
      service.faults.add({ on: 'CreateArtifact', times: 100, effect });
      const outcome = await handOver({}, { env: shortPauses });
      expect(outcome.log).not.toContain('defect');
      expect(errorCode(outcome)).toBe('transfer-failed');
      service.faults.clear();
      expect((await handOver()).outputs['run-integration']).toBe('true');
    },
  );
});

// Responses of proxies and maintenance pages, and invalid responses. The unit tests have more of them.
const broken = [
  '',
  '{"artifacts": [null, 5]}',
  '{"ok": true, "signed_upload_url": 5, "signed_url": "file:///etc/passwd"}',
];

describe('any response of the service', () => {
  test.each(
    broken.flatMap((body) => ['ListArtifacts', 'GetSignedArtifactURL'].map((method) => [method, body] as const)),
  )('from %s: %s ends a load with a code and a next step, and leaves nothing behind', async (method, body) => {
    const { loads, service, docker } = await begin({ image: small });
    await handOverIt();
    service.faults.add({ on: method, times: 100, effect: { kind: 'status', status: 200, body } });
    const outcome = await loads({}, { env: shortPauses });
    expect(outcome.exitCode).toBe(1);
    expect(outcome.log).not.toContain('defect');
    expect(['transfer-failed', 'artifact-not-found']).toContain(errorCode(outcome));
    expect(outcome.log).toContain('Next step: ');
    expect([docker.state().images, outcome.leftInTemp]).toEqual([[], []]);
  });

  test.each(broken.flatMap((body) => ['CreateArtifact', 'FinalizeArtifact'].map((method) => [method, body] as const)))(
    'from %s: %s ends an export in the same way',
    async (method, body) => {
      const { handOver, service } = await begin({ image: small });
      service.faults.add({ on: method, times: 100, effect: { kind: 'unknown-answer', body } });
      const outcome = await handOver({}, { env: shortPauses });
      expect(outcome.log).not.toContain('defect');
      const isThere = service.artifacts.some(({ finalised }) => finalised);
      expect([outcome.exitCode === 0, outcome.outputs['run-integration']]).toEqual([isThere, String(isThere)]);
      if (!isThere) expect(['transfer-failed', 'artifact-name-taken']).toContain(errorCode(outcome));
      expect(outcome.leftInTemp).toEqual([]);
      service.faults.clear();
      if (!isThere) expect((await handOver()).outputs['run-integration']).toBe('true');
    },
  );
});

describe('an unknown response to FinalizeArtifact', () => {
  test('counts as a handover if the artifact is listed as it was sent', async () => {
    const { handOver, loads, service } = await begin({ image: small });
    service.faults.add({ on: 'FinalizeArtifact', effect: unknown });
    const outcome = await handOver();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['artifact-id']).toBe(String(service.artifacts[0]?.id));
    expect((await loads()).outputs['loaded']).toBe('true');
  });

  test('is transfer-failed if the artifact isn’t listed, and the name is released', async () => {
    const { handOver, service } = await begin({ image: small });
    service.faults.add({ on: 'FinalizeArtifact', effect: garbage });
    const outcome = await handOver();
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect((await handOver()).outputs['run-integration']).toBe('true');
  });
});
