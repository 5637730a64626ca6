import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { eventFacts, type RecordedEvent } from '../fixtures/events.ts';
import { noEvent } from '../fixtures/export-inputs.ts';
import { chooseTags, immutableTag } from '../../shared/image/tags.ts';
import { branchOf, type EventFacts, type WorkflowEvent, workflowEvent } from '../../shared/image/workflow-event.ts';

const sha = 'abc1234def5678abc1234def5678abc1234def56';
const dockerTag = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

const branch = (name: string): WorkflowEvent => ({ kind: 'branch', name, sha, isDefault: false });
const gitTag = (name: string): WorkflowEvent => ({ kind: 'tag', name, sha });
const automaticTags = (found: WorkflowEvent): readonly string[] =>
  chooseTags({ tags: 'auto', repository: 'app' }, { event: found, metadata: {} }, []).map(({ tag }) => tag);
const event = (facts: Partial<EventFacts>): WorkflowEvent => workflowEvent({ ...noEvent, sha, ...facts });

describe('events as GitHub sends them', () => {
  test.each<[RecordedEvent, string | undefined, string | undefined]>([
    ['push-branch', 'feature-add-new-feature-6113728', 'feature/Add_New-Feature'],
    ['push-default-branch', 'main-6113728', 'main'],
    ['push-tag', 'v1.2.3-6113728', undefined],
    ['push-deleted-branch', undefined, undefined],
    ['pull-request', 'pr-123-ec26c3e', 'feature/Add_New-Feature'],
    ['pull-request-target', 'pr-123-ec26c3e', 'feature/Add_New-Feature'],
    ['pull-request-review', 'pr-123-ec26c3e', 'feature/Add_New-Feature'],
    ['workflow-dispatch', 'release-2.x-6113728', 'release/2.x'],
    ['schedule', 'main-d00dd00', 'main'],
    [
      'merge-group',
      'merge-queue-pr-104-2ffea6d',
      'gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64',
    ],
    ['release', 'v2.0.0-rc.1-6113728', undefined],
    ['workflow-run-push', 'feature-dns-subdomain-6113728', 'feature/dns/subdomain'],
    ['workflow-run-pull-request', 'pr-123-ec26c3e', 'feature/Add_New-Feature'],
    ['workflow-run-fork', 'main-ec26c3e', 'main'],
    ['issue-comment-on-pull-request', undefined, undefined],
    ['delete', undefined, undefined],
  ])('the event %s has the immutable tag %s and the branch %s (S1.2, S1.3, S1.4)', (name, tag, from) => {
    const found = workflowEvent(eventFacts(name));
    expect(immutableTag(found)).toBe(tag);
    expect(branchOf(found)).toBe(from);
  });

  test.each<[RecordedEvent, readonly string[]]>([
    ['push-branch', ['feature-add-new-feature-6113728', 'sha-6113728']],
    ['push-default-branch', ['main-6113728', 'latest', 'sha-6113728']],
    ['push-tag', ['v1.2.3-6113728', 'v1.2.3', 'sha-6113728']],
    ['pull-request', ['pr-123-ec26c3e', 'sha-ec26c3e']],
    ['pull-request-target', ['pr-123-ec26c3e', 'sha-ec26c3e']],
    ['workflow-dispatch', ['release-2.x-6113728', 'sha-6113728']],
    ['schedule', ['main-d00dd00', 'latest', 'sha-d00dd00']],
    ['merge-group', ['merge-queue-pr-104-2ffea6d', 'sha-2ffea6d']],
    ['release', ['v2.0.0-rc.1-6113728', 'v2.0.0-rc.1', 'sha-6113728']],
    ['workflow-run-push', ['feature-dns-subdomain-6113728', 'sha-6113728']],
    ['workflow-run-fork', ['main-ec26c3e', 'sha-ec26c3e']],
  ])('the event %s has its automatic tags (S3.6)', (name, tags) => {
    expect(automaticTags(workflowEvent(eventFacts(name)))).toEqual(tags);
  });

  test('the deletion of a branch has no automatic tags (S3.6)', () => {
    expect(() => automaticTags(workflowEvent(eventFacts('push-deleted-branch')))).toThrow('deleted its branch or tag');
  });
});

