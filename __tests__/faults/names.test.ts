import { afterEach, describe, expect, test } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import { makeImage } from '../fixtures/image.ts';
import { errorCode, errorMessage, type Scenario, shortPauses, startScenario } from '../fixtures/scenario.ts';

let scenario: Scenario;
afterEach(() => scenario.end());

const image = makeImage({ layers: 2, layerBytes: 1_000_000, gzip: false });
const unfinished = (): readonly string[] =>
  scenario.service.artifacts
    .filter(({ name, finalised }) => name !== '\u0000deleted' && !finalised)
    .map(({ name }) => name);
const listed = (): readonly string[] =>
  scenario.service.artifacts.filter(({ finalised }) => finalised).map(({ name }) => name);

describe('an artifact name that is reserved although the response is lost', () => {
  test.each<[string, Fault]>([
    ['the response to CreateArtifact is lost', { on: 'CreateArtifact', effect: { kind: 'lost-answer' } }],
    ['the response to FinalizeArtifact is lost', { on: 'FinalizeArtifact', effect: { kind: 'lost-answer' } }],
    ['the response to a block is lost', { on: 'put-block', effect: { kind: 'lost-answer' } }],
    ['the response to the block list is lost', { on: 'put-block-list', effect: { kind: 'lost-answer' } }],
  ])('%s: the image is handed over anyway', async (_, fault) => {
    scenario = await startScenario({ image });
    scenario.service.faults.add(fault);
    const outcome = await scenario.handOver();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['run-integration']).toBe('true');
    expect([listed(), unfinished()]).toEqual([['docker-image'], []]);
    expect((await scenario.loads()).outputs['loaded']).toBe('true');
  });

  test('a step was killed during its upload: the next step of its job reuses its name', async () => {
    scenario = await startScenario({ image });
    scenario.service.faults.add({ on: 'put-block', times: 99, effect: { kind: 'hang', ms: 60_000 } });
    const killing = new AbortController();
    const killed = scenario.handOver({}, { signal: killing.signal, killWith: 'SIGKILL' });
    while (unfinished().length === 0) await sleep(20);
    killing.abort();
    await killed;
    expect(unfinished()).toEqual(['docker-image']);
    scenario.service.faults.clear();
    const outcome = await scenario.handOver();
    expect(outcome.log).not.toContain('::error');
    expect([listed(), unfinished()]).toEqual([['docker-image'], []]);
  });

  test('a step of the same job is still uploading: it keeps its name', async () => {
    scenario = await startScenario({ image });
    scenario.service.faults.add({ on: 'put-block', effect: { kind: 'hang', ms: 3000 } });
    const first = scenario.handOver();
    while (unfinished().length === 0) await sleep(20);
    expect(errorCode(await scenario.handOver())).toBe('artifact-name-taken');
    expect((await first).outputs['run-integration']).toBe('true');
    expect([listed(), unfinished()]).toEqual([['docker-image'], []]);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('%s during CreateArtifact leaves no name reserved', async (killWith) => {
    scenario = await startScenario({ image });
    scenario.service.faults.add({ on: 'CreateArtifact', effect: { kind: 'late', ms: 1500 } });
    const cancelling = new AbortController();
    const outcome = scenario.handOver({}, { signal: cancelling.signal, killWith });
    while (unfinished().length === 0) await sleep(20);
    cancelling.abort();
    expect(errorCode(await outcome)).toBe('cancelled');
    expect([listed(), unfinished()]).toEqual([[], []]);
    expect((await scenario.handOver()).outputs['run-integration']).toBe('true');
  });

  test('SIGINT while CreateArtifact hangs: the name that it reserves later is also released', async () => {
    scenario = await startScenario({ image });
    scenario.service.faults.add({ on: 'CreateArtifact', effect: { kind: 'hang', ms: 3000 } });
    const cancelling = new AbortController();
    const outcome = scenario.handOver({}, { signal: cancelling.signal });
    while (!scenario.service.faults.seen.includes('CreateArtifact')) await sleep(20);
    cancelling.abort();
    expect(errorCode(await outcome)).toBe('cancelled');
    while (!scenario.service.faults.seen.includes('DeleteArtifact')) await sleep(20);
    expect([listed(), unfinished()]).toEqual([[], []]);
  });
});

describe('the artifact of an earlier attempt', () => {
  test('is replaced by the attempt that hands over again, using its listed IDs (S2.5)', async () => {
    scenario = await startScenario({ image });
    await scenario.handOver();
    const again = await scenario.handOver({}, { job: { attempt: 2 } });
    expect(again.log).not.toContain('::error');
    expect(listed()).toEqual(['docker-image']);
    expect((await scenario.loads({}, { job: { jobId: 'test', attempt: 2 } })).outputs['artifact-id']).toBe('1001');
  });

  test('belongs to another job if it is from another call to the same reusable workflow (S2.5)', async () => {
    scenario = await startScenario({ image });
    const call = (name: string, attempt: number): Readonly<Record<string, string>> => ({
      ACTIONS_ORCHESTRATION_ID: `0000000${String(attempt)}-71e7-4948-8eb8-0d8f0e417443.${name}.build.__default`,
    });
    await scenario.handOver({}, { env: call('first', 1) });
    const other = await scenario.handOver({}, { env: call('second', 2), job: { attempt: 2 } });
    expect(errorCode(other)).toBe('artifact-name-taken');
    expect(errorMessage(other)).toContain('first.build');
    const own = await scenario.handOver({}, { env: call('first', 2), job: { attempt: 2 } });
    expect(own.log).not.toContain('::error');
  });

  test.each<[string, Fault['effect']]>([
    ['is lost', { kind: 'reset', afterBytes: 0 }],
    ['is refused', { kind: 'status', status: 500 }],
  ])('the request for its owner %s: transfer-failed, not artifact-name-taken', async (_, effect) => {
    scenario = await startScenario({ image });
    await scenario.handOver();
    scenario.service.faults.add({ on: 'get', times: 99, effect });
    const outcome = await scenario.handOver({}, { job: { attempt: 2 }, env: shortPauses });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(listed()).toEqual(['docker-image']);
  });

  test('a handover to an account without free storage shows this in its message', async () => {
    scenario = await startScenario({ image });
    const body = JSON.stringify({ code: 'permission_denied', msg: 'insufficient usage to create artifact' });
    scenario.service.faults.add({ on: 'CreateArtifact', times: 99, effect: { kind: 'status', status: 403, body } });
    const outcome = await scenario.handOver();
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(errorMessage(outcome)).toContain('storage of this account is used up');
    // The default is already one day.
    expect(errorMessage(outcome)).toContain('let the last job remove this one: `remove: true`');
    expect(errorMessage(outcome)).not.toContain('lower `retention-days`');
  });
});
