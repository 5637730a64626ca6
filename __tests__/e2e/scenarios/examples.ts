import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../../dev/action-runner.ts';
import { provideNodeImage } from '../../../dev/cluster-nodes.ts';
import { startRegistry } from '../../../dev/docker-registry.ts';
import { indented } from '../recipes.ts';
import { jobOf, results, type Scenario, type Stage } from '../stage.ts';

// Runs every workflow in examples/ unchanged, except for the registry's host.

const example = (path: string): string => readFileSync(join(projectRoot, 'examples', path), 'utf8');

export const examples: readonly Scenario[] = [
  {
    name: 'example-charon',
    title: 'examples/charon: four suites test the same image from a cached main build (S0.3)',
    recipes: [],
    run: charon,
  },
  {
    name: 'example-test-matrix',
    title:
      'examples/test-matrix: six legs test one image, a failed leg stops no other, and exactly the tested image is published afterwards (S4.2, S4.4, S4.5)',
    recipes: [],
    run: testMatrix,
  },
  {
    name: 'example-components-nightly',
    title:
      'examples/components-nightly: nightly tests of main’s latest three components, also in a cluster, or from the registry (S3.1, S3.2, S3.3, S3.4, S3.5)',
    recipes: [],
    run: componentsNightly,
  },
  {
    name: 'example-migrate',
    title: 'examples/migrate-from-upload-artifact: before, after, and with only one side migrated',
    recipes: [],
    run: migrate,
  },
  {
    name: 'example-pull-request-images',
    title:
      'examples/pull-request-images: the image is pushed, or only handed over from a fork; a scanner’s finding or another commit’s image fails the job (S1.3, S1.8, S1.9, S1.10)',
    recipes: [],
    run: pullRequestImages,
  },
  {
    name: 'example-what-metadata-tagged',
    title:
      'examples/what-metadata-tagged: an image is built once under metadata’s tags and handed over with them, in lower case (S2.1, S2.2, S2.4, S2.7)',
    recipes: [],
    run: whatMetadataTagged,
  },
  {
    name: 'example-compose',
    title: 'examples/compose: docker compose tests three services from one build (S3.1)',
    recipes: ['docs/recipes.md#Hand over a compose project or a bake file'],
    run: compose,
  },
  {
    name: 'example-self-hosted-warm',
    title:
      'examples/self-hosted-warm: a second version downloads only new layers, the same version nothing, and old images are removed (S4.5)',
    recipes: [],
    run: selfHostedWarm,
  },
  {
    name: 'example-attest',
    title:
      'examples/attest: an image without an attestation isn’t used, and the published image is attested under its digest',
    recipes: [],
    run: attest,
  },
];

async function charon({ workflow, world }: Stage): Promise<void> {
  const run = await workflow(example('charon/ci.yml'), { runId: 'charon' });
  const suites = ['cerberus', 'crowdsec', 'ratelimit', 'waf'];
  assert.deepEqual(results(run), ['build: success', ...suites.map((suite) => `integration ${suite}: success`)]);
  assert.match(jobOf(run, 'build').log, /Build steps: [1-9]\d* cached, 0 executed/);
  world.clearEngines();
}

async function testMatrix({ workflow, world, login }: Stage): Promise<void> {
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
      `${digest} is the digest of the tested image`,
    );
    // A failed leg doesn't stop the others, but nothing is published.
    const broken = text.replace(
      'scripts/${{ matrix.suite }}',
      'test ${{ matrix.suite }} != waf && scripts/${{ matrix.suite }}',
    );
    const red = await workflow(broken, { runId: 'test-matrix-red' });
    // act reports one result for all legs of a matrix.
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
    await provideNodeImage(world.engines.tester);
    const nightly = example('components-nightly/nightly.yml').replaceAll('ghcr.io', registry.address);
    const event = { name: 'schedule', ref: 'refs/heads/main', payload: { repository: { default_branch: 'main' } } };
    const tested = await workflow(nightly, { runId: '301', event });
    assert.deepEqual(results(tested), ['cluster: success', ...legs('test')]);
    for (const component of components) {
      for (const job of [jobOf(tested, 'test', component), jobOf(tested, 'cluster')])
        assert.match(job.log, new RegExp(`^${component}$`, 'm'));
      // The artifacts have expired, so the images come from the registry.
      const { tester } = world.engines;
      const released = `${registry.address}/org/${component}:latest`;
      tester.docker('tag', `${component}:local`, released);
      tester.docker('push', '--quiet', released);
      service.expire(`docker-image-${component}`);
    }
    world.clearEngines();
    await provideNodeImage(world.engines.tester);
    const pulled = await workflow(nightly, { runId: '302', event });
    assert.deepEqual(results(pulled), ['cluster: failure', ...legs('test')]);
    assert.match(jobOf(pulled, 'cluster').log, /artifact-expired/);
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

