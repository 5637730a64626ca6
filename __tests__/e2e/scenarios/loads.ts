import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

const built = 'export-image/README.md#export-image';
const byId = 'load-image/README.md#Load the artifact of an id';
const labelled = 'docs/recipes.md#Tag with what docker/metadata-action says';
const ways = {
  plain: 'load-image/README.md#load-image',
  whole: 'docs/how-it-works.md#Unpacked while it downloads',
  fresh: 'docs/recipes.md#Check that the image is of this commit',
} as const;

/** Returns a workflow with an exporting job and a loading job, each on an empty engine. */
const jobs = (exporting: string, name: string, loading: string): string => `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${exporting}
  ${name}:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${loading}
      - run: scripts/waf_integration.sh
`;

export const loads: Scenario = {
  name: 'loads',
  title: 'Each way to load an image that the READMEs show',
  recipes: [built, byId, labelled, ...Object.values(ways)],
  run: async ({ workflow, recipe, world }) => {
    const setUp = '      - uses: docker/setup-buildx-action@v4\n';
    const meta = `      - id: meta
        uses: docker/metadata-action@v6
        with:
          images: ghcr.io/org/charon
`;
    for (const [name, id] of Object.entries(ways)) {
      world.clearEngines();
      const exporting =
        name === 'fresh' ? `${setUp}${meta}${indented(recipe(labelled), 6)}` : indented(recipe(built), 6);
      const run = await workflow(jobs(exporting, name, indented(recipe(id), 6)), { runId: name });
      assert.deepEqual(results(run), ['build: success', `${name}: success`].sort());
      const { log, summary, annotations } = jobOf(run, name);
      assert.match(log, /^charon dev: waf$/m);
      assert.match(summary, /Loaded and verified `charon:local`/);
      assert.deepEqual(annotations, []);
    }
    world.clearEngines();
    const exact = await workflow(`on: push\njobs:\n${indented(recipe(byId), 2)}\n`, { runId: 'id' });
    assert.deepEqual(results(exact), ['build: success', 'integration: success']);
    // A build without a commit has this label.
    world.clearEngines();
    const stale = await workflow(jobs(indented(recipe(built), 6), 'fresh', indented(recipe(ways.fresh), 6)), {
      runId: 'stale',
    });
    assert.deepEqual(results(stale), ['build: success', 'fresh: failure']);
    assert.match(
      jobOf(stale, 'fresh')
        .annotations.map(({ title }) => title)
        .join(),
      /revision-mismatch/,
    );
    assert.equal(world.engines.tester.docker('image', 'ls', '--quiet', 'charon'), '', 'a rejected image is removed');
  },
};
