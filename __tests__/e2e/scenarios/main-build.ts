import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

// A typical Dockerfile: if the context includes .git, a different context gives a different image.
const copiesAll = 'FROM scratch\nCOPY rootfs /\nCOPY . /src\nARG VERSION=dev\nRUN echo "$VERSION" > /version\n';
const recipe = 'docs/recipes.md#Export the image of the main build, not a second one';
const asLayout = 'docs/recipes.md#Hand over what docker/build-push-action builds';

const start = `
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4`;

export const mainBuild: Scenario = {
  name: 'main-build',
  title:
    'A cached main build is exported in its job and, with a fresh builder, in another; a different context is detected',
  recipes: [recipe, asLayout],
  run: async ({ workflow, world, recipe: text }) => {
    const repository = world.repository({ Dockerfile: copiesAll });
    const sameJob = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${indented(text(recipe), 6)}
`,
      { repository },
    );
    assert.deepEqual(results(sameJob), ['build: success']);
    assert.match(jobOf(sameJob, 'build').log, /Build steps: [1-9]\d* cached, 0 executed/);

    const layout = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${indented(text(asLayout), 6).replace('uses: docker/build-push-action', 'id: build\n        $&').replace('uses: org/image-handover/export-image', 'id: export\n        $&')}
      - run: test "\${{ steps.export.outputs.digest }}" = "\${{ steps.build.outputs.digest }}"
  load:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
      - run: docker run --rm --network=none charon:local cat /version
`,
      { repository, runId: '1a' },
    );
    assert.deepEqual(results(layout), ['build: success', 'load: success']);

    const gitContexts = await workflow(
      `on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n${indented(text(recipe, 1), 6)}\n`,
      { repository, runId: '1b' },
    );
    assert.deepEqual(results(gitContexts), ['build: success']);
    assert.match(jobOf(gitContexts, 'build').log, /Build steps: [1-9]\d* cached, 0 executed/);

    const gitContext = '${{ github.server_url }}/${{ github.repository }}.git#${{ github.sha }}';
    const otherJob = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:${start}
      - uses: docker/build-push-action@v7
        with:
          build-args: VERSION=1
          cache-from: type=gha
          cache-to: type=gha,mode=max
  export:
    needs: build
    runs-on: ubuntu-latest
    steps:${start}
      - id: export
        uses: org/image-handover/export-image@v1
        with:
          context: ${gitContext}
          build-args: VERSION=1
          require-cache: true
      - run: test "\${{ steps.export.outputs.executed-steps }} \${{ steps.export.outputs.cached-steps }}" = "0 3"
  load:
    needs: export
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
      - run: docker run --rm --network=none charon:local cat /version /src/src/charon.sh
`,
      { repository, runId: '2', builderJobs: ['build', 'load'] },
    );
    assert.deepEqual(results(otherJob), ['build: success', 'export: success', 'load: success']);

    const missed = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:${start}
      - uses: docker/build-push-action@v7
        with:
          cache-to: type=gha,mode=max,scope=missed
      - id: export
        uses: org/image-handover/export-image@v1
        with:
          cache-from: type=gha,scope=missed
          require-cache: true
      - if: always()
        run: echo "executed <\${{ steps.export.outputs.executed-steps }}>, handed over <\${{ steps.export.outputs.run-integration }}>"
`,
      { repository, runId: '3' },
    );
    assert.deepEqual(results(missed), ['build: failure']);
    const { annotations, log } = jobOf(missed, 'build');
    const error = annotations.find(({ level, title }) => level === 'error' && title.includes('cache-missed'));
    assert.match(error?.message ?? '', /COPY \. \/src/);
    const hint = error?.message.split('Next step:')[1] ?? '';
    const [context, args] = [hint.indexOf('context'), hint.indexOf('build-args')];
    assert.ok(context >= 0 && (args < 0 || context < args), `the hint mentions the context first: ${hint}`);
    assert.match(log, /^executed <2>, handed over <false>$/m);
  },
};
