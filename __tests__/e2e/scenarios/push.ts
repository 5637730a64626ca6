import assert from 'node:assert/strict';
import { freePort } from '../../../dev/free-port.ts';
import { startRegistry } from '../../../dev/docker-registry.ts';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const fromRegistry = 'docs/recipes.md#Take the image from the registry, or from whichever has it';

const pushRecipe = 'docs/recipes.md#Push the image from the same build';
// The build runs no commands, so two platforms need no emulator.
const copied = 'FROM scratch\nCOPY rootfs /\nCOPY src/charon.sh /charon\nCMD ["sh"]\n';

const workflowOf = (registry: string, failure: string, load: string): string => `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      run-integration: \${{ steps.export.outputs.run-integration }}
      pushed-reference: \${{ steps.export.outputs.pushed-reference }}
      config-digest: \${{ steps.export.outputs.config-digest }}
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - id: export
        uses: org/image-handover/export-image@v1
        with:
          push: true
          tags: ${registry}/org/charon:pr-1
          push-failure: ${failure}
  integration:
    needs: build
    if: always() && needs.build.outputs.run-integration == 'true'
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${load}
      - run: scripts/waf_integration.sh
`;
const plainLoad = '      - uses: org/image-handover/load-image@v1';

export const push: Scenario = {
  name: 'push',
  title: 'A build also pushes its image; without a registry it still hands the artifact over',
  recipes: [pushRecipe, fromRegistry],
  run: async ({ workflow, world, recipe, login }) => {
    const down = `127.0.0.1:${String(await freePort())}`;
    const failed = await workflow(workflowOf(down, 'error', plainLoad));
    assert.deepEqual(results(failed), ['build: failure', 'integration: success']);
    assert.match(jobOf(failed, 'integration').log, /^charon dev: waf$/m);
    const build = jobOf(failed, 'build');
    assert.match(build.annotations.map(({ title }) => title).join(), /registry-failed/);
    assert.match(build.annotations.map(({ message }) => message).join('\n'), /connection refused/);

    world.clearEngines();
    const warned = await workflow(workflowOf(down, 'warn', plainLoad), { runId: '2' });
    assert.deepEqual(results(warned), ['build: success', 'integration: success']);
    const warnings = jobOf(warned, 'build').annotations.filter(({ level }) => level === 'warning');
    assert.match(warnings.map(({ message }) => message).join('\n'), /not pushed/);

    world.clearEngines();
    const registry = await startRegistry();
    try {
      const up = await workflow(workflowOf(registry.address, 'error', indented(recipe(fromRegistry), 6)), {
        runId: '3',
      });
      assert.deepEqual(results(up), ['build: success', 'integration: success']);
      assert.match(jobOf(up, 'build').log, /Pushed 127\.0\.0\.1:\d+\/org\/charon:pr-1/);
      assert.match(jobOf(up, 'integration').summary, /\| Source \| .*registry/i);
    } finally {
      await registry.stop();
    }

    world.clearEngines();
    const guarded = await startRegistry({ login });
    try {
      const steps = recipe(pushRecipe).replaceAll('ghcr.io', guarded.address);
      const meta = `      - id: meta
        uses: docker/metadata-action@v6
        with:
          images: ${guarded.address}/org/charon
`;
      const run = await workflow(
        `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      pushed-reference: \${{ steps.export.outputs.pushed-reference }}
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
${meta}${indented(steps, 6)}
      - run: docker buildx imagetools inspect "\${{ steps.export.outputs.pushed-reference }}"
  load:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
`,
        { runId: '4', repository: world.repository({ Dockerfile: copied }) },
      );
      assert.deepEqual(results(run), ['build: success', 'load: success']);
      const { log, annotations } = jobOf(run, 'build');
      assert.deepEqual(annotations, []);
      for (const platform of ['linux/amd64', 'linux/arm64']) assert.match(log, new RegExp(`Platform: +${platform}`));
    } finally {
      await guarded.stop();
    }
  },
};
