import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const joinedAction = 'docs/recipes.md#Have the image here, whoever builds it';

export const joined: Scenario = {
  name: 'joined',
  title: 'The joined action: two jobs that start at once, and one that comes later',
  recipes: [joinedAction],
  run: async ({ workflow, world, recipe }) => {
    const steps = indented(recipe(joinedAction), 6);
    const job = (id: string, needs = ''): string =>
      `  ${id}:\n${needs}    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v7\n${steps}\n`;
    // So slow that neither can find the other's.
    const repository = world.repository({
      Dockerfile: 'FROM scratch\nCOPY rootfs /\nRUN sleep 4 && echo built > /built\nCMD ["cat", "/built"]\n',
    });
    const run = await workflow(
      `on: push\njobs:\n${job('build-one')}${job('one')}${job('later', '    needs: [build-one, one]\n')}`,
      { repository },
    );
    assert.deepEqual(results(run), ['build-one: success', 'later: success', 'one: success']);
    for (const { log } of run.jobs) assert.match(log, /^built$/m);
    const racers = [jobOf(run, 'build-one'), jobOf(run, 'one')];
    const handed = racers.filter(({ summary }) => summary.includes('Handed over'));
    const kept = racers.find(({ summary }) => !summary.includes('Handed over'));
    assert.equal(handed.length, 1, 'one of the two has handed its image over, and the other doesn’t say so');
    assert.ok(kept !== undefined);
    assert.doesNotMatch(kept.summary, /id 0|\| Source \| the artifact/);
    assert.equal([...kept.log.matchAll(/^#\d+ \[.*RUN sleep 4/gm)].length, 1, 'it builds once');
    const later = jobOf(run, 'later');
    assert.match(later.summary, /\| Source \| (the artifact|this engine)/);
    assert.doesNotMatch(later.log, /RUN sleep 4/);
    assert.equal(world.engines.tester.docker('image', 'ls', '--quiet', 'charon:local').trim().split('\n').length, 1);
  },
};
