import { describe, expect, test } from '@jest/globals';
import { eventFacts, type RecordedEvent } from '../fixtures/events.ts';
import { exportFacts, exportInputs, noEvent } from '../fixtures/export-inputs.ts';
import { type ExportFacts, planExport } from '../../export-image/plan/plan.ts';

interface Written {
  readonly caches: readonly string[];
  readonly remarks: readonly string[];
}

/** Plans a build, and returns its caches to write and what the log shows about them. */
function written(facts: Partial<ExportFacts>, cacheTo: readonly string[] = ['auto'], requireCache = false): Written {
  const build = { ...exportInputs.build, cacheTo };
  const { source, remarks } = planExport({ ...exportInputs, build, requireCache }, { ...exportFacts, ...facts });
  return { caches: source.kind === 'build' ? source.build.cacheTo : [], remarks };
}

const on = (event: RecordedEvent): Partial<ExportFacts> => ({ event: eventFacts(event) });
const main = on('push-default-branch');
const gha = ['type=gha,mode=max'];

describe('cache-to: auto writes a cache that a later run can read (B.12)', () => {
  test.each<[RecordedEvent, string]>([
    ['push-default-branch', 'all later runs'],
    ['schedule', 'all later runs'],
    ['push-branch', 'the next runs of this branch and of pull requests into it'],
    ['workflow-dispatch', 'the next runs of this branch and of pull requests into it'],
    ['pull-request', 'the next runs of this pull request'],
    ['pull-request-review', 'the next runs of this pull request'],
  ])('it writes on the event %s, for %s', (event, readers) => {
    expect(written(on(event))).toEqual({
      caches: gha,
      remarks: [`cache-to: auto writes type=gha,mode=max, for ${readers}.`],
    });
  });

  test.each<[RecordedEvent, string]>([
    ['merge-group', 'GitHub deletes the branch of a merge queue, and no other run can read its cache'],
    ['push-tag', 'only runs of the same tag could read it'],
    ['release', 'only runs of the same tag could read it'],
    [
      'pull-request-target',
      'a run for pull_request_target may not write the cache of its branch, or builds another commit',
    ],
    [
      'issue-comment-on-pull-request',
      'a run for issue_comment may not write the cache of its branch, or builds another commit',
    ],
    ['workflow-run-push', 'a run for workflow_run may not write the cache of its branch, or builds another commit'],
    ['workflow-run-fork', 'a run for workflow_run may not write the cache of its branch, or builds another commit'],
    [
      'workflow-run-pull-request',
      'a run for workflow_run may not write the cache of its branch, or builds another commit',
    ],
  ])('it writes nothing on the event %s', (event, why) => {
    expect(written(on(event))).toEqual({ caches: [], remarks: [`cache-to: auto writes nothing: ${why}.`] });
  });

  test('a workflow_run after a push to the default branch writes, because it builds that branch', () => {
    const recorded = eventFacts('workflow-run-push');
    const repository = { full_name: 'org/charon', default_branch: 'main' };
    const run = { event: 'push', head_branch: 'main', head_sha: recorded.sha, head_repository: repository };
    const event = { ...recorded, payload: { workflow_run: run, repository } };
    expect(written({ event }).caches).toEqual(gha);
  });

  test.each([
    [
      'a push to the branch of a merge queue',
      'push',
      'refs/heads/gh-readonly-queue/main/pr-1-abc1234',
      {},
      'of a merge queue',
    ],
    ['a merge queue with any ref', 'merge_group', 'refs/heads/main', {}, 'of a merge queue'],
    ['a merge queue’s own form of its ref', 'push', 'refs/gh-readonly-queue/main/pr-1-abc1234', {}, 'of a merge queue'],
    ['a closed pull request', 'pull_request', 'refs/pull/7/merge', { action: 'closed' }, 'this pull request is closed'],
    [
      'a merged pull request, which runs on its base branch',
      'pull_request',
      'refs/heads/main',
      { action: 'closed' },
      'a run for pull_request may not write',
    ],
    ['a deployment of a bare commit', 'deployment', '', {}, 'this run has no branch or pull request'],
  ])('it writes nothing on %s', (_, name, ref, payload, why) => {
    const event = { ...noEvent, name, ref, payload };
    expect(written({ event })).toEqual({
      caches: [],
      remarks: [expect.stringMatching(`^cache-to: auto writes nothing: .*${why}`)],
    });
  });

  test.each(['push', 'repository_dispatch', 'create', 'delete', 'registry_package', 'page_build'])(
    'it writes the cache of a branch on the event %s',
    (name) => {
      const event = { ...noEvent, name, ref: 'refs/heads/topic/gh-readonly-queue/x' };
      expect(written({ event }).caches).toEqual(gha);
    },
  );

  test.each([
    ['in a job with cache-mode read', { cacheMode: 'read' }, "this job's `cache-mode` is `read`"],
    ['in a job with cache-mode none', { cacheMode: 'none' }, "this job's `cache-mode` is `none`"],
    ['without a cache service', { hasCacheService: false }, 'there is no Actions cache service here'],
  ])('it writes nothing %s, and shows no notice', (_, facts, why) => {
    expect(written({ ...main, ...facts })).toEqual({
      caches: [],
      remarks: [`cache-to: auto writes nothing: ${why}.`],
    });
  });

  test('a job with cache-mode write-only writes', () => {
    expect(written({ ...main, cacheMode: 'write-only' }).caches).toEqual(gha);
  });

  test('it writes nothing with require-cache, because another build wrote the cache', () => {
    expect(written(main, ['auto'], true)).toEqual({
      caches: [],
      remarks: ['cache-to: auto writes nothing: with `require-cache`, another build writes the cache.'],
    });
  });
});

test.each<RecordedEvent>(['merge-group', 'push-tag', 'pull-request-target', 'pull-request'])(
  'an explicit cache-to is kept unchanged on the event %s, even next to auto (B.12)',
  (event) => {
    const explicit = ['type=gha,scope=x', 'type=local,dest=x'];
    expect(written(on(event), explicit)).toEqual({ caches: explicit, remarks: [] });
    expect(written(on(event), ['auto', ...explicit]).caches).toEqual([
      ...explicit,
      ...(event === 'pull-request' ? gha : []),
    ]);
    expect(written(on(event), explicit, true).caches).toEqual(explicit);
  },
);

test('a build without cache-to writes no cache', () => {
  expect(written(main, [])).toEqual({ caches: [], remarks: [] });
});