describe('a pull request', () => {
  const request = { number: 7, head: { sha, ref: 'patch-1' } };

  test('a pull request uses the commit of its head; without that commit it has no tag, not the merge commit’s tag (S1.2)', () => {
    const facts = { name: 'pull_request', ref: 'refs/pull/7/merge' };
    expect(event({ ...facts, payload: { pull_request: request } })).toEqual({
      kind: 'pull-request',
      number: 7,
      sha,
      branch: 'patch-1',
    });
    expect(event({ ...facts, payload: { number: 7, pull_request: { head: {} } } })).toEqual({
      kind: 'none',
      reason: 'the payload of pull_request has no pull_request.head.sha',
    });
    expect(event({ ...facts, payload: undefined }).kind).toBe('none');
  });

  test.each([
    ['in the pull request', { pull_request: request }, 'refs/pull/9/merge', 'pr-7-abc1234'],
    ['next to the pull request', { number: 8, pull_request: { head: { sha } } }, 'refs/pull/9/merge', 'pr-8-abc1234'],
    ['in the ref alone', { pull_request: { head: { sha } } }, 'refs/pull/9/merge', 'pr-9-abc1234'],
    ['nowhere', { pull_request: { number: '7', head: { sha } } }, 'refs/heads/main', undefined],
  ])('a pull request has its number %s (S1.2)', (_, payload, ref, tag) => {
    expect(immutableTag(event({ name: 'pull_request', payload, ref }))).toBe(tag);
  });

  test('the ref refs/pull/7/head is the head of a pull request, but refs/pull/7/merge of another event is a merge commit (S1.2)', () => {
    expect(immutableTag(event({ name: 'workflow_dispatch', ref: 'refs/pull/7/head' }))).toBe('pr-7-abc1234');
    expect(event({ name: 'deployment', ref: 'refs/pull/7/merge' })).toMatchObject({ kind: 'none' });
  });

  test('a run that pull_request_target triggered uses head_commit, because its head_sha is of the base branch (S1.2)', () => {
    const run = {
      event: 'pull_request_target',
      head_sha: 'f'.repeat(40),
      pull_requests: [{ number: 7, head: { sha } }],
    };
    const found = (more: object): WorkflowEvent =>
      event({ name: 'workflow_run', payload: { workflow_run: { ...run, ...more } } });
    expect(immutableTag(found({ head_commit: { id: sha } }))).toBe('pr-7-abc1234');
    expect(found({}).kind).toBe('none');
  });

  test('a pull request has the branch from the payload, or from GITHUB_HEAD_REF otherwise (S1.4)', () => {
    const payload = { pull_request: { number: 7, head: { sha } } };
    expect(branchOf(event({ name: 'pull_request', payload, headRef: 'from-env' }))).toBe('from-env');
    expect(branchOf(event({ name: 'pull_request', payload }))).toBeUndefined();
  });
});

