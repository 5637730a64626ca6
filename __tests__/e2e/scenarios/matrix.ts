import assert from 'node:assert/strict';
import { results, jobOf, type Scenario } from '../stage.ts';

const components = ['engine', 'operate-ui', 'runtime'];
const load = 'load-image/README.md#Load several images of a matrix';

const dockerfile = (component: string): string =>
  `FROM scratch\nCOPY rootfs /\nRUN echo ${component} > /component\nCMD ["cat", "/component"]\n`;

export const matrix: Scenario = {
  name: 'matrix',
  title: 'A matrix hands over one image a leg; a later job loads them all',
  recipes: [load],
  run: async ({ workflow, world, recipe }) => {
    const repository = world.repository(
      Object.fromEntries(components.map((component) => [`${component}/Dockerfile`, dockerfile(component)])),
    );
    // There is no compose here.
    const jobs = recipe(load).replace(
      /docker compose up --detach.*/,
      `for image in ${components.join(' ')}; do docker run --rm --network=none $image:local; done`,
    );
    const run = await workflow(`on: push\njobs:\n${jobs}`, { repository });
    const built = components.map((component) => `build ${component}: success`);
    assert.deepEqual(results(run), [...built, 'integration: success']);
    const { log, summary } = jobOf(run, 'integration');
    for (const component of components) {
      assert.match(log, new RegExp(`^${component}$`, 'm'));
      assert.match(summary, new RegExp(`${component}:local`));
      assert.match(jobOf(run, 'build', component).summary, new RegExp(`Handed over \`${component}:local\``));
    }
    assert.match(log, /^sha256:[0-9a-f]{64}$/m, 'the digest of one of them, out of the output images');
    assert.deepEqual(
      world.engines.tester
        .docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}')
        .trim()
        .split('\n')
        .filter((name) => name.endsWith(':local'))
        .sort(),
      components.map((component) => `${component}:local`),
    );
  },
};
