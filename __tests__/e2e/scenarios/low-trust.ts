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
  title: 'README’s first workflow passes with one notice on events whose token may only read the cache (B.12)',
  recipes: ['README.md#Image Handover'],
  run: async ({ workflow, recipe, world, service }) => {
    const text = recipe('README.md#Image Handover');
    const expected = ['build: success', ...suites.map((suite) => `integration ${suite}: success`)];
    for (const [runId, name] of ['pull_request_target', 'pull_request'].entries()) {
      const onEvent = text.replace(/^on: .*$/m, `on: ${name}`);
      assert.notEqual(onEvent, text);
      const event = {
        name,
        ref: name === 'pull_request' ? 'refs/pull/7/merge' : 'refs/heads/main',
        payload: pullRequest,
      };
      const run = await workflow(onEvent, { runId: String(runId + 1), event, cache: 'read' });
      assert.deepEqual(results(run), expected);
      const { annotations } = jobOf(run, 'build');
      assert.deepEqual(
        annotations.map(({ level }) => level),
        ['notice'],
      );
      assert.match(
        annotations[0]?.message ?? '',
        /^A build cache failed, .*type=gha,mode=max was not written: .*no writable scopes/,
      );
      assert.deepEqual(service.cacheEntries, []);
      world.clearEngines();
    }
    // On a push, the same workflow writes the cache, and the fork's run reads it.
    const pushed = await workflow(text, { runId: '3', cache: 'write' });
    assert.deepEqual(results(pushed), expected);
    assert.deepEqual(jobOf(pushed, 'build').annotations, []);
    assert.ok(service.cacheEntries.some(({ key, finalised }) => key.startsWith('index-') && finalised));
    world.clearEngines();
    const fork = { name: 'pull_request', ref: 'refs/pull/7/merge', payload: pullRequest };
    const again = await workflow(text.replace(/^on: .*$/m, 'on: pull_request'), {
      runId: '4',
      event: fork,
      cache: 'read',
    });
    assert.deepEqual(results(again), expected);
    assert.match(jobOf(again, 'build').summary, /4 cached, 0 executed/);
  },
};
