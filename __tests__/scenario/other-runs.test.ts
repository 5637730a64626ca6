import { describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import { startArtifactService } from '../fakes/artifact-service/service.ts';
import { emptyState, type FakeImage, pulledReferences, verbOf } from '../fakes/docker/state.ts';
import { handOverMade } from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage, type Scenario } from '../fixtures/scenario.ts';
import { begin, scenario, useScenarios } from '../fixtures/scenario-suite.ts';

useScenarios();

const latest = { workflow: 'ci.yml', branch: 'main' };
const past = '2020-01-02T03:04:05Z';
const expired = (name = 'docker-image'): { name: string; expiresAt: string } => ({ name, expiresAt: past });
const urlOf = (id: number): string => `https://github.com/org/charon/actions/runs/${String(id)}`;

/** Adds a run with that ID whose job handed the image over. */
async function handOverIn(id: number, seed: Parameters<Scenario['service']['addRun']>[0] = { id }): Promise<void> {
  scenario.service.addRun(seed);
  await handOverMade(scenario.service, scenario.image, { job: { runId: String(id) } });
}

const asked = (operation: string): readonly string[] =>
  scenario.service.rest.requests.filter((request) => request.operation === operation).map(({ url }) => url);
const verbs = (): readonly string[] => scenario.docker.state().calls.map(verbOf);
/** Returns the pulled references, except pulls of an artifact's layers from the step itself. */
const pulledFallbacks = (): readonly string[] =>
  pulledReferences(scenario.docker.state()).filter((reference) => !reference.startsWith('127.0.0.1:'));
const tags = (): readonly string[] => scenario.docker.state().images.flatMap((image) => image.tags);

function expectLoaded(outcome: StepOutcome, runId: number): void {
  expect(outcome.log).not.toContain('::error');
  expect(outcome.exitCode).toBe(0);
  expect(outcome.outputs).toMatchObject({
    image: 'charon:local',
    loaded: 'true',
    'config-digest': scenario.image.configDigest,
    'run-id': String(runId),
    'run-url': urlOf(runId),
  });
  expect(pulledFallbacks()).toEqual([]);
}