describe('a branch', () => {
  test.each([
    ['feature/Add_New-Feature', 'feature-add-new-feature'],
    ['feature/dns/subdomain', 'feature-dns-subdomain'],
    ['feature/fix-#123', 'feature-fix-123'],
    ['renovate/npm-@types/node-24.x', 'renovate-npm-types-node-24.x'],
    ['dependabot/npm_and_yarn/eslint-10.15.0', 'dependabot-npm-and-yarn-eslint-10.15.0'],
    ['.hidden/-x', 'hidden-x'],
    ['-.-lead', 'lead'],
    ['trail-#', 'trail'],
    ['trail.', 'trail.'],
    ['grün/größe', 'gr-n-gr-e'],
    ['🚀/ship-it-🚀', 'ship-it'],
    ['分支', 'branch'],
    ['...', 'branch'],
    ['-', 'branch'],
    ['', 'branch'],
    ['a'.repeat(250), 'a'.repeat(120)],
    [`${'a'.repeat(119)}--b`, 'a'.repeat(119)],
    ['MAIN', 'main'],
    ['1.0', '1.0'],
  ])('the branch %j has the name %s in tags (S1.3)', (name, cleaned) => {
    expect(immutableTag(branch(name))).toBe(`${cleaned}-abc1234`);
  });

  const anyName = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({ unit: fc.constantFrom('a', 'Z', '.', '-', '/', '_', '#', 'é', '🚀'), maxLength: 300 }),
  );
  const hexDigits = Array.from({ length: 16 }, (_, digit) => digit.toString(16));
  const anySha = fc.string({ unit: fc.constantFrom(...hexDigits), minLength: 40, maxLength: 40 });

  test('property: any branch and any git tag give a valid tag of at most 128 characters that ends with the short commit (S1.3)', () => {
    fc.assert(
      fc.property(anyName, anySha, fc.constantFrom('branch', 'tag'), (name, commit, kind) => {
        const found: WorkflowEvent =
          kind === 'tag' ? { kind, name, sha: commit } : { kind: 'branch', name, sha: commit, isDefault: true };
        const tag = immutableTag(found) ?? '';
        expect(tag).toMatch(dockerTag);
        expect(tag.endsWith(`-${commit.slice(0, 7)}`)).toBe(true);
        expect(tag).toMatch(/^[a-z0-9][a-z0-9.-]*$/);
        expect(tag).not.toContain('--');
        expect(immutableTag(found)).toBe(tag);
        for (const one of automaticTags(found)) expect(one).toMatch(dockerTag);
      }),
    );
  });

  test('property: any facts give an event or a reason, and never an error', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('push', 'pull_request', 'merge_group', 'workflow_run', 'release', 'issue_comment', 'fork'),
        fc.oneof(fc.jsonValue(), fc.record({ pull_request: fc.jsonValue(), workflow_run: fc.jsonValue() })),
        fc.oneof(anyName, fc.constantFrom('refs/heads/x', 'refs/tags/y', 'refs/pull/1/merge')),
        fc.oneof(anyName, anySha),
        (name, payload, ref, commit) => {
          const found = event({ name, payload, ref, sha: commit });
          if (found.kind === 'none') expect(found.reason).not.toBe('');
          else expect(immutableTag(found)).toMatch(dockerTag);
        },
      ),
    );
  });
});

describe('git tags and releases', () => {
  test.each([
    ['v1.2.3', 'v1.2.3', 'v1.2.3-abc1234'],
    ['v1.2.3+build.5', 'v1.2.3-build.5', 'v1.2.3-build.5-abc1234'],
    ['component/v1.2.3', 'component-v1.2.3', 'component-v1.2.3-abc1234'],
    ['V2_RC', 'V2_RC', 'v2-rc-abc1234'],
    ['.1', '1', '1-abc1234'],
    ['x'.repeat(200), 'x'.repeat(128), `${'x'.repeat(120)}-abc1234`],
  ])('the git tag %s has the tag %s, and the immutable tag %s (S3.6)', (name, tag, immutable) => {
    expect(automaticTags(gitTag(name))).toEqual([immutable, tag, 'sha-abc1234']);
  });

  test('a git tag without a usable character has only the immutable tag and the tag of the commit (S3.6)', () => {
    expect(automaticTags(gitTag('🚀'))).toEqual(['tag-abc1234', 'sha-abc1234']);
  });

  test('a release without a ref uses its tag name', () => {
    expect(event({ name: 'release', payload: { release: { tag_name: 'v3' } } })).toEqual(gitTag('v3'));
  });
});

