import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { startRegistry } from '../../../dev/docker-registry.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const recipeId = 'docs/recipes.md#Take databases and browsers without rate limits';

export const thirdParty: Scenario = {
  name: 'third-party',
  title: 'A scheduled workflow pulls third-party images, and test jobs load them from its artifact',
  recipes: [recipeId],
  run: async ({ workflow, recipe, service, world }) => {
    const registry = await startRegistry();
    const { builder, tester } = world.engines;
    const here = (text: string): string => text.replaceAll(/\b(postgres|redis):\d+/g, `${registry.address}/$&`);
    try {
      const files = join(world.directory, 'third-party.tar');
      execFileSync('tar', ['-C', join(world.directory, 'rootfs'), '-cf', files, '.']);
      for (const [name, text] of [
        ['postgres:17', 'a database'],
        ['redis:8', 'a cache'],
      ] as const) {
        const image = `${registry.address}/${name}`;
        builder.docker('import', '--change', `CMD ["echo", "${text}"]`, files, image);
        builder.docker('push', '--quiet', image);
      }
      world.clearEngines();
      const event = { name: 'schedule', ref: 'refs/heads/main', payload: { repository: { default_branch: 'main' } } };
      const pulled = await workflow(here(recipe(recipeId)), { runId: '200', event, builderJobs: ['take'] });
      assert.deepEqual(results(pulled), ['take: success']);
      service.addRun({ id: 200, workflow: 'third-party.yml', event: 'schedule' });
      assert.equal(tester.docker('image', 'ls', '--quiet', `${registry.address}/*`), '');

      const testing = here(recipe(recipeId, 1)).replace(' redis-server --version', '');
      const tested = await workflow(testing, { runId: '201' });
      assert.deepEqual(results(tested), ['test: success']);
      assert.match(jobOf(tested, 'test').log, /^a cache$/m);
      const listed = tester.docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}');
      for (const name of ['postgres:17', 'redis:8']) assert.match(listed, new RegExp(`/${name}$`, 'm'));
    } finally {
      await registry.stop();
    }
  },
};
