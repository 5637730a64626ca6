import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const several = 'export-image/README.md#Hand over several images in one artifact';

export const manyImages: Scenario = {
  name: 'many-images',
  title: 'One artifact contains several images of an engine and their common layer once',
  recipes: [several],
  run: async ({ workflow, recipe, service, world }) => {
    const images = ['operate-ui:local', 'runtime:local', 'engine:local'];
    const run = await workflow(`on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - run: for image in ${images.join(' ')}; do docker build --network=host --build-arg VERSION=$image --tag $image .; done
${indented(recipe(several), 6)}
  load:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
      - run: for image in ${images.join(' ')}; do docker run --rm --network=none $image; done
`);
    assert.deepEqual(results(run), ['build: success', 'load: success']);
    const { log, summary } = jobOf(run, 'load');
    for (const image of images) {
      assert.match(log, new RegExp(`^charon ${image}: no suite$`, 'm'));
      assert.ok(summary.includes(image));
    }
    const size = service.artifacts.find(({ name }) => name === 'docker-image')?.size ?? 0;
    const one = Number(world.engines.builder.docker('image', 'inspect', '--format', '{{.Size}}', 'engine:local'));
    assert.ok(size > 0 && size < one * 1.5, `the artifact contains the shared layer once: ${String(size)} bytes`);
  },
};