describe('other events', () => {
  const repository = { full_name: 'o/r', default_branch: 'main' };
  const latest = (facts: Partial<EventFacts>): boolean =>
    automaticTags(event({ ref: 'refs/heads/main', payload: { repository }, ...facts })).includes('latest');

  test.each(['push', 'schedule', 'workflow_dispatch', 'repository_dispatch'])(
    'the event %s on the default branch has the tag latest (S3.6)',
    (name) => {
      expect(latest({ name })).toBe(true);
      expect(latest({ name, ref: 'refs/heads/other' })).toBe(false);
    },
  );

  test.each(['issue_comment', 'issues', 'check_run', 'fork', 'deployment', 'watch'])(
    'the event %s runs on the default branch, but may concern another commit, so it does not have the tag latest (S3.6)',
    (name) => {
      expect(latest({ name })).toBe(false);
    },
  );

  test('a run for the main branch of a fork does not have the tag latest, but a push to this repository does (S3.6)', () => {
    const run = (event: string, head: string): boolean =>
      latest({
        name: 'workflow_run',
        payload: {
          repository,
          workflow_run: { event, head_branch: 'main', head_sha: sha, head_repository: { full_name: head } },
        },
      });
    expect(run('push', 'o/r')).toBe(true);
    expect(run('push', 'stranger/r')).toBe(false);
    expect(run('pull_request', 'stranger/r')).toBe(false);
    expect(run('pull_request', 'o/r')).toBe(false);
  });

  test.each([
    [
      'a merge group without payload',
      { name: 'merge_group', ref: 'refs/heads/gh-readonly-queue/a/b/pr-5-0123abc' },
      'merge-queue-pr-5-abc1234',
    ],
    [
      'a push to a queue’s branch',
      { name: 'push', ref: 'refs/heads/gh-readonly-queue/main/pr-5-0123abc' },
      'merge-queue-pr-5-abc1234',
    ],
    [
      'a queue’s branch in another form',
      { name: 'merge_group', ref: 'refs/heads/gh-readonly-queue/x' },
      'gh-readonly-queue-x-abc1234',
    ],
    ['a deployment of a commit', { name: 'deployment', ref: '' }, 'sha-abc1234'],
    ['a ref of another kind', { name: 'push', ref: 'refs/notes/commits' }, 'sha-abc1234'],
    ['a short ref of a branch', { name: 'push', ref: 'topic' }, 'topic-abc1234'],
    ['a short ref of a tag', { name: 'push', ref: '', refName: 'v1', refType: 'tag' }, 'v1-abc1234'],
    ['a ref only in the payload', { name: 'push', payload: { ref: 'refs/heads/x', after: sha }, sha: '' }, 'x-abc1234'],
    ['a commit in upper case', { name: 'push', ref: 'refs/heads/x', sha: sha.toUpperCase() }, 'x-abc1234'],
    [
      'a release’s run',
      { name: 'workflow_run', payload: { workflow_run: { event: 'release', head_branch: 'v1', head_sha: sha } } },
      'v1-abc1234',
    ],
    [
      'a run without a branch',
      { name: 'workflow_run', payload: { workflow_run: { head_branch: null, head_sha: sha } } },
      'sha-abc1234',
    ],
  ])('%s has its own tag', (_, facts, tag) => {
    expect(immutableTag(event(facts))).toBe(tag);
  });

  test.each([
    ['no event', { name: '' }, 'there is no workflow event here'],
    ['a deletion', { name: 'delete', ref: 'refs/heads/main' }, 'deletion'],
    ['no commit', { name: 'push', ref: 'refs/heads/x', sha: '' }, 'the event names no commit'],
    ['a commit of only zeros', { name: 'push', ref: 'refs/heads/x', sha: '0'.repeat(40) }, 'the event names no commit'],
    ['an invalid commit', { name: 'push', ref: 'refs/heads/x', sha: 'HEAD' }, 'the event names no commit'],
    ['a run without commit', { name: 'workflow_run', payload: {} }, 'no commit of the run that triggered it'],
    [
      'a run for a comment',
      { name: 'workflow_run', payload: { workflow_run: { event: 'issue_comment', head_sha: sha } } },
      'was for a comment',
    ],
    ['a payload that isn’t an object', { name: 'pull_request', payload: [1] }, 'no pull request number'],
  ])('%s has no tag, and the reason explains why', (_, facts, reason) => {
    const found = event(facts);
    expect(found).toEqual({ kind: 'none', reason: expect.stringContaining(reason) });
    expect(immutableTag(found)).toBeUndefined();
    expect(() => automaticTags(found)).toThrow(reason);
  });
});

