import assert from 'node:assert/strict';
import { startRegistry } from '../../../dev/docker-registry.ts';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const tested = 'docs/recipes.md#Publish what was tested';
const platforms = 'docs/recipes.md#Publish one image for several platforms';
const readme = 'publish-image/README.md#publish-image';
const readmeIndex = 'publish-image/README.md#Several platforms';
// The build runs no commands, so two platforms need no emulator.
const copied = 'FROM scratch\nCOPY rootfs /\nCOPY src/charon.sh /charon\nCMD ["sh"]\n';

export const publish: Scenario = {
  name: 'publish',
  title: 'The tested image is published by its digest, and two platforms as one index',
  recipes: [tested, platforms, readme, readmeIndex],
  run: async ({ workflow, world, recipe, login }) => {
    const registry = await startRegistry({ login });
    const { builder, tester } = world.engines;
    const here = (text: string): string => text.replaceAll('ghcr.io', registry.address);
    const pulled = (engine: typeof tester, reference: string): string => {
      engine.docker('login', '--username', login.user, '--password', login.password, registry.address);
      engine.docker('pull', '--quiet', reference);
      return engine.docker('image', 'inspect', '--format', '{{.Id}} {{.Architecture}}', reference).trim();
    };
    try {
      const run = await workflow(here(recipe(tested)));
      assert.deepEqual(results(run), ['build: success', 'integration: success', 'publish: success']);
      const { log, summary } = jobOf(run, 'publish');
      assert.match(summary, /🚀 Published/);
      const digest = /org\/charon:latest: published, (sha256:[0-9a-f]{64})/.exec(log)?.[1] ?? '';
      const loaded = jobOf(run, 'integration').summary;
      assert.match(loaded, new RegExp(`\\| Image ID here \\| \`${digest}\``), 'the digest of the tested image');
      world.clearEngines();
      assert.equal(pulled(tester, `${registry.address}/org/charon@${digest}`).split(' ')[0], digest);

      world.clearEngines();
      const legs = here(recipe(platforms)).replace('ubuntu-24.04-arm', 'ubuntu-latest');
      const both = await workflow(legs, {
        runId: '2',
        repository: world.repository({ Dockerfile: copied }),
      });
      assert.deepEqual(
        results(both).filter((line) => line.endsWith(': success')),
        results(both),
      );
      assert.equal(results(both).length, 3);
      world.clearEngines();
      builder.docker('login', '--username', login.user, '--password', login.password, registry.address);
      const index = builder.docker('buildx', 'imagetools', 'inspect', `${registry.address}/org/charon:latest`);
      for (const platform of ['linux/amd64', 'linux/arm64']) assert.match(index, new RegExp(`Platform: +${platform}`));

      const [first = '', second = ''] = [recipe(readme), recipe(readmeIndex)].map(here);
      const steps = `${first}${second}`;
      const again = await workflow(
        `on: push\njobs:\n  publish:\n    runs-on: ubuntu-latest\n    steps:\n${indented(steps, 6)}\n`.replace(
          'with:\n          tags:',
          'with:\n          artifact-name: docker-image-linux-amd64\n          tags:',
        ),
        { runId: '2' },
      );
      assert.deepEqual(results(again), ['publish: success']);
      assert.match(jobOf(again, 'publish').summary, /Already published/);
    } finally {
      await registry.stop();
    }
  },
};
