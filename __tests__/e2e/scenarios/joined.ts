import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { type AnyStage, jobOf, results, type Scenario } from '../stage.ts';

const joinedAction = 'docs/recipes.md#Have the image here, whoever builds it';

export const joined = {
  name: 'joined',
  title: 'The joined action runs in two jobs that start together and in one that starts later',
  recipes: [joinedAction],
  run: async ({ workflow, world, recipe }: AnyStage): Promise<void> => {
    const steps = indented(recipe(joinedAction), 6);
    const job = (id: string, needs = ''): string =>
      `  ${id}:\n${needs}    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v7\n${steps}\n`;
    // The build is so slow that neither job finds the other's image.
    const repository = world.repository({
      Dockerfile: 'FROM scratch\nCOPY rootfs /\nRUN sleep 4 && echo built > /built\nCMD ["cat", "/built"]\n',
    });
    const run = await workflow(
      `on: push\njobs:\n${job('build-one')}${job('one')}${job('later', '    needs: [build-one, one]\n')}`,
      { repository },
    );
    assert.deepEqual(results(run), ['build-one: success', 'later: success', 'one: success']);
    for (const { log } of run.jobs) assert.match(log, /^built$/m);
    const competitors = [jobOf(run, 'build-one'), jobOf(run, 'one')];
    const handedOver = competitors.filter(({ summary }) => summary.includes('Handed over'));
    const loser = competitors.find(({ summary }) => !summary.includes('Handed over'));
    assert.equal(handedOver.length, 1, 'exactly one of the two jobs reports a handover');
    assert.ok(loser !== undefined);
    assert.doesNotMatch(loser.summary, /id 0|\| Source \| the artifact/);
    assert.equal([...loser.log.matchAll(/^#\d+ \[.*RUN sleep 4/gm)].length, 1, 'the image is built once');
    const later = jobOf(run, 'later');
    assert.match(later.summary, /\| Source \| (the artifact|this engine)/);
    assert.doesNotMatch(later.log, /RUN sleep 4/);
    assert.equal(world.engines.tester.docker('image', 'ls', '--quiet', 'charon:local').trim().split('\n').length, 1);
  },
} as const satisfies Scenario;
