import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const early = 'docs/recipes.md#Start before the image is built';
const base = 'docs/recipes.md#Build on the image';

export const earlyAndBase: Scenario = {
  name: 'early',
  title: 'A job starts together with the build and waits for the image; another image is built on it',
  recipes: [early, base],
  run: async ({ workflow, recipe, service, world }) => {
    const jobs = [{ name: 'build' }, { name: 'integration' }];
    service.addRun({ id: 1, conclusion: null, jobs });
    const waiting = recipe(early).replace('npm ci', 'scripts/set-up.sh');
    const repository = world.repository({
      'scripts/set-up.sh': '#!/bin/sh\necho set up\n',
      'test.Dockerfile': 'FROM base\nCOPY src/charon.sh /tested\n',
    });
    const run = await workflow(waiting.replace('scripts/set-up.sh', 'sh scripts/set-up.sh'), { repository });
    assert.deepEqual(results(run), ['build: success', 'integration: success']);
    assert.match(
      jobOf(run, 'integration').log,
      /Artifact "docker-image" appeared after [\d.]+ s\.|Loaded and verified/,
    );

    world.clearEngines();
    const built = await workflow(
      `on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v7\n${indented(recipe(base), 6)}\n`,
      { repository },
    );
    assert.deepEqual(results(built), ['test: success']);
    const listed = world.engines.tester.docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}');
    assert.match(listed, /^charon:test$/m);
    assert.doesNotMatch(listed, /charon:local/);
  },
};