describe('an event with missing or unusual facts', () => {
  const other = '2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d';
  const repository = { full_name: 'org/charon', default_branch: 'main' };
  const run = (facts: object, more: object = {}): Partial<EventFacts> => ({
    name: 'workflow_run',
    ref: 'refs/heads/main',
    payload: { repository, workflow_run: { head_sha: other, head_repository: repository, ...facts }, ...more },
  });
  const requests = [
    { number: 1, head: { sha } },
    { number: 2, head: { sha: other } },
  ];
  test.each<[string, Partial<EventFacts>, Partial<WorkflowEvent>]>([
    [
      'a release without a ref',
      { name: 'release', payload: { release: { tag_name: 'v1' } } },
      { kind: 'tag', name: 'v1' },
    ],
    ['nothing but a commit', { name: 'deployment' }, { kind: 'commit', sha }],
    ['a short name of a tag', { name: 'push', refName: 'v1', refType: 'tag' }, { kind: 'tag', name: 'v1' }],
    ['a short name of a branch', { name: 'push', refName: 'v1', refType: 'branch' }, { kind: 'branch', name: 'v1' }],
    ['a created tag', { name: 'create', payload: { ref: 'v1', ref_type: 'tag' } }, { kind: 'tag', name: 'v1' }],
    ['a created branch', { name: 'create', payload: { ref: 'b', ref_type: 'branch' } }, { kind: 'branch', name: 'b' }],
    [
      'a branch that the payload calls a tag',
      { name: 'push', ref: 'b', refType: 'branch', payload: { ref_type: 'tag' } },
      { kind: 'branch', name: 'b' },
    ],
    ['an unusual ref', { name: 'push', ref: 'refs/heads' }, { kind: 'commit' }],
    ['a ref within another', { name: 'push', ref: 'refs/x/refs/tags/v1' }, { kind: 'commit' }],
    ['the head of a pull request', { name: 'push', ref: 'refs/pull/12/head' }, { kind: 'pull-request', number: 12 }],
    ['another pull ref', { name: 'push', ref: 'refs/pull/x/1/head' }, { kind: 'none' }],
    ['a merge commit', { name: 'push', ref: 'refs/pull/12/merge' }, { kind: 'none' }],
    [
      'a branch like a queue’s',
      { name: 'push', ref: 'refs/heads/x/gh-readonly-queue/main/pr-1-abc1234' },
      { kind: 'branch' },
    ],
    [
      'a queue’s branch with a tail',
      { name: 'push', ref: 'refs/heads/gh-readonly-queue/main/pr-1-abc/x' },
      { kind: 'branch' },
    ],
    [
      'a merge queue by its payload',
      {
        name: 'merge_group',
        payload: { merge_group: { head_ref: 'refs/heads/gh-readonly-queue/main/pr-7-abc1234', head_sha: other } },
      },
      { kind: 'merge-queue', number: 7, sha: other },
    ],
    [
      'a merge queue of the default branch',
      { name: 'merge_group', ref: 'refs/heads/main', payload: { repository } },
      { kind: 'branch', isDefault: false, sha },
    ],
    [
      'a pull request whose number is only in its ref',
      {
        name: 'pull_request',
        ref: 'refs/pull/123/merge',
        payload: { number: 0, pull_request: { number: -1, head: { sha: other } } },
      },
      { kind: 'pull-request', number: 123, sha: other },
    ],
    [
      'a pull request without a number',
      {
        name: 'pull_request',
        ref: 'refs/heads/refs/pull/1/merge',
        payload: { pull_request: { number: '5', head: { sha: other } } },
      },
      { kind: 'none', reason: 'the payload of pull_request has no pull request number' },
    ],
    [
      'an event about a pull request',
      { name: 'check', payload: { number: 3, pull_request: { head: { sha: other } } } },
      { number: 3 },
    ],
    [
      'an event that only ends like one about a pull request',
      { name: 'not_pull_request', ref: 'refs/heads/b' },
      { kind: 'branch', name: 'b' },
    ],
    [
      'a comment on a pull request',
      { name: 'issue_comment', ref: 'refs/heads/main', payload: { issue: { pull_request: {} } } },
      { kind: 'none', reason: 'the event issue_comment names a pull request, but not its commit' },
    ],
    [
      'no GITHUB_SHA',
      { name: 'push', ref: 'refs/heads/b', sha: '', payload: { head_commit: { id: other } } },
      { kind: 'branch', sha: other },
    ],
    [
      'zeros for a commit',
      { name: 'push', ref: 'refs/heads/b', sha: '0'.repeat(40), payload: { after: other } },
      { sha: other },
    ],
    [
      'a commit that begins with zeros',
      { name: 'push', ref: 'refs/heads/b', sha: `000${sha.slice(3)}` },
      { kind: 'branch' },
    ],
    [
      'a commit that ends with zeros',
      { name: 'push', ref: 'refs/heads/b', sha: `${sha.slice(3)}000` },
      { kind: 'branch' },
    ],
    [
      'texts that only contain a commit',
      { name: 'push', ref: 'refs/heads/b', sha: `x${sha}`, payload: { after: `${other}x` } },
      { kind: 'none' },
    ],
    [
      'a deleted file',
      { name: 'workflow_dispatch', ref: 'refs/heads/b', payload: { deleted: true } },
      { kind: 'branch' },
    ],
    ['a run for a release', run({ event: 'release', head_branch: 'v1' }), { kind: 'tag', name: 'v1', sha: other }],
    ['a run for a release without a tag', run({ event: 'release' }), { kind: 'commit', sha: other }],
    ['a run without a branch', run({ event: 'push' }), { kind: 'commit', sha: other }],
    ['a run of the default branch', run({ event: 'push', head_branch: 'main' }), { kind: 'branch', isDefault: true }],
    [
      'a run of a fork’s branch of that name',
      run({ event: 'push', head_branch: 'main', head_repository: { full_name: 'fork/charon' } }),
      { kind: 'branch', isDefault: false },
    ],
    [
      'a run whose repositories are unknown',
      run({ event: 'push', head_branch: 'main', head_repository: {} }, { repository: { default_branch: 'main' } }),
      { isDefault: false },
    ],
    [
      'the pull request of that commit',
      run({ event: 'pull_request', pull_requests: requests }),
      { number: 2, sha: other },
    ],
    ['the first pull request', run({ event: 'pull_request', pull_requests: requests.slice(0, 1) }), { number: 1 }],
    [
      'a push with pull requests',
      run({ event: 'push', pull_requests: requests, head_branch: 'b' }),
      { kind: 'branch' },
    ],
    ['a schedule without a repository', { name: 'schedule', ref: 'refs/heads/b' }, { isDefault: true }],
    ['a push without a repository', { name: 'push', ref: 'refs/heads/b' }, { isDefault: false }],
    [
      'an event without a branch',
      { name: 'deployment', ref: 'refs/heads/main', payload: { repository } },
      { isDefault: false },
    ],
  ])('%s', (_, facts, expected) => {
    expect(event(facts)).toMatchObject(expected);
  });

  test('a pull request has a branch only if it is known', () => {
    const found = event(run({ event: 'pull_request', pull_requests: requests }));
    expect(found).toHaveProperty('branch', undefined);
    expect(branchOf({ kind: 'tag', name: 'v1', sha })).toBeUndefined();
    expect(event(run({ event: 'pull_request', pull_requests: requests, head_branch: 'b' }))).toMatchObject({
      branch: 'b',
    });
  });
});
