import assert from 'node:assert/strict';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';

// Each recipe of a handover is run by one job, and a second job loads the image under its name.

interface Way {
  readonly id: string;
  readonly recipe: string;
  /** Steps before those of the recipe, in addition to checkout and buildx. */
  readonly before?: string;
  /** References of the loaded image. */
  readonly references: (sha: string) => readonly string[];
}

const meta = `- id: meta
  uses: docker/metadata-action@v6
  with:
    images: ghcr.io/\${{ github.repository }}
`;
const ways: readonly Way[] = [
  {
    id: 'engine',
    recipe: 'docs/recipes.md#Hand over an image that is in the engine already',
    before: meta,
    references: () => ['charon:local'],
  },
  {
    id: 'event-tags',
    recipe: 'docs/recipes.md#Tag by event',
    references: (sha) => [
      'charon:local',
      ...[`main-${sha}`, 'latest', `sha-${sha}`].map((tag) => `ghcr.io/org/charon:${tag}`),
    ],
  },
  {
    id: 'metadata-tags',
    recipe: 'docs/recipes.md#Tag with what docker/metadata-action says',
    references: () => ['charon:local', 'ghcr.io/org/charon:main'],
  },
  {
    id: 'branch-label',
    recipe: 'docs/recipes.md#Record the branch in the image',
    references: () => ['charon:local'],
  },
  {
    id: 'tarball',
    recipe: 'docs/recipes.md#Hand over a tarball that you have',
    before: '- run: docker build --network=host --tag app:test .\n',
    references: () => ['charon:local'],
  },
];

const jobs = ({ id, recipe, before = '' }: Way, text: (id: string) => string): string => `  build-${id}:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
${indented(before, 6)}
${withName(indented(text(recipe), 6), id)}
  load-${id}:
    needs: build-${id}
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
        with:
          artifact-name: ${id}
      - run: docker image ls --format '{{.Repository}}:{{.Tag}}'
`;

// All jobs of a run share one list of artifacts.
function withName(steps: string, name: string): string {
  return steps.replace(
    /(uses: org\/image-handover\/export-image@v1\n +with:\n)/,
    `$1          artifact-name: ${name}\n          tarball: \${{ runner.temp }}/charon.tar\n`,
  );
}

export const handovers: Scenario = {
  name: 'ways',
  title: 'Each way to hand an image over that the README shows',
  recipes: ways.map(({ recipe }) => recipe),
  run: async ({ workflow, recipe, world }) => {
    for (const way of ways) {
      world.clearEngines();
      const run = await workflow(`on: push\njobs:\n${jobs(way, recipe)}`, { runId: way.id });
      assert.deepEqual(results(run), [`build-${way.id}: success`, `load-${way.id}: success`]);
      const sha = /immutable-tag=main-(\w{7})/.exec(jobOf(run, `build-${way.id}`).log)?.[1] ?? '';
      const listed = jobOf(run, `load-${way.id}`).log.split('\n');
      for (const reference of way.references(sha))
        assert.ok(listed.includes(reference), `${way.id}: ${reference} is present`);
      const labels = world.engines.tester.docker(
        'image',
        'inspect',
        '--format',
        '{{json .Config.Labels}}',
        'charon:local',
      );
      if (way.id === 'branch-label') assert.match(labels, /"io\.charon\.feature\.branch":"main"/);
      if (way.id === 'metadata-tags')
        assert.match(labels, new RegExp(`"org\\.opencontainers\\.image\\.revision":"${sha}`));
    }
  },
};
