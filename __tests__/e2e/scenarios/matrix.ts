import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const components = ['engine', 'operate-ui', 'runtime'];
const perLeg = 'docs/recipes.md#Hand over one image per leg of a matrix';
const digests = 'load-image/README.md#Give later jobs the digests only';
const load = 'load-image/README.md#Load several images of a matrix';

const dockerfile = (component: string): string =>
  `FROM scratch\nCOPY rootfs /\nRUN echo ${component} > /component\nCMD ["cat", "/component"]\n`;

const readsDigests = `
  reads:
    needs: digests
    runs-on: ubuntu-latest
    steps:
      - run: test "\${{ fromJSON(needs.digests.outputs.images).docker-image-runtime.reference }}" = runtime:local
      - uses: actions/download-artifact@v8
        with:
          name: docker-image-digests
      - run: cat docker-image-digests.json
`;

export const matrix: Scenario = {
  name: 'matrix',
  title: 'Each leg of a matrix hands over an image; a later job loads them all, and another reads only their digests',
  recipes: [load, digests, perLeg],
  run: async ({ workflow, world, recipe }) => {
    const repository = world.repository(
      Object.fromEntries(components.map((component) => [`${component}/Dockerfile`, dockerfile(component)])),
    );
    // docker compose isn't installed here.
    const jobs = recipe(load).replace(
      /docker compose up --detach.*/,
      `for image in ${components.join(' ')}; do docker run --rm --network=none $image:local; done`,
    );
    const run = await workflow(`on: push\njobs:\n${jobs}\n${recipe(digests)}${readsDigests}`, { repository });
    const built = components.map((component) => `build ${component}: success`);
    assert.deepEqual(results(run), [...built, 'digests: success', 'integration: success', 'reads: success']);
    const { log, summary } = jobOf(run, 'integration');
    for (const component of components) {
      assert.match(log, new RegExp(`^${component}$`, 'm'));
      assert.match(summary, new RegExp(`${component}:local`));
      assert.match(jobOf(run, 'build', component).summary, new RegExp(`Handed over \`${component}:local\``));
    }
    assert.match(log, /^sha256:[0-9a-f]{64}$/m, 'the digest of one image in the output images');
    assert.deepEqual(
      world.engines.tester
        .docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}')
        .trim()
        .split('\n')
        .filter((name) => name.endsWith(':local'))
        .sort(),
      components.map((component) => `${component}:local`),
    );

    const mapping = jobOf(run, 'reads').log;
    for (const component of components) assert.ok(mapping.includes(`"docker-image-${component}"`));

    const stages = components.map((component) => `FROM base AS ${component}\nRUN echo ${component} > /component\n`);
    const staged = world.repository({ Dockerfile: `FROM scratch AS base\nCOPY rootfs /\n${stages.join('')}` });
    const legs = await workflow(
      `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        component: [${components.join(', ')}]
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
${indented(recipe(perLeg), 6)}
  load:
    needs: build
    runs-on: ubuntu-latest
    strategy:
      max-parallel: 1
      matrix:
        component: [${components.join(', ')}]
    steps:
      - uses: org/image-handover/load-image@v1
        with:
          artifact-name: docker-image-\${{ matrix.component }}
      - run: docker run --rm --network=none charon:local cat /component
`,
      { repository: staged, runId: '2' },
    );
    const ofAll = (job: string): readonly string[] => components.map((component) => `${job} ${component}: success`);
    assert.deepEqual(results(legs), [...ofAll('build'), ...ofAll('load')]);
    for (const component of components)
      assert.match(jobOf(legs, 'load', component).log, new RegExp(`^${component}$`, 'm'));
  },
};
