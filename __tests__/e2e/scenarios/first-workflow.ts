import assert from 'node:assert/strict';
import { type AnyStage, jobOf, results, type Scenario } from '../stage.ts';

const suites = ['cerberus', 'crowdsec', 'ratelimit', 'waf'];

export const firstWorkflow = {
  name: 'first-workflow',
  title: 'README’s first workflow runs unchanged, and a second run uses its cache',
  recipes: ['README.md#Image Handover'],
  run: async ({ workflow, world, recipe }: AnyStage): Promise<void> => {
    const text = recipe('README.md#Image Handover');
    const expected = ['build: success', ...suites.map((suite) => `integration ${suite}: success`)];
    for (const runId of ['1', '2']) {
      const run = await workflow(text, { runId });
      assert.deepEqual(results(run), expected);
      const build = jobOf(run, 'build');
      assert.match(build.summary, /Handed over `app:ci`/);
      assert.match(build.summary, runId === '1' ? /0 cached, 4 executed/ : /4 cached, 0 executed/);
      for (const suite of suites) {
        const job = jobOf(run, 'integration', suite);
        assert.match(job.log, new RegExp(`^charon dev: ${suite}$`, 'm'));
        assert.match(job.summary, /`app:ci`/);
        assert.deepEqual(job.annotations, []);
      }
      assert.deepEqual(build.annotations, []);
      const references = (engine: 'builder' | 'tester'): string =>
        world.engines[engine].docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}', 'app');
      assert.equal(references('tester'), 'app:ci\n');
      assert.equal(references('builder'), '');
      world.clearEngines();
    }
  },
} as const satisfies Scenario;
