import { describe, expect, test } from '@jest/globals';
import { eventFacts } from '../fixtures/events.ts';
import type { PublishInputs } from '../../publish-image/inputs.ts';
import { planPublish, type PublishFacts } from '../../publish-image/plan/plan.ts';
import { formatReference } from '../../shared/image/reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const given: PublishInputs = {
  artifactNames: ['docker-image'],
  artifactIds: [],
  image: undefined,
  tags: 'ghcr.io/org/charon:1',
  repository: undefined,
  mountFrom: [],
  username: undefined,
  password: undefined,
  registryCa: undefined,
  expectedConfigDigests: [],
  expectedRevision: undefined,
  runId: undefined,
  workflow: undefined,
  branch: undefined,
  event: undefined,
  runRepository: undefined,
  githubToken: 'token',
};
const facts: PublishFacts = { event: eventFacts('push-default-branch'), metadata: {}, ownRepository: 'org/charon' };
const plan = (inputs: Partial<PublishInputs>) => planPublish({ ...given, ...inputs }, facts);

describe('planPublish', () => {
  test('a plan publishes the artifact of this run under its tags, with the login of docker (B.1)', () => {
    expect(plan({})).toEqual({
      wanted: ['docker-image'],
      image: undefined,
      tags: [{ repository: 'ghcr.io/org/charon', tag: '1' }],
      mountFrom: [],
      login: undefined,
      authorityPath: undefined,
      expectedConfigDigests: [],
      expectedRevision: undefined,
      other: undefined,
      notices: [],
    });
  });

  test('a plan contains the values of the inputs', () => {
    const planned = plan({
      artifactNames: ['image-*', 'docker-image', 'image-*'],
      image: 'charon',
      mountFrom: ['ghcr.io/Org/Base'],
      registryCa: '/ca.pem',
      expectedConfigDigests: [digest],
      expectedRevision: 'abc',
    });
    expect(planned).toMatchObject({
      wanted: ['image-*', 'docker-image'],
      image: { repository: 'charon', tag: 'latest' },
      mountFrom: ['ghcr.io/org/base'],
      authorityPath: '/ca.pem',
      expectedConfigDigests: [digest],
      expectedRevision: 'abc',
    });
  });

  test('tags: auto creates the tags of the event, first the immutable one (S3.6)', () => {
    const { tags } = plan({ tags: 'auto', repository: 'ghcr.io/org/charon' });
    expect(tags.map(formatReference)).toEqual(
      ['main-6113728', 'latest', 'sha-6113728'].map((tag) => `ghcr.io/org/charon:${tag}`),
    );
  });

  test('tags: auto prefers the tags of docker/metadata-action (C.5)', () => {
    const metadata = { DOCKER_METADATA_OUTPUT_TAGS: 'ghcr.io/org/charon:2' };
    const { tags, notices } = planPublish({ ...given, tags: 'auto' }, { ...facts, metadata });
    expect(tags.map(formatReference)).toEqual(['ghcr.io/org/charon:2']);
    expect(notices).toEqual([expect.stringContaining('docker/metadata-action')]);
  });

  test('a repository with upper-case letters creates one notice (S2.4)', () => {
    expect(plan({ tags: 'ghcr.io/Org/charon:1' }).notices).toEqual([expect.stringContaining('ghcr.io/Org/charon:1')]);
  });

  test('a name and password need tags of one registry', () => {
    const login = { username: 'me', password: 'secret' };
    expect(plan({ ...login, tags: 'ghcr.io/org/charon:1\nghcr.io/org/other:1' }).login).toEqual(login);
    expect(() => plan({ ...login, tags: 'ghcr.io/org/charon:1\norg/charon:1' })).toThrow(
      'names 2 registries: ghcr.io, docker.io.',
    );
  });

  test('the artifact can be from another run of another repository (S3.3)', () => {
    expect(plan({ runId: '7', runRepository: 'org/builder' }).other).toEqual({
      search: { choice: { runId: 7 }, repository: 'org/builder', wanted: ['docker-image'], allowForkRuns: false },
      token: 'token',
    });
    expect(plan({ runId: '7' }).other?.search.repository).toBe('org/charon');
  });

  test.each<[Partial<PublishInputs>, string, string]>([
    [{ tags: 'auto' }, '`tags: auto` has no repository', 'Set `repository`'],
    [{ artifactIds: ['7a'] }, '`artifact-ids` has "7a"; expected', 'artifact-id'],
    [{ artifactNames: [] }, 'The input `artifact-name` is empty.', 'docker-image'],
    [{ artifactNames: ['a/b'] }, 'a/b', ''],
    [{ artifactNames: ['a/*'] }, 'a/', ''],
    [{ mountFrom: ['ghcr.io/org/base:1'] }, '`mount-from` has "ghcr.io/org/base:1"', 'Write ghcr.io/org/base.'],
    [{ mountFrom: [`ghcr.io/org/base@${digest}`] }, 'without a tag or digest', 'Write ghcr.io/org/base.'],
    [{ username: 'me' }, '`username` is given without `password`.', 'Set both'],
    [{ password: 'secret' }, '`password` is given without `username`.', 'Set both'],
    [{ expectedConfigDigests: ['latest'] }, 'is "latest"; expected sha256:', 'config-digest'],
    [{ runId: '7', runRepository: 'charon' }, 'The input `run-repository` is "charon"', 'Correct it'],
    [{ image: `charon@${digest}` }, 'stored under a digest', ''],
  ])('the inputs %j are refused', (inputs, message, hint) => {
    expect(() => plan(inputs)).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });

  test('ids select artifacts instead of the names', () => {
    expect(plan({ artifactIds: ['8', '7', '8'] }).wanted).toEqual(['id:8', 'id:7']);
  });

  test('a pattern can consist of stars and question marks', () => {
    expect(plan({ artifactNames: ['*', 'image-?-*'] }).wanted).toEqual(['*', 'image-?-*']);
  });
});