async function pullRequestImages({ workflow, world, login }: Stage): Promise<void> {
  const registry = await startRegistry({ login });
  try {
    const text = example('pull-request-images/ci.yml').replaceAll('ghcr.io', registry.address);
    const head = { ref: 'feature/rules', sha: '6113728f27ae82c7b1a177c8d03f9e96e0adf246' };
    const repository = { full_name: 'org/charon', default_branch: 'main', fork: false };
    const payload = {
      number: 123,
      pull_request: { number: 123, head, base: { ref: 'main', sha: head.sha } },
      repository,
    };
    const event = { name: 'pull_request', ref: 'refs/pull/123/merge', payload };
    // Two runners: otherwise the second job would find the image in its engine.
    const builderJobs = ['build', 'scan'];
    const pushed = await workflow(text, { runId: 'pr', event, builderJobs });
    assert.deepEqual(results(pushed), ['build: success', 'integration: success', 'scan: success']);
    assert.match(jobOf(pushed, 'build').log, /Pushed 127\.0\.0\.1:\d+\/org\/charon:pr-123-[0-9a-f]{7}/);
    assert.match(jobOf(pushed, 'integration').summary, /\| Source \| .*registry/i);
    assert.match(jobOf(pushed, 'integration').log, /^charon dev: waf$/m);
    assert.match(jobOf(pushed, 'scan').log, /^Total: 0/m);
    world.clearEngines();

    // A fork's token can't push, and the fork's image has a finding.
    const found = `${example('app/Dockerfile')}LABEL org.example.findings="HIGH"\n`;
    const asFork = text.replaceAll('password: ${{ github.token }}', 'password: nothing');
    const forked = await workflow(asFork, {
      runId: 'fork',
      event,
      builderJobs,
      repository: world.repository({ Dockerfile: found }),
    });
    assert.deepEqual(results(forked), ['build: success', 'integration: success', 'scan: failure']);
    assert.match(jobOf(forked, 'scan').log, /^Total: 1 \(HIGH\)/m);
    const { annotations } = jobOf(forked, 'build');
    assert.match(annotations.map(({ message }) => message).join('\n'), /not pushed/);
    assert.match(jobOf(forked, 'integration').summary, /\| Source \| .*artifact/i);
    world.clearEngines();

    const stale = await workflow(text.replace('revision: ${{ github.sha }}', `revision: ${head.sha}`), {
      runId: 'stale',
      event,
      builderJobs,
      repository: world.repository(),
    });
    assert.deepEqual(results(stale), ['build: success', 'integration: failure', 'scan: success']);
    assert.match(jobOf(stale, 'integration').log, /revision/);
  } finally {
    await registry.stop();
  }
}

async function whatMetadataTagged({ workflow, world }: Stage): Promise<void> {
  const text = example('what-metadata-tagged/ci.yml');
  const run = await workflow(text.replace('${{ github.repository }}', 'Org/Charon'), { runId: 'tagged' });
  assert.deepEqual(results(run), ['build: success', 'integration: success']);
  assert.match(jobOf(run, 'integration').log, /^charon dev: waf$/m);
  assert.doesNotMatch(jobOf(run, 'build').log, /Build steps:/);
  const names = world.engines.tester.docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}');
  assert.match(names, /^ghcr\.io\/org\/charon:main$/m);
  world.clearEngines();
  const empty = await workflow(text.replace(/images: .*/, "images: ''"), { runId: 'untagged' });
  assert.deepEqual(results(empty), ['build: failure']);
}

