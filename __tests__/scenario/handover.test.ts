import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import type { ArtifactFile } from '../../shared/artifacts/store.ts';
import type { Job } from '../fakes/artifact-service/service.ts';
import { type FakeDocker, fakeDocker } from '../fakes/docker/fake-docker.ts';
import { type FixtureImage, makeImage, writeLayout } from '../fixtures/image.ts';
import { errorCode, type Scenario, startScenario } from '../fixtures/scenario.ts';

let scenario: Scenario;
const others: FakeDocker[] = [];
afterEach(async () => {
  await scenario.end();
  for (const docker of others.splice(0)) await docker.remove();
});

function have(jobKey: string, job: Job = {}, docker = scenario.docker, more = {}): Promise<StepOutcome> {
  const inputs = { ...more, 'job-key': jobKey };
  return runStep({ action: '.', inputs, env: { ...scenario.service.env(job), ...docker.env } });
}

test('the joined action builds an image that this run doesn’t have yet, and loads one that it has (C.2)', async () => {
  scenario = await startScenario();
  const first = await have('a');
  expect(first.log).not.toContain('::error');
  expect(first.outputs).toMatchObject({
    source: 'build',
    image: 'charon:local',
    'config-digest': scenario.image.configDigest,
    imageid: scenario.image.configDigest,
    digest: scenario.image.manifestDigest,
  });
  const other = await fakeDocker();
  const second = await have('b', { jobId: 'b' }, other);
  expect(second.outputs).toMatchObject({
    source: 'artifact',
    loaded: 'true',
    'config-digest': scenario.image.configDigest,
    imageid: scenario.image.configDigest,
    digest: scenario.image.manifestDigest,
  });
  expect(other.state().calls.some(([command]) => command === 'buildx')).toBe(false);
  await other.remove();
});

test('a re-run builds the image again after the artifact has expired', async () => {
  scenario = await startScenario();
  await have('a');
  scenario.service.expire('docker-image');
  await scenario.removeArtifacts('docker-image');
  const again = await have('a', { attempt: 2 });
  expect(again.log).not.toContain('::error');
  expect(again.outputs['source']).toBe('build');
});

