import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { eventEnvironment } from '../fixtures/events.ts';
import { errorCode, errorMessage } from '../fixtures/scenario.ts';
import { begin, scenario, useScenarios } from '../fixtures/scenario-suite.ts';
import { tarFile } from '../fixtures/tar-file.ts';
import { parseArchiveManifest } from '../../shared/image/manifest.ts';
import { parseRecord, recordName } from '../../shared/image/record.ts';
import { formatReference } from '../../shared/image/reference.ts';

useScenarios();

const pullRequest = eventEnvironment('pull-request');
const repository = 'ghcr.io/Wikid82/charon';
const lowered = 'ghcr.io/wikid82/charon';

async function recordedReferences(): Promise<readonly string[]> {
  const store = scenario.store();
  const [artifact] = await store.list();
  if (artifact === undefined) throw new Error('no artifact');
  const text = await (await store.open(artifact)).text(recordName);
  return parseRecord(text ?? '').references.map(formatReference);
}

const localTags = (): readonly string[] => scenario.docker.state().images.flatMap(({ tags }) => tags);

describe('the tag of the event', () => {
  test('a pull request’s immutable tag, made of its head commit, is an output (S1.2)', async () => {
    const { exports } = await begin();
    const outcome = await exports({}, { env: pullRequest });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({ 'immutable-tag': 'pr-123-ec26c3e', image: 'charon:local' });
    expect(await recordedReferences()).toEqual(['charon:local']);
  });

  test('a branch of any name gives a valid tag (S1.3)', async () => {
    const { exports, directory } = await begin();
    const ref = `refs/heads/🚀/Feature/${'Ü'.repeat(60)}_x`;
    const path = join(directory, 'event.json');
    await writeFile(path, JSON.stringify({ ref, deleted: false, repository: { default_branch: 'main' } }));
    const env = { ...eventEnvironment('push-branch'), GITHUB_EVENT_PATH: path, GITHUB_REF: ref };
    expect((await exports({}, { env })).outputs['immutable-tag']).toBe('feature-x-6113728');
  });

  test.each([
    ['an event without a commit', eventEnvironment('delete'), 'the event is the deletion of a branch or tag'],
    [
      'a payload that isn’t JSON',
      { ...pullRequest, GITHUB_EVENT_PATH: 'README.md' },
      'the payload of pull_request has no pull_request.head.sha',
    ],
    [
      'a missing payload',
      { ...pullRequest, GITHUB_EVENT_PATH: '/nowhere/event.json' },
      'the payload of pull_request has no pull_request.head.sha',
    ],
  ])('%s leaves the output empty, with a notice, and the handover works (S1.2)', async (_, env, reason) => {
    const { handOver } = await begin();
    const outcome = await handOver({}, { env });
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'immutable-tag': '' });
    expect(outcome.annotations).toContainEqual(
      expect.objectContaining({ level: 'notice', message: `There is no immutable tag: ${reason}.` }),
    );
  });
});

describe('tags', () => {
  test('tags: auto on the default branch: the tarball and the loading job have each tag (S3.6, S2.7)', async () => {
    const { exports, loads, tarball, docker } = await begin();
    const outcome = await exports({ tags: 'auto', repository }, { env: eventEnvironment('push-default-branch') });
    expect(outcome.log).not.toContain('::error');
    const all = ['charon:local', ...['main-6113728', 'latest', 'sha-6113728'].map((tag) => `${lowered}:${tag}`)];
    expect(outcome.outputs['image']).toBe('charon:local');
    expect(await recordedReferences()).toEqual(all);
    const manifest = await tarFile(tarball, 'manifest.json');
    expect(parseArchiveManifest(manifest, 'manifest.json')[0]?.repoTags).toEqual(all);
    expect(outcome.log).toContain(`Image: ${all.join(', ')}`);
    expect(outcome.annotations.filter(({ message }) => message.includes('lower-case'))).toHaveLength(1);

    docker.set({ images: [] });
    expect((await loads()).outputs['image']).toBe('charon:local');
    expect(localTags()).toEqual(all);
  });

  test('an engine that has the image under one reference gets the others without a load (S2.7)', async () => {
    const { exports, loads, docker, image } = await begin();
    await exports({ tags: 'app:1\napp:2' });
    const { configDigest: imageId, diffIds } = image;
    const labels = { 'org.opencontainers.image.revision': 'abc123' };
    docker.set({ images: [{ imageId, diffIds, architecture: 'amd64', labels, tags: ['charon:local'] }] });
    expect((await loads()).outputs).toMatchObject({ loaded: 'false', size: '0' });
    expect(localTags()).toEqual(['charon:local', 'app:1', 'app:2']);
  });

  test('an image whose tarball doesn’t have the tags is loaded, then tagged (S2.7)', async () => {
    const { handOver, loads } = await begin();
    await handOver({ tags: 'app:1\napp:2' });
    const outcome = await loads();
    expect(outcome.exitCode).toBe(0);
    expect(localTags()).toEqual(expect.arrayContaining(['charon:local', 'app:1', 'app:2']));
  });

  test('the tags output of docker/metadata-action is recorded line by line (C.5, S1.6)', async () => {
    const { handOver } = await begin();
    await handOver({ tags: `\n${repository}:pr-1\n\n${repository}:sha-1\n` });
    expect(await recordedReferences()).toEqual(['charon:local', `${lowered}:pr-1`, `${lowered}:sha-1`]);
  });

  test('docker/metadata-action’s environment variables have priority over tags: auto, and the log shows this (C.5)', async () => {
    const { handOver } = await begin();
    const env = { ...pullRequest, DOCKER_METADATA_OUTPUT_TAGS: 'ghcr.io/o/c:mine\nghcr.io/o/c:too' };
    const outcome = await handOver({ tags: 'auto', repository }, { env });
    expect(await recordedReferences()).toEqual(['charon:local', 'ghcr.io/o/c:mine', 'ghcr.io/o/c:too']);
    expect(outcome.log).toContain('takes the tags of docker/metadata-action, from DOCKER_METADATA_OUTPUT_TAGS');
    expect(outcome.outputs['immutable-tag']).toBe('pr-123-ec26c3e');
  });

  test.each([
    ['tags: auto without a repository', { tags: 'auto' }, 'has no repository'],
    ['tags: auto without a commit', { tags: 'auto', repository }, 'there is no workflow event here'],
    ['a malformed reference (S0.7)', { tags: 'ok:1\nno//t:1' }, 'no//t:1'],
    ['a metadata output without tags (S2.2)', { tags: '{"tags":[]}' }, 'received "{"tags":[]}"'],
  ])('%s is rejected before docker is used', async (_, inputs, message) => {
    const { exports, docker } = await begin();
    const outcome = await exports(inputs);
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(message);
    expect(docker.state().calls).toEqual([]);
  });
});

describe('the branch label', () => {
  const name = 'io.charon.feature.branch';

  test('a build gets the branch as one argument, with any name (S1.4)', async () => {
    const { exports, docker } = await begin();
    await exports({ 'branch-label': name, labels: 'a=b' }, { env: pullRequest });
    const args = docker.state().calls.find(([command, verb]) => command === 'buildx' && verb === 'build') ?? [];
    const labels = args.flatMap((arg, at) => (arg === '--label' ? [args[at + 1]] : []));
    expect(labels).toEqual(['a=b', `${name}=feature/Add_New-Feature`]);
  });

  test('an image that is built elsewhere can’t get a label (S1.4)', async () => {
    const { handOver } = await begin();
    const outcome = await handOver({ 'branch-label': name }, { env: pullRequest });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('only a build can add a label');
  });
});
