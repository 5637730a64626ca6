import assert from 'node:assert/strict';
import { jobOf, results, type Scenario } from '../stage.ts';

const freed = 'docs/recipes.md#Free the storage when all tests have passed';

const build = `  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - uses: org/image-handover/export-image@v1
`;
const integration = (needs: string, test: string): string => `  integration:
${needs}    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: org/image-handover/load-image@v1
      - run: ${test}
`;
const afterBuild = '    needs: build\n';

export const removal: Scenario = {
  name: 'removal',
  title: 'The last job removes the artifact, but not after a failed test',
  recipes: [freed],
  run: async ({ workflow, recipe, service }) => {
    const all = (test: string): string => `on: push\njobs:\n${build}${integration(afterBuild, test)}${recipe(freed)}`;
    const listed = (): readonly string[] =>
      service.artifacts.filter(({ finalised }) => finalised).map(({ name }) => name);

    const failed = await workflow(all('"false"'), { attempt: 1 });
    assert.deepEqual(results(failed).slice(0, 2), ['build: success', 'integration: failure']);
    assert.deepEqual(listed(), ['docker-image']);

    const passed = await workflow(all('scripts/waf_integration.sh'), { attempt: 2 });
    assert.deepEqual(results(passed), ['build: success', 'free-storage: success', 'integration: success']);
    assert.deepEqual(listed(), []);

    const again = await workflow(`on: push\njobs:\n${integration('', 'scripts/waf_integration.sh')}`, { attempt: 3 });
    assert.deepEqual(results(again), ['integration: failure']);
    const [error] = jobOf(again, 'integration').annotations;
    assert.match(error?.title ?? '', /artifact-not-found/);
    assert.match(error?.message ?? '', /`remove: true` has removed it/);
  },
};