describe('run-id', () => {
  test('the image of another run is loaded and verified, and the run is in outputs and summary (S3.3)', async () => {
    await begin();
    await handOverIn(100);
    const outcome = await scenario.loads({ 'run-id': '100' });
    expectLoaded(outcome, 100);
    expect(outcome.summary).toContain(`[100](${urlOf(100)})`);
    expect(tags()).toContain('charon:local');
  });

  test('the image of another repository is loaded with `repository` (S3.3)', async () => {
    await begin();
    await handOverIn(100, { id: 100, repository: 'org/backend' });
    const outcome = await scenario.loads({ 'run-id': '100', repository: 'org/backend' });
    expect(outcome.outputs['run-url']).toBe('https://github.com/org/backend/actions/runs/100');
  });

  test('the token is sent only to the API, and is in no log', async () => {
    await begin();
    await handOverIn(100);
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(outcome.exitCode).toBe(0); // the blob side refuses a request with a token
    expect(outcome.log + outcome.summary).not.toContain(scenario.service.rest.token);
    expect(asked('DownloadArtifact')).toHaveLength(1);
  });

  test('a signed URL that expires during the download is signed again', async () => {
    await begin();
    await handOverIn(100);
    scenario.service.faults.add({ on: 'get', after: 1, times: 1, effect: { kind: 'status', status: 403 } });
    expectLoaded(await scenario.loads({ 'run-id': '100' }), 100);
    expect(asked('DownloadArtifact').length).toBeGreaterThan(1);
  });

  test('expired: artifact-expired with the date and the address of the run (S3.4)', async () => {
    await begin();
    scenario.service.addRun({ id: 100, artifacts: [expired()] });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-expired');
    expect(errorMessage(outcome)).toContain(past);
    expect(errorMessage(outcome)).toContain(urlOf(100));
    expect(verbs()).not.toContain('load');
  });

  test('an artifact that expires between listing and download is also artifact-expired (S3.4)', async () => {
    await begin();
    await handOverIn(100);
    scenario.service.faults.add({ on: 'DownloadArtifact', effect: { kind: 'status', status: 410, body: 'expired' } });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(errorCode(outcome)).toBe('artifact-expired');
    expect(errorMessage(outcome)).toContain(urlOf(100));
  });

  test('a wrong name lists all artifacts of that run, beyond the first page (S0.8)', async () => {
    await begin();
    const future = '2999-01-01T00:00:00Z';
    const artifacts = Array.from({ length: 150 }, (_, at) => ({ name: `leg-${String(at)}`, expiresAt: future }));
    await handOverIn(100, { id: 100, artifacts });
    expectLoaded(await scenario.loads({ 'run-id': '100' }), 100); // it is on the second page
    const outcome = await scenario.loads({ 'run-id': '100', 'artifact-name': 'docker-imaeg' });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('"docker-image", "leg-149"');
    expect(errorMessage(outcome)).toContain(urlOf(100));
  });

  test('no such run: run-not-found with a hint about the token (S3.3)', async () => {
    await begin();
    const outcome = await scenario.loads({ 'run-id': '404' });
    expect(errorCode(outcome)).toBe('run-not-found');
    expect(errorMessage(outcome)).toContain('run 404 in org/charon');
    expect(errorMessage(outcome)).toContain('permissions: actions: read');
  });

  test.each([
    ['without the permission', () => scenario.service.rest.powerlessToken, 'Resource not accessible by integration'],
    ['that is invalid', () => 'ghp_oldsecret', 'Bad credentials'],
  ])('a token %s: the error contains the required permission, but never the token', async (_, token, message) => {
    await begin();
    await handOverIn(100);
    const given = token();
    const outcome = await scenario.loads({ 'run-id': '100', 'github-token': given });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(errorMessage(outcome)).toContain(message);
    expect(errorMessage(outcome)).toContain('permissions: actions: read');
    const said = outcome.log.replaceAll(/^::add-mask::.*$/gm, '') + outcome.summary;
    expect(said).not.toContain(given);
  });
});

