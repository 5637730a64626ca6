import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const triggered = 'load-image/README.md#Take the image of another run';
const nightlyRecipe = "load-image/README.md#Nightly tests on main's latest image";
const latest = 'docs/recipes.md#Load the image of another run';

export const otherRun: Scenario = {
  name: 'other-run',
  title: 'Loads the image of the triggering run and of main’s latest run',
  recipes: [triggered, latest, nightlyRecipe],
  run: async ({ workflow, recipe, service, world }) => {
    const built = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - uses: org/image-handover/export-image@v1
`,
      { runId: '100' },
    );
    assert.deepEqual(results(built), ['build: success']);
    service.addRun({ id: 100, workflow: 'ci.yml', event: 'push' });
    const payload = { workflow_run: { id: 100, conclusion: 'success' }, repository: { default_branch: 'main' } };
    const event = { name: 'workflow_run', ref: 'refs/heads/main', payload };
    const after = await workflow(recipe(triggered), { runId: '101', event });
    assert.deepEqual(results(after), ['smoke: success']);
    assert.match(jobOf(after, 'smoke').summary, /Loaded and verified `charon:local`/);

    world.clearEngines();
    const found = await workflow(
      `on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n${indented(recipe(latest), 6)}\n`,
      { runId: '102' },
    );
    assert.deepEqual(results(found), ['test: success']);
    assert.match(jobOf(found, 'test').summary, /actions\/runs\/100/);

    world.clearEngines();
    const schedule = { name: 'schedule', ref: 'refs/heads/main', payload: { repository: { default_branch: 'main' } } };
    const nightly = await workflow(recipe(nightlyRecipe), { runId: '103', event: schedule });
    assert.deepEqual(results(nightly), ['nightly: success']);
    assert.match(jobOf(nightly, 'nightly').summary, /actions\/runs\/100/);
  },
};
