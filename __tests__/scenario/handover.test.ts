import { Readable } from 'node:stream';
import { afterEach, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import type { ArtifactFile } from '../../shared/artifacts/store.ts';
import type { Job } from '../fakes/artifact-service/service.ts';
import { fakeDocker } from '../fakes/docker/fake-docker.ts';
import { errorCode, type Scenario, startScenario } from '../fixtures/scenario.ts';

let scenario: Scenario;
afterEach(() => scenario.end());

function have(jobKey: string, job: Job = {}, docker = scenario.docker, more = {}): Promise<StepOutcome> {
  const inputs = { ...more, tarball: `${scenario.directory}/${jobKey}.tar`, 'job-key': jobKey };
  return runStep({ action: '.', inputs, env: { ...scenario.service.env(job), ...docker.env } });
}

test('C.2: the joined action builds what this run doesn’t have yet, and loads what it has', async () => {
  scenario = await startScenario();
  const first = await have('a');
  expect(first.log).not.toContain('::error');
  expect(first.outputs).toMatchObject({
    source: 'build',
    image: 'charon:local',
    'config-digest': scenario.image.configDigest,
  });
  const other = await fakeDocker();
  const second = await have('b', { jobId: 'b' }, other);
  expect(second.outputs).toMatchObject({
    source: 'artifact',
    loaded: 'true',
    'config-digest': scenario.image.configDigest,
  });
  expect(other.state().calls.some(([command]) => command === 'buildx')).toBe(false);
  await other.remove();
});

test('after the artifact has expired, a re-run builds it again', async () => {
  scenario = await startScenario();
  await have('a');
  scenario.service.expire('docker-image');
  await scenario.store().remove('docker-image');
  const again = await have('a', { attempt: 2 });
  expect(again.log).not.toContain('::error');
  expect(again.outputs['source']).toBe('build');
});

test('S2.5: two jobs that start at once both end with the image', async () => {
  scenario = await startScenario();
  const other = await fakeDocker({ ...scenario.docker.state() });
  const outcomes = await Promise.all([have('a'), have('b', { jobId: 'b' }, other)]);
  for (const outcome of outcomes) {
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ image: 'charon:local', 'config-digest': scenario.image.configDigest });
  }
  expect(scenario.service.artifacts.filter(({ finalised }) => finalised)).toHaveLength(1);
  await other.remove();
});

test('S2.5: a job that comes second to the name keeps its own image, even if the first one never ends its upload', async () => {
  scenario = await startScenario();
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  const files = (async function* (): AsyncGenerator<ArtifactFile> {
    await ended;
    yield { name: 'charon.tar', size: 0, chunks: Readable.from([]) };
  })();
  const request = { name: 'docker-image', retentionDays: 1, files, onBytes: () => undefined };
  const first = scenario.store().upload(request);
  const outcome = await have('b', { jobId: 'b' });
  end();
  await first;
  expect(outcome.log).not.toContain('::error');
  expect(outcome.log).toContain('keeps the image that it builds');
  expect(outcome.outputs).toMatchObject({ source: 'build', image: 'charon:local', 'artifact-id': '' });
  expect(scenario.docker.state().images).toMatchObject([{ tags: ['charon:local'] }]);
});

test('an artifact that is listed, but whose content is gone, is built anew', async () => {
  scenario = await startScenario();
  await have('a');
  const other = await fakeDocker({ ...scenario.docker.state(), images: [] });
  await scenario.service.blobs.remove(scenario.service.artifacts[0]?.blob ?? '');
  const again = await have('a', { attempt: 2 }, other);
  expect(again.log).not.toContain('::error');
  expect(again.outputs['source']).toBe('build');
  expect(other.state().images).toMatchObject([{ tags: ['charon:local'] }]);
  await other.remove();
});

test('S1.1, S0.6: pushes what it builds; a failed push is told when the image is here', async () => {
  const digest = `sha256:${'e'.repeat(64)}`;
  const registry = { failures: [], digest, pushed: [], images: {}, manifests: {} };
  scenario = await startScenario({ docker: { registry } });
  const push = { push: 'true', tags: 'ghcr.io/org/charon:1', 'registry-retry-seconds': '0' };
  const pushed = await have('a', {}, scenario.docker, push);
  expect(pushed.outputs).toMatchObject({ source: 'build', 'pushed-reference': `ghcr.io/org/charon@${digest}` });
  await scenario.store().remove('docker-image');
  scenario.docker.set({ images: [], registry: { ...registry, failures: ['denied'] } });
  const failed = await have('a', {}, scenario.docker, push);
  expect(errorCode(failed)).toBe('registry-failed');
  expect(failed.outputs).toMatchObject({ source: 'build', image: 'charon:local', 'pushed-reference': '' });
  expect(scenario.docker.state().images).toMatchObject([{ tags: ['charon:local', 'ghcr.io/org/charon:1'] }]);
});

test('a build that fails is a failure', async () => {
  scenario = await startScenario({ docker: { fail: 'build' } });
  const outcome = await have('a');
  expect(outcome.exitCode).toBe(1);
  expect(errorCode(outcome)).toBe('build-failed');
});
