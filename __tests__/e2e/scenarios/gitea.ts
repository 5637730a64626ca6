import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Gitea } from '../../../dev/gitea.ts';
import { isObject, type JsonObject, objectsOf } from '../../../shared/base/json.ts';
import { type GiteaStage, onGitea } from '../gitea/stage.ts';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario } from '../stage.ts';
import { firstWorkflow } from './first-workflow.ts';
import { joined } from './joined.ts';

// Shows on a real Gitea what differs from GitHub, and that the main workflows don't differ.

const perLeg = 'docs/recipes.md#Hand over one image per leg of a matrix';

const build = (id: string, inputs: readonly string[] = []): string => `  ${id}:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
      - uses: org/image-handover/export-image@v1
        with:
${inputs.map((input) => `          ${input}\n`).join('')}`;

const load = (id: string, needs: string, more: readonly string[] = []): string => `  ${id}:
${needs === '' ? '' : `    needs: ${needs}\n`}    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - uses: org/image-handover/load-image@v1
${more.map((line) => `${line}\n`).join('')}      - run: scripts/waf_integration.sh
`;
const workflowOf = (...jobs: readonly string[]): string => `on: push\njobs:\n${jobs.join('')}`;
const flaky = '      - run: test "$GITHUB_RUN_ATTEMPT" -gt 1   # a flaky test\n';

const storedArtifacts = async (gitea: Gitea): Promise<readonly JsonObject[]> => {
  const answer = await gitea.api('GET', `/repos/${gitea.repository}/actions/artifacts`);
  return objectsOf(isObject(answer) ? answer['artifacts'] : []);
};

const onItsOwn = (
  name: string,
  title: string,
  run: (stage: GiteaStage) => Promise<void>,
  recipes: readonly string[] = [],
): Scenario => ({
  name: `gitea-${name}`,
  title: `Gitea: ${title}`,
  recipes,
  host: 'gitea',
  run: (stage) => onGitea(stage, run),
});

const matrix = onItsOwn(
  'matrix',
  'the legs of a matrix each hand over their own image at the same time',
  async ({ workflow, world, recipe }) => {
    const components = ['engine', 'operate-ui', 'runtime'];
    const stages = components.map((component) => `FROM base AS ${component}\nRUN echo ${component} > /component\n`);
    const repository = world.repository({ Dockerfile: `FROM scratch AS base\nCOPY rootfs /\n${stages.join('')}` });
    const run = await workflow(
      workflowOf(`  build:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        component: [${components.join(', ')}]
    steps:
      - uses: actions/checkout@v7
      - uses: docker/setup-buildx-action@v4
${indented(recipe(perLeg), 6)}
          image: \${{ matrix.component }}:local
  load:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: org/image-handover/load-image@v1
        with:
          artifact-name: docker-image-*
`),
      { repository },
    );
    assert.deepEqual(results(run), [...components.map((component) => `build ${component}: success`), 'load: success']);
    const { summary } = jobOf(run, 'load');
    for (const component of components) assert.match(summary, new RegExp(`${component}:local`));
  },
  [perLeg],
);

const twoUploads = onItsOwn(
  'two-uploads',
  'two jobs use one name: one hands over, the other fails before or after its build, and the artifact is complete',
  async (stage) => {
    const run = await stage.workflow(
      workflowOf(
        build('build-one', ['build-args: VERSION=one']),
        build('build-other', ['build-args: VERSION=other']),
        load('integration', '[build-one, build-other]').replace('    runs-on', '    if: always()\n    runs-on'),
      ),
    );
    const [one, other] = [jobOf(run, 'build-one'), jobOf(run, 'build-other')];
    const won = one.result === 'success' ? one : other;
    const lost = won === one ? other : one;
    assert.deepEqual([won.result, lost.result], ['success', 'failure']);
    assert.match(lost.annotations.map(({ title }) => title).join(), /artifact-name-taken/);
    const integration = jobOf(run, 'integration');
    assert.equal(integration.result, 'success');
    assert.match(integration.log, new RegExp(`^charon ${won === one ? 'one' : 'other'}: waf$`, 'm'));
    const kept = await storedArtifacts(stage.gitea);
    assert.deepEqual(
      kept.map(({ name }) => name),
      ['docker-image'],
    );
    // The default of `retention-days` is 1.
    const hours = (Date.parse(String(kept[0]?.['expires_at'])) - Date.now()) / 3_600_000;
    assert.ok(hours > 23 && hours < 25, `the artifact expires in ${String(hours)} hours`);
  },
);

const rerun = onItsOwn('rerun', 're-runs of the failed job, and of all jobs', async ({ gitea, ...stage }) => {
  const id = await stage.push(workflowOf(build('build'), load('integration', 'build') + flaky));
  const first = await stage.finished(id);
  assert.deepEqual(results(first), ['build: success', 'integration: failure']);
  await gitea.api('POST', `/repos/${gitea.repository}/actions/runs/${String(id)}/rerun-failed-jobs`);
  const second = await stage.finished(id);
  assert.deepEqual(results(second), ['build: success', 'integration: success']);
  assert.equal(jobOf(second, 'build').log, jobOf(first, 'build').log, 'the image is not built again');
  stage.world.clearEngines();
  await gitea.api('POST', `/repos/${gitea.repository}/actions/runs/${String(id)}/rerun`);
  const third = await stage.finished(id);
  assert.deepEqual(results(third), ['build: success', 'integration: success']);
  assert.notEqual(jobOf(third, 'build').log, jobOf(first, 'build').log, 'the image is built and replaced');
  assert.equal((await storedArtifacts(gitea)).length, 1);
});

