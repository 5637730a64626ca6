import assert from 'node:assert/strict';
import { jobOf, results, type Scenario } from '../stage.ts';

const skip = 'docs/recipes.md#Skip the build of a commit that needs none';

export const gate: Scenario = {
  name: 'gate',
  title: 'A failed build skips the tests behind its gate, and a commit that needs no build passes',
  recipes: [skip],
  run: async ({ workflow, world, recipe, service }) => {
    const failing = world.repository({
      Dockerfile: 'FROM scratch\nCOPY rootfs /\nRUN echo "no such module" && exit 7\n',
    });
    const failed = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      run-integration: \${{ steps.export.outputs.run-integration }}
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - id: export
        uses: org/image-handover/export-image@v1
  integration:
    needs: build
    if: always() && needs.build.outputs.run-integration == 'true'
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
  report:
    needs: build
    if: always()
    runs-on: ubuntu-latest
    steps:
      - run: echo "the gate is <\${{ needs.build.outputs.run-integration }}>"
`,
      { repository: failing },
    );
    assert.deepEqual(results(failed), ['build: failure', 'report: success']);
    const build = jobOf(failed, 'build');
    const errors = build.annotations.filter(({ level }) => level === 'error');
    assert.equal(errors.length, 1);
    assert.match(errors[0]?.title ?? '', /^export-image: build-failed$/);
    assert.match(errors[0]?.message ?? '', /exit code: 7/);
    assert.match(build.log, /no such module/);
    assert.match(build.summary, /❌ export-image: `build-failed`/);
    assert.match(jobOf(failed, 'report').log, /^the gate is <false>$/m);
    assert.deepEqual(service.artifacts, []);

    const push = (message: string) => ({
      name: 'push',
      ref: 'refs/heads/main',
      payload: { ref: 'refs/heads/main', head_commit: { message }, repository: { default_branch: 'main' } },
    });
    const repository = world.repository();
    const chore = await workflow(recipe(skip), { repository, runId: '2', event: push('chore: tidy up') });
    assert.deepEqual(results(chore), []);
    assert.ok(chore.succeeded);
    const feature = await workflow(recipe(skip), { repository, runId: '3', event: push('feat: more') });
    assert.deepEqual(results(feature), ['build: success', 'integration: success']);
  },
};
