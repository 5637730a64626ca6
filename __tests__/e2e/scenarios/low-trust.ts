import assert from 'node:assert/strict';
import { jobOf, results, type Scenario } from '../stage.ts';

const suites = ['cerberus', 'crowdsec', 'ratelimit', 'waf'];

/** The event payload of a pull request from a fork. */
const pullRequest = {
  number: 7,
  action: 'opened',
  pull_request: {
    number: 7,
    head: {
      ref: 'feature',
      sha: '0123456789abcdef0123456789abcdef01234567',
      repo: { full_name: 'fork/charon', fork: true },
    },
    base: { ref: 'main', repo: { full_name: 'org/charon' } },
  },
  repository: { full_name: 'org/charon', default_branch: 'main', fork: false },
};

export const lowTrust: Scenario = {
  name: 'low-trust',
  title: 'README’s first workflow writes a cache that later runs can read; a refused cache causes one notice (B.12)',
  recipes: ['README.md#Image Handover'],
  run: async ({ workflow, recipe, world, service }) => {
    const text = recipe('README.md#Image Handover');
    const expected = ['build: success', ...suites.map((suite) => `integration ${suite}: success`)];
    const queue = 'refs/heads/gh-readonly-queue/main/pr-7-0123456789abcdef0123456789abcdef01234567';
    const refs = { pull_request_target: 'refs/heads/main', merge_group: queue, pull_request: 'refs/pull/7/merge' };
    for (const [runId, [name, ref]] of Object.entries(refs).entries()) {
      const onEvent = text.replace(/^on: .*$/m, `on: ${name}`);
      assert.notEqual(onEvent, text);
      const event = { name, ref, payload: pullRequest };
      const run = await workflow(onEvent, {
        runId: String(runId + 1),
        event,
        cache: name === 'merge_group' ? 'write' : 'read',
      });
      assert.deepEqual(results(run), expected);
      const { annotations, log } = jobOf(run, 'build');
      const isTried = name === 'pull_request';
      assert.match(log, isTried ? /cache-to: auto writes type=gha,mode=max/ : /cache-to: auto writes nothing/);
      assert.deepEqual(
        annotations.map(({ level }) => level),
        isTried ? ['notice'] : [],
      );
      assert.match(
        annotations[0]?.message ?? '',
        isTried ? /^A build cache failed, .*type=gha,mode=max was not written: .*no writable scopes/ : /^$/,
      );
      assert.deepEqual(service.cacheEntries, []);
      world.clearEngines();
    }
    // On a push, the same workflow writes the cache, and the fork's run reads it.
    const pushed = await workflow(text, { runId: '4', cache: 'write' });
    assert.deepEqual(results(pushed), expected);
    assert.deepEqual(jobOf(pushed, 'build').annotations, []);
    assert.ok(service.cacheEntries.some(({ key, finalised }) => key.startsWith('index-') && finalised));
    world.clearEngines();
    const fork = { name: 'pull_request', ref: 'refs/pull/7/merge', payload: pullRequest };
    const again = await workflow(text.replace(/^on: .*$/m, 'on: pull_request'), {
      runId: '5',
      event: fork,
      cache: 'read',
    });
    assert.deepEqual(results(again), expected);
    assert.match(jobOf(again, 'build').summary, /4 cached, 0 executed/);
  },
};