const expiry = onItsOwn(
  'expiry',
  'an expired artifact is reported as missing in its own run, and as expired in another run',
  async ({ gitea, ...stage }) => {
    const id = await stage.push(workflowOf(build('build'), load('integration', 'build') + flaky));
    assert.deepEqual(results(await stage.finished(id)), ['build: success', 'integration: failure']);
    const database = new DatabaseSync(gitea.database, { timeout: 10_000 });
    database.exec('UPDATE action_artifact SET expired_unix = 1');
    database.close();
    await gitea.api('POST', '/admin/cron/cleanup_actions');
    while (!(await storedArtifacts(gitea)).every(({ expired }) => expired === true)) await sleep(200);
    await gitea.api('POST', `/repos/${gitea.repository}/actions/runs/${String(id)}/rerun-failed-jobs`);
    const again = await stage.finished(id);
    const errors = jobOf(again, 'integration').annotations;
    assert.match(errors[0]?.title ?? '', /artifact-not-found/);
    assert.match(errors[0]?.message ?? '', /retention-days/);
    const other = await stage.workflow(
      workflowOf(load('integration', '', ['        with:', `          run-id: ${String(id)}`])),
    );
    const [error] = jobOf(other, 'integration').annotations;
    assert.match(error?.title ?? '', /artifact-expired/);
  },
);

const otherRun = onItsOwn(
  'other-run',
  'the image of another run is loaded by the run’s ID and by its workflow',
  async (stage) => {
    const id = await stage.push(workflowOf(build('build')));
    assert.deepEqual(results(await stage.finished(id)), ['build: success']);
    const by = (...inputs: readonly string[]): readonly string[] => [
      '        with:',
      ...inputs.map((line) => `          ${line}`),
    ];
    const run = await stage.workflow(
      workflowOf(
        load('by-id', '', by(`run-id: ${String(id)}`)),
        load('by-workflow', 'by-id', by('workflow: ci.yml', 'branch: main')),
        load('by-another', 'by-workflow', by('workflow: another.yml', 'branch: main')),
      ),
    );
    assert.deepEqual(results(run), ['by-another: failure', 'by-id: success', 'by-workflow: success']);
    assert.match(jobOf(run, 'by-workflow').summary, new RegExp(`actions/runs/${String(id)}`));
    assert.match(jobOf(run, 'by-another').annotations[0]?.title ?? '', /run-not-found/);
  },
);

const cancel = onItsOwn(
  'cancel',
  'a run that is cancelled during its upload leaves the name free for the next run and for its own re-run',
  async (stage) => {
    const { gitea, world } = stage;
    const repository = world.repository({
      Dockerfile: 'FROM scratch\nCOPY rootfs /\nRUN head -c 40000000 /dev/urandom > /random\nCMD ["cat", "/random"]\n',
    });
    await using hold = await holdingProxy(gitea.url, 12_000_000);
    const jobs = [build('build'), load('integration', 'build')];
    const text = `concurrency:\n  group: one\n  cancel-in-progress: true\n${workflowOf(...jobs)}`.replace(
      'scripts/waf_integration.sh',
      'docker run --rm charon:local | wc -c',
    );
    const cancelled = await stage.push(text, { repository, resultsUrl: hold.url });
    await hold.reached;
    const folder = join(gitea.artifacts, 'tmp-upload');
    assert.ok(existsSync(folder) && readdirSync(folder).length > 0, 'the upload has begun');
    const next = await stage.push(text, { repository });
    assert.equal((await stage.finished(cancelled)).succeeded, false);
    const expectLoaded = async (runId: number): Promise<void> => {
      const run = await stage.finished(runId);
      assert.deepEqual(results(run), ['build: success', 'integration: success']);
      assert.match(jobOf(run, 'integration').log, /^40000000$/m);
    };
    await expectLoaded(next);
    await gitea.api('POST', `/repos/${gitea.repository}/actions/runs/${String(cancelled)}/rerun`);
    await expectLoaded(cancelled);
  },
);

/** Starts a proxy that forwards that many bytes of all connections in total, and then holds the rest. */
async function holdingProxy(target: string, bytes: number) {
  const reached = Promise.withResolvers<undefined>();
  const sockets = new Set<Socket>();
  let passed = 0;
  const server = createServer((client) => {
    const upstream = connect(Number(new URL(target).port), '127.0.0.1');
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => socket.destroy()));
    upstream.pipe(client);
    client.on('data', (chunk) => {
      passed += chunk.length;
      if (passed < bytes) upstream.write(chunk);
      else reached.resolve(undefined);
    });
    client.on('close', () => upstream.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address: AddressInfo | string | null = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${String(port)}`,
    reached: reached.promise,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

export const giteaScenarios: readonly Scenario[] = [
  onItsOwn('first-workflow', firstWorkflow.title, firstWorkflow.run, firstWorkflow.recipes),
  matrix,
  twoUploads,
  rerun,
  expiry,
  otherRun,
  onItsOwn('joined', joined.title, joined.run, joined.recipes),
  cancel,
];