describe('workflow and branch', () => {
  test('the latest successful run on the branch is used, although others ran later (S3.3)', async () => {
    await begin();
    await handOverIn(100);
    scenario.service.addRun({ id: 101, conclusion: 'failure' });
    scenario.service.addRun({ id: 102, conclusion: null });
    scenario.service.addRun({ id: 103, branch: 'feature' });
    scenario.service.addRun({ id: 104, workflow: 'other.yml' });
    expectLoaded(await scenario.loads(latest), 100);
    const byPath = await scenario.loads({ ...latest, workflow: '.github/workflows/ci.yml' });
    expect(byPath.outputs['run-id']).toBe('100');
  });

  test('event selects among the runs of the branch (S3.3)', async () => {
    await begin();
    await handOverIn(100, { id: 100, event: 'push' });
    await handOverIn(101, { id: 101, event: 'schedule' });
    expectLoaded(await scenario.loads({ ...latest, event: 'push' }), 100);
  });

  test('newer runs whose artifact has expired or never existed are skipped (S3.3, S3.4)', async () => {
    await begin();
    await handOverIn(100);
    scenario.service.addRun({ id: 101, artifacts: [expired()] });
    scenario.service.addRun({ id: 102, artifacts: [expired('something-else')] });
    const outcome = await scenario.loads(latest);
    expectLoaded(outcome, 100);
    expect(outcome.log).toContain('Skipping run 101 of 2026-01-01T00:00:00Z: it no longer has the artifact');
    expect(outcome.log).toContain('Skipping run 102 of 2026-01-01T00:00:00Z: it never had the artifact');
  });

  test('all expired: the error shows the date and address of the newest one, after at most 20 runs (S3.4)', async () => {
    await begin();
    for (let id = 100; id < 130; id += 1) {
      scenario.service.addRun({
        id,
        artifacts: [{ name: 'docker-image', expiresAt: `2020-02-01T00:00:${String(id - 100).padStart(2, '0')}Z` }],
      });
    }
    const outcome = await scenario.loads(latest);
    expect(errorCode(outcome)).toBe('artifact-expired');
    expect(errorMessage(outcome)).toContain('2020-02-01T00:00:29Z');
    expect(errorMessage(outcome)).toContain(urlOf(129));
    expect(asked('ListRunArtifacts')).toHaveLength(20);
  });

  test('runs of forks are skipped on all pages, although their branch is also called main (S3.3)', async () => {
    await begin();
    await handOverIn(100);
    for (let id = 200; id < 225; id += 1) {
      scenario.service.addRun({ id, event: 'pull_request', headRepository: id === 224 ? null : 'mallory/charon' });
    }
    const outcome = await scenario.loads(latest);
    expectLoaded(outcome, 100);
    expect(outcome.log).toContain('Skipping run 200: it ran for the fork mallory/charon');
    expect(asked('ListWorkflowRuns')).toHaveLength(2);
    expect(asked('ListRunArtifacts')).toHaveLength(1);
  });

  test('no successful run: run-not-found with workflow, branch, event and repository (S3.3)', async () => {
    await begin();
    scenario.service.addRun({ id: 100, conclusion: 'failure' });
    scenario.service.addRun({ id: 101, headRepository: 'mallory/charon' });
    const outcome = await scenario.loads({ ...latest, event: 'push' });
    expect(errorCode(outcome)).toBe('run-not-found');
    expect(errorMessage(outcome)).toContain('workflow "ci.yml" on branch "main", event "push", in org/charon');
    expect(errorMessage(outcome)).toContain('1 runs of forks were skipped');
  });

  test('no such workflow: run-not-found (S3.3)', async () => {
    await begin();
    const outcome = await scenario.loads({ workflow: 'cl.yml', branch: 'main' });
    expect(errorCode(outcome)).toBe('run-not-found');
    expect(errorMessage(outcome)).toContain('workflow "cl.yml"');
    expect(errorMessage(outcome)).toContain('HTTP 404 (Not Found)');
  });

  test('none of the runs ever had it: artifact-not-found', async () => {
    await begin();
    scenario.service.addRun({ id: 100 });
    const outcome = await scenario.loads(latest);
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain(urlOf(100));
  });
});

describe('runs of forks', () => {
  test.each(['pull_request', 'workflow_dispatch'])(
    'are rejected for any event (%s), because their code is untrusted',
    async (event) => {
      await begin();
      await handOverIn(100, { id: 100, event, headRepository: 'mallory/charon' });
      const outcome = await scenario.loads({ 'run-id': '100', 'fallback-image': 'org/charon:main' });
      expect(outcome.exitCode).toBe(1);
      expect(errorCode(outcome)).toBe('invalid-input');
      expect(errorMessage(outcome)).toContain('mallory/charon');
      expect(errorMessage(outcome)).toContain('allow-fork-runs');
      expect(asked('DownloadArtifact')).toEqual([]);
      expect(verbs()).not.toContain('pull');
    },
  );

  test('are accepted with allow-fork-runs, by ID and as the latest run', async () => {
    await begin();
    await handOverIn(100, { id: 100, event: 'pull_request', headRepository: 'mallory/charon' });
    expectLoaded(await scenario.loads({ 'run-id': '100', 'allow-fork-runs': 'true', image: 'charon:local' }), 100);
    scenario.docker.set({ images: [] });
    expectLoaded(await scenario.loads({ ...latest, 'allow-fork-runs': 'true', image: 'charon:local' }), 100);
  });
});

