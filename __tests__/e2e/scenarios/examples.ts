import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../../dev/action-runner.ts';
import { startRegistry } from '../../../dev/docker-registry.ts';
import { jobOf, results, type Scenario, type Stage } from '../stage.ts';

// Every workflow below examples/, as it stands: only a registry's host is another.

const example = (path: string): string => readFileSync(join(projectRoot, 'examples', path), 'utf8');

export const examples: Scenario = {
  name: 'examples',
  title: 'The workflows of examples/, each as it stands',
  recipes: [],
  run: async (stage) => {
    await charon(stage);
    await testMatrix(stage);
    await componentsNightly(stage);
    await migrate(stage);
  },
};

async function charon({ workflow, world }: Stage): Promise<void> {
  const run = await workflow(example('charon/ci.yml'), { runId: 'charon' });
  const suites = ['cerberus', 'crowdsec', 'ratelimit', 'waf'];
  assert.deepEqual(results(run), ['build: success', ...suites.map((suite) => `integration ${suite}: success`)]);
  assert.match(jobOf(run, 'build').log, /Build steps: [1-9]\d* cached, 0 executed/);
  world.clearEngines();
}

async function testMatrix({ workflow, world, service }: Stage): Promise<void> {
  const login = { user: 'nektos/act', password: service.rest.token };
  const registry = await startRegistry({ login });
  try {
    const text = example('test-matrix/ci.yml').replaceAll('ghcr.io', registry.address);
    const run = await workflow(text, { runId: 'test-matrix' });
    const legs = ['cerberus', 'ratelimit', 'waf'].flatMap((suite) => ['C', 'C.UTF-8'].map((locale) => [suite, locale]));
    assert.equal(results(run).filter((line) => /^test .*: success$/.test(line)).length, legs.length);
    assert.ok(results(run).includes('publish: success'), results(run).join());
    const digest = /charon:latest: published, (sha256:[0-9a-f]{64})/.exec(jobOf(run, 'publish').log)?.[1] ?? 'none';
    assert.ok(
      run.jobs.some(({ id, summary }) => id === 'test' && summary.includes(`| Image ID here | \`${digest}\``)),
      `${digest} is the digest of the image that was tested`,
    );
    // A leg that fails stops neither the others nor is anything published.
    const broken = text.replace(
      'scripts/${{ matrix.suite }}',
      'test ${{ matrix.suite }} != waf && scripts/${{ matrix.suite }}',
    );
    const red = await workflow(broken, { runId: 'test-matrix-red' });
    // act lets one result stand for all legs of a matrix.
    const ran = red.jobs.filter(({ id, log }) => id === 'test' && /^charon dev: (?:cerberus|ratelimit)$/m.test(log));
    assert.equal(ran.length, 4);
    assert.ok(!red.jobs.some(({ id, log }) => id === 'test' && /^charon dev: waf$/m.test(log)));
    assert.ok(!results(red).includes('publish: success'));
  } finally {
    await registry.stop();
  }
  world.clearEngines();
}

async function componentsNightly({ workflow, world, service }: Stage): Promise<void> {
  const components = ['engine', 'operate-ui', 'runtime'];
  const registry = await startRegistry();
  try {
    const dockerfile = (component: string): string => `FROM scratch\nCOPY rootfs /\nCMD ["echo", "${component}"]\n`;
    const files = components.map((component) => [`${component}/Dockerfile`, dockerfile(component)] as const);
    const repository = world.repository(Object.fromEntries(files));
    const built = await workflow(example('components-nightly/build.yml'), { runId: '300', repository });
    const legs = (job: string): readonly string[] => components.map((component) => `${job} ${component}: success`);
    assert.deepEqual(results(built), [...legs('build'), 'digests: success']);
    service.addRun({ id: 300, workflow: 'build.yml', event: 'push' });
    world.clearEngines();
    const nightly = example('components-nightly/nightly.yml').replaceAll('ghcr.io', registry.address);
    const event = { name: 'schedule', ref: 'refs/heads/main', payload: { repository: { default_branch: 'main' } } };
    const tested = await workflow(nightly, { runId: '301', event });
    assert.deepEqual(results(tested), legs('test'));
    for (const component of components) {
      assert.match(jobOf(tested, 'test', component).log, new RegExp(`^${component}$`, 'm'));
      // What is in the registry when the artifacts have expired.
      const { tester } = world.engines;
      const released = `${registry.address}/org/${component}:latest`;
      tester.docker('tag', `${component}:local`, released);
      tester.docker('push', '--quiet', released);
      service.expire(`docker-image-${component}`);
    }
    world.clearEngines();
    const pulled = await workflow(nightly, { runId: '302', event });
    assert.deepEqual(results(pulled), legs('test'));
    for (const component of components) assert.match(jobOf(pulled, 'test', component).summary, /Pulled instead/);
  } finally {
    await registry.stop();
  }
  world.clearEngines();
}

async function migrate({ workflow, world }: Stage): Promise<void> {
  const [before, after] = [
    example('migrate-from-upload-artifact/before.yml'),
    example('migrate-from-upload-artifact/after.yml'),
  ];
  const half = (producer: string, consumer: string): string => {
    const [jobs = ''] = producer.split('  integration:\n');
    return `${jobs}  integration:\n${consumer.split('  integration:\n')[1] ?? ''}`;
  };
  const withoutDigest = half(before, after).replace(/ {8}with:\n {10}expected-config-digest: .*\n/, '');
  for (const [runId, text] of [
    ['before', before],
    ['after', after],
    ['new-consumer', withoutDigest],
    ['new-producer', half(after, before)],
  ] as const) {
    const run = await workflow(text, { runId });
    assert.deepEqual([runId, ...results(run)], [runId, 'build: success', 'integration: success']);
    assert.match(jobOf(run, 'integration').log, /^charon dev: waf$/m);
    world.clearEngines();
  }
}