async function compose({ workflow, recipe, world }: Stage): Promise<void> {
  const files = ['compose.yaml', 'Dockerfile'].map((name) => [name, example(`compose/${name}`)] as const);
  const repository = world.repository(Object.fromEntries(files));
  const run = await workflow(example('compose/ci.yml'), { runId: 'compose', repository });
  assert.deepEqual(results(run), ['build: success', 'test: success']);
  assert.match(jobOf(run, 'test').log, /test-1 .*the answer of what all three share/);
  world.clearEngines();
  const id = 'docs/recipes.md#Hand over a compose project or a bake file';
  const steps = (index: number): string => indented(recipe(id, index), 6);
  const pasted = await workflow(
    `on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${steps(0)}
  test:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
${steps(1)}
`,
    { runId: 'compose-recipe', repository },
  );
  assert.deepEqual(results(pasted), ['build: success', 'test: success']);
  // The project's network is an interface of this machine.
  world.clearEngines();
}

async function selfHostedWarm({ workflow, world, service }: Stage): Promise<void> {
  const text = example('self-hosted-warm/ci.yml');
  const { tester } = world.engines;
  const tags = (): readonly string[] =>
    tester.docker('image', 'ls', '--format', '{{.Tag}}', 'charon').trim().split('\n').sort();
  const versions = [
    ['41', 'exec echo "charon one: $1"'],
    ['42', 'exec echo "charon two: $1"'],
    ['43', 'exec echo "charon two: $1"'],
  ] as const;
  const downloaded: number[] = [];
  for (const [runId, app] of versions) {
    const repository = world.repository({ 'src/charon.sh': `#!/bin/sh\n${app}\n` });
    const before = service.traffic.down;
    const run = await workflow(text, { runId, repository });
    assert.deepEqual(results(run), ['build: success', 'test: success']);
    assert.match(jobOf(run, 'test').log, /^charon (?:one|two): waf$/m);
    downloaded.push(service.traffic.down - before);
  }
  assert.deepEqual(
    tags(),
    versions.map(([runId]) => runId),
  );
  const [first = 0, second = 0, third = 0] = downloaded;
  assert.ok(second < first / 4, `${String(second)} of ${String(first)} bytes for the new layers`);
  assert.ok(third < first / 4, `${String(third)} of ${String(first)} bytes for layers that are present`);
  const eager = await workflow(text.replace('until=24h', 'until=0s'), { runId: '44' });
  assert.deepEqual(results(eager), ['build: success', 'test: success']);
  assert.deepEqual(tags(), ['']);
}

async function attest({ workflow, world, login }: Stage): Promise<void> {
  const registry = await startRegistry({ login });
  try {
    const text = example('attest/release.yml').replaceAll('ghcr.io', registry.address);
    const run = await workflow(text, { runId: 'attest' });
    assert.deepEqual(results(run), ['build: success', 'publish: success', 'test: success']);
    assert.match(jobOf(run, 'test').log, /Verification succeeded/);
    const published = /charon:latest: published, (sha256:[0-9a-f]{64})/.exec(jobOf(run, 'publish').log)?.[1] ?? 'none';
    assert.match(
      jobOf(run, 'publish').log,
      new RegExp(`Attestation created for ${registry.address}/org/charon@${published}`),
    );
    world.clearEngines();
    const unattested = text.replace(
      / {6}- uses: actions\/attest@.*\n {8}with:\n {10}subject-name: charon.tar\n.*\n/,
      '',
    );
    assert.notEqual(unattested, text);
    const red = await workflow(unattested, { runId: 'unattested' });
    assert.deepEqual(results(red), ['build: success', 'test: failure']);
    assert.doesNotMatch(world.engines.tester.docker('image', 'ls'), /charon/);
  } finally {
    await registry.stop();
  }
}