describe('the hosts that receive the token', () => {
  test('a repository that was renamed is followed within the API', async () => {
    await begin();
    await handOverIn(100);
    const location = `${scenario.service.rest.url()}/repos/org/charon/actions/runs/100`;
    scenario.service.faults.add({
      on: 'GetWorkflowRun',
      effect: { kind: 'status', status: 301, headers: { location } },
    });
    expectLoaded(await scenario.loads({ 'run-id': '100' }), 100);
  });

  test.each([301, 302, 307, 308])('a redirect (%d) to another host is not followed', async (status) => {
    await begin();
    const elsewhere = await startArtifactService();
    const location = `${elsewhere.url}/api/v3/repos/org/charon/actions/runs/100`;
    scenario.service.faults.add({ on: 'GetWorkflowRun', effect: { kind: 'status', status, headers: { location } } });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(elsewhere.rest.requests).toEqual([]);
    await elsewhere.close();
  });

  test('further pages are requested from the API’s own host, although their links have another host', async () => {
    await begin();
    const elsewhere = await startArtifactService();
    scenario.service.rest.linkOrigin = elsewhere.url;
    const artifacts = Array.from({ length: 100 }, (_, at) => ({ name: `leg-${String(at)}`, expiresAt: past }));
    await handOverIn(100, { id: 100, artifacts });
    expectLoaded(await scenario.loads({ 'run-id': '100' }), 100);
    expect(elsewhere.rest.requests).toEqual([]);
    await elsewhere.close();
  });
});