test('two jobs that start together both get the image (S2.5)', async () => {
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

/** Runs a job that finds no artifact at its start, but whose artifact name is taken after its build. */
async function comesSecond(
  inputs: Readonly<Record<string, string>> = {},
  built?: FixtureImage,
): Promise<StepOutcome & { readonly docker: FakeDocker }> {
  // Two responses: the job looks for an image to load, and checks whether the name is free.
  const none = { kind: 'status', status: 200, body: '{"artifacts":[]}' } as const;
  scenario.service.faults.add({ on: 'ListArtifacts', times: 2, effect: none });
  const buildLayout = join(scenario.directory, 'built-second');
  await writeLayout(built ?? scenario.image, buildLayout);
  const docker = await fakeDocker({ ...scenario.docker.state(), images: [], calls: [], buildLayout });
  others.push(docker);
  return { docker, ...(await have('b', { jobId: 'b' }, docker, inputs)) };
}

const builds = (docker: FakeDocker): number =>
  docker.state().calls.filter(([command, verb]) => command === 'buildx' && verb === 'build').length;
const kept = { source: 'build', image: 'charon:local', 'artifact-id': '', 'artifact-name': '', loaded: 'true' };

describe('a job whose artifact name was taken during its build keeps its image, builds once, and shows this (S2.5)', () => {
  test('the same image as the one handed over', async () => {
    scenario = await startScenario();
    const { outputs } = await have('a');
    const outcome = await comesSecond();
    expect(outcome.annotations).toEqual([]);
    expect(outcome.outputs).toMatchObject({ ...kept, 'config-digest': scenario.image.configDigest });
    expect(builds(outcome.docker)).toBe(1);
    expect(outcome.docker.state().images).toMatchObject([{ tags: ['charon:local'] }]);
    expect(outcome.leftInTemp).toEqual([]);
    expect(outcome.log).toContain(
      `It is the same image as in the artifact "docker-image" (id ${outputs['artifact-id'] ?? ''})`,
    );
    expect(outcome.log).toContain('Verified: charon:local is this job’s own image');
    expect(outcome.log).not.toMatch(/^(Uploaded|Downloaded)/m);
    expect(outcome.summary).toContain('Kept here, not handed over: `charon:local`');
    expect(outcome.summary).toMatch(/Kept here.*\n\n.*is the same image as this one.*\n\n\|/);
    for (const untrue of ['Handed over', 'id 0', 'the artifact |', 'Downloaded', 'upload (']) {
      expect(outcome.summary).not.toContain(untrue);
    }
  });

  test('a different image than the one handed over: a warning shows both', async () => {
    scenario = await startScenario();
    await have('a');
    const own = makeImage({ labels: { built: 'second' } });
    const outcome = await comesSecond({}, own);
    expect(outcome.outputs).toMatchObject({ ...kept, 'config-digest': own.configDigest });
    expect(builds(outcome.docker)).toBe(1);
    const [warning, ...more] = outcome.annotations;
    expect(more).toEqual([]);
    expect(warning).toMatchObject({ level: 'warning' });
    for (const text of [own.configDigest, scenario.image.configDigest, 'docker-image', 'needs']) {
      expect(warning?.message).toContain(text);
    }
    const note = /Kept here.*\n\n(.*)\n\n\|/.exec(outcome.summary)?.[1];
    expect(note).toMatch(/^⚠️ .*`docker-image`.*later jobs get/);
    expect(note).toContain(scenario.image.configDigest);
  });

  test('nothing is compared if the first job hasn’t finished its upload', async () => {
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
    expect(outcome.annotations).toEqual([]);
    expect(outcome.log).toContain('keeps its own image');
    expect(outcome.outputs).toMatchObject(kept);
    expect(builds(scenario.docker)).toBe(1);
    expect(scenario.docker.state().images).toMatchObject([{ tags: ['charon:local'] }]);
    expect(outcome.summary).toContain('not known');
  });

  test('also with the official client', async () => {
    scenario = await startScenario();
    await have('a');
    scenario.service.faults.add({
      on: 'CreateArtifact',
      effect: { kind: 'status', status: 200, body: '{"items":[]}' },
    });
    const outcome = await comesSecond();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject(kept);
    expect(builds(outcome.docker)).toBe(1);
    expect(outcome.summary).not.toContain('Handed over');
  });
});

test('an image is built again if its artifact is listed but the content is missing', async () => {
  scenario = await startScenario();
  await have('a');
  const other = await fakeDocker({ ...scenario.docker.state(), images: [], calls: [] });
  await scenario.service.blobs.remove(scenario.service.artifacts[0]?.blob ?? '');
  const again = await have('a', { attempt: 2 }, other);
  expect(again.log).not.toContain('::error');
  expect(again.outputs['source']).toBe('build');
  expect(builds(other)).toBe(1);
  expect(again.summary).not.toContain('Handed over');
  expect(other.state().images).toMatchObject([{ tags: ['charon:local'] }]);
  await other.remove();
});

test('pushes the image that it builds; a failed push is reported after the image is loaded (S1.1, S0.6)', async () => {
  const digest = `sha256:${'e'.repeat(64)}`;
  const registry = { failures: [], digest, pushed: [], images: {}, manifests: {} };
  scenario = await startScenario({ docker: { registry } });
  const push = { push: 'true', tags: 'ghcr.io/org/charon:1' };
  const pushed = await have('a', {}, scenario.docker, push);
  expect(pushed.outputs).toMatchObject({ source: 'build', digest, 'pushed-reference': `ghcr.io/org/charon@${digest}` });
  await scenario.removeArtifacts('docker-image');
  scenario.docker.set({ images: [], registry: { ...registry, failures: ['denied'] } });
  const failed = await have('a', {}, scenario.docker, push);
  expect(errorCode(failed)).toBe('registry-failed');
  expect(failed.outputs).toMatchObject({ source: 'build', image: 'charon:local', 'pushed-reference': '' });
  expect(scenario.docker.state().images).toMatchObject([{ tags: ['charon:local', 'ghcr.io/org/charon:1'] }]);
});

test('a failed build fails the step', async () => {
  scenario = await startScenario({ docker: { fail: 'build' } });
  const outcome = await have('a');
  expect(outcome.exitCode).toBe(1);
  expect(errorCode(outcome)).toBe('build-failed');
});