describe('failures of the REST API', () => {
  test('a lost connection, a busy service and a short rate limit are retried', async () => {
    await begin();
    await handOverIn(100);
    const { faults } = scenario.service;
    faults.add({ on: 'GetWorkflowRun', effect: { kind: 'reset', afterBytes: 0 } });
    faults.add({ on: 'ListRunArtifacts', effect: { kind: 'status', status: 502 } });
    const headers = { 'retry-after': '1' };
    faults.add({
      on: 'DownloadArtifact',
      effect: { kind: 'status', status: 403, body: 'secondary rate limit', headers },
    });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expectLoaded(outcome, 100);
    expect(outcome.log).toContain('HTTP 502');
    expect(outcome.log).toContain('secondary rate limit');
  });

  test('a long rate limit is an error without a wait', async () => {
    await begin();
    const reset = String(Math.floor(Date.now() / 1000) + 1800);
    const headers = { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': reset };
    const effect = { kind: 'status', status: 403, body: 'API rate limit exceeded', headers } as const;
    scenario.service.faults.add({ on: 'GetWorkflowRun', times: 9, effect });
    const outcome = await scenario.loads({ 'run-id': '100' });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(errorMessage(outcome)).toMatch(/API rate limit exceeded.*for another 1[78]\d\d s/);
    expect(errorMessage(outcome)).not.toContain('permissions');
    expect(asked('GetWorkflowRun')).toHaveLength(1);
  });
});

describe('fallback-image', () => {
  const fallback = { 'fallback-image': 'ghcr.io/org/charon:main' };
  const image = (): FakeImage => ({
    imageId: scenario.image.configDigest,
    tags: [],
    diffIds: [...scenario.image.diffIds],
    architecture: 'amd64',
    labels: { 'org.opencontainers.image.revision': 'abc123' },
  });
  const inRegistry = (change: Partial<FakeImage> = {}): void => {
    const images = { 'ghcr.io/org/charon:main': { ...image(), ...change } };
    scenario.docker.set({ registry: { ...emptyState.registry, images } });
  };

  test.each([
    ['the artifact has expired', { 'run-id': '100' }, 'expired on'],
    ['the run has no such artifact', { 'run-id': '100', 'artifact-name': 'other' }, 'has no artifact "other"'],
    ['there is no such run', { 'run-id': '404' }, 'Could not find run 404'],
    ['no run has succeeded', { workflow: 'ci.yml', branch: 'release' }, 'There is no successful run'],
    ['this run has no artifact', {}, 'This run has no artifact'],
  ])('is pulled when %s, with a warning that shows why (S3.4)', async (_, inputs, why) => {
    await begin();
    scenario.service.addRun({ id: 100, artifacts: [expired()] });
    inRegistry();
    const outcome = await scenario.loads({ ...inputs, ...fallback, image: 'charon:local' });
    expect(outcome.exitCode).toBe(0);
    const warnings = outcome.annotations.filter(({ level }) => level === 'warning');
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.message).toContain('ghcr.io/org/charon:main');
    expect(warnings[0]?.message).toContain(why);
    expect(outcome.outputs).toMatchObject({
      image: 'charon:local',
      'image-id': scenario.image.configDigest,
      platform: 'linux/amd64',
      'artifact-id': '',
      'run-id': '',
      loaded: 'true',
    });
    expect(outcome.summary).toContain('Pulled instead: `charon:local`');
    expect(outcome.summary).toContain(why);
    expect(tags()).toEqual(expect.arrayContaining(['charon:local', 'ghcr.io/org/charon:main']));
  });

  test('without `image` the fallback keeps its name; an existing artifact has priority (S3.4)', async () => {
    await begin();
    inRegistry();
    expect((await scenario.loads({ ...latest, ...fallback })).outputs['image']).toBe('ghcr.io/org/charon:main');
    await handOverIn(100);
    scenario.docker.set({ calls: [], images: [] });
    expectLoaded(await scenario.loads({ ...latest, ...fallback }), 100);
  });

  test('is not pulled after other errors (S3.4)', async () => {
    await begin();
    inRegistry();
    const outcome = await scenario.loads({ ...latest, ...fallback, 'github-token': 'ghp_bad' });
    expect(errorCode(outcome)).toBe('transfer-failed');
    expect(verbs()).not.toContain('pull');
  });

  test.each([
    ['expected-revision', { 'expected-revision': 'def456' }, {}, 'revision-mismatch'],
    ['expected-config-digest', { 'expected-config-digest': `sha256:${'0'.repeat(64)}` }, {}, 'image-mismatch'],
    ['the platform', {}, { architecture: 'arm64' }, 'platform-mismatch'],
  ])('%s is checked, and a wrong image keeps no tag (S3.4)', async (_, inputs, change, code) => {
    await begin();
    inRegistry(change);
    const outcome = await scenario.loads({ ...latest, ...fallback, ...inputs, image: 'charon:local' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe(code);
    expect(tags()).toEqual([]);
  });

  test('on the containerd store, expected-config-digest is read from the image itself (S3.4)', async () => {
    await begin({ docker: { store: 'containerd' } });
    inRegistry({ imageId: scenario.image.manifestDigest });
    const right = { 'expected-config-digest': scenario.image.configDigest };
    const outcome = await scenario.loads({ ...latest, ...fallback, ...right });
    expect(outcome.outputs['config-digest']).toBe(scenario.image.configDigest);
    const wrong = { 'expected-config-digest': scenario.image.manifestDigest };
    expect(errorCode(await scenario.loads({ ...latest, ...fallback, ...wrong }))).toBe('image-mismatch');
  });

  test('a failed pull is registry-failed, with the registry’s message (S3.4)', async () => {
    await begin();
    const outcome = await scenario.loads({ ...latest, ...fallback });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toContain('manifest unknown');
  });
});

describe('contradictory inputs are invalid-input before any request', () => {
  test.each([
    [{ 'run-id': '1', workflow: 'ci.yml', branch: 'main' }, 'Both `run-id` (1) and `workflow`'],
    [{ 'run-id': '1', 'github-token': '' }, '`github-token` is empty'],
    [{ 'allow-fork-runs': 'yes' }, '`allow-fork-runs` is "yes"'],
    [{ 'fallback-image': 'charon:main', tarball: '/tmp/x.tar' }, 'leaves no tarball'],
    [{ 'timeout-minutes': '0' }, '`timeout-minutes` is "0"'],
    [{ 'timeout-minutes': 'soon' }, '`timeout-minutes` is "soon"'],
  ])('%j (S3.3)', async (inputs, message) => {
    const { loads, docker, service } = await begin();
    const outcome = await loads(inputs);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(message);
    expect(docker.state().calls).toEqual([]);
    expect(service.rest.requests).toEqual([]);
  });
});
