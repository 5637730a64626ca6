import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { runStep, type StepOutcome, type StepRequest } from '../../dev/action-runner.ts';
import {
  waitForContainerd,
  type ClusterNode,
  k3dLabels,
  kindLabels,
  minikubeLabels,
  provideNodeImage,
  setRuntime,
  startNode,
} from '../../dev/cluster-nodes.ts';
import { type DockerEngine, startDockerEngine } from '../../dev/docker-engine.ts';
import { goPart, describeMissingGoParts } from '../../dev/go-parts.ts';
import type { Fault } from '../fakes/artifact-service/faults.ts';
import type { ServiceOptions } from '../fakes/artifact-service/service.ts';
import { type ArtifactService, startArtifactService } from '../fakes/artifact-service/service.ts';
import { halfOf, type Inputs, seed, testedDocker } from '../fixtures/engines.ts';
import { type FixtureImage, makeImage, podmanTarball, savedTarball } from '../fixtures/image.ts';
import { handOverMade, publish, reconfigured, recordOf, imageWithTwoConfigs } from '../fixtures/lying-artifact.ts';
import { socketNameOf } from '../fixtures/lock-socket.ts';
import { errorCode, errorMessage, testStore } from '../fixtures/scenario.ts';

// Loads images straight into containerds. Nodes are containers of a real engine with a real containerd and its CRI plugin. Their labels are
// those of kind, k3d and minikube, whose own node images aren't available here. Another containerd runs on this machine itself.

let engine: DockerEngine;
let service: ArtifactService;
let folder: string;
let nodes: readonly ClusterNode[];
let other: ClusterNode;
let profile: readonly ClusterNode[];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nodes-'));
  engine = await startDockerEngine({ store: 'classic', version: testedDocker(), name: 'nodes' });
  await provideNodeImage(engine);
  const start = (name: string, labels: ReturnType<typeof kindLabels>, command?: readonly string[]) =>
    startNode(engine, { name, labels, ...(command === undefined ? {} : { command }) });
  const [controlPlane, worker, server, ...minikube] = await Promise.all([
    start('kind-control-plane', kindLabels('kind', 'control-plane')),
    start('kind-worker', kindLabels('kind', 'worker')),
    start('k3d-other-server-0', k3dLabels('other', 'server')),
    start('minikube', minikubeLabels('minikube')),
    start('minikube-m02', minikubeLabels('minikube-m02')),
  ]);
  nodes = [controlPlane, worker];
  other = server;
  profile = minikube;
  // These containers have no containerd and are not nodes.
  await start('kind-external-load-balancer', kindLabels('kind', 'external-load-balancer'), ['sleep', '3600']);
  await start('k3d-other-serverlb', k3dLabels('other', 'loadbalancer'), ['sleep', '3600']);
});
afterAll(async () => {
  await engine.stop();
  rmSync(folder, { recursive: true, force: true });
});

function removeImages({ name }: ClusterNode): void {
  const images = 'ctr --namespace=k8s.io images';
  engine.docker('exec', name, 'sh', '-c', `${images} ls -q | xargs -r ${images} rm --sync`);
}

const begin = async (options: ServiceOptions = {}): Promise<void> =>
  void (service = await startArtifactService(options));
beforeEach(() => begin());
afterEach(async () => {
  await service.close();
  for (const node of nodes) removeImages(node);
});

const image = makeImage({ layers: 3, layerBytes: 2_000_000 });
const older = makeImage();
const charon = 'docker.io/library/charon:local';

const handOver = (of: FixtureImage = image, reference?: string, artifact?: string): Promise<void> =>
  handOverMade(service, of, { reference, artifact });

async function exportImage(inputs: Inputs = {}): Promise<void> {
  const file = join(folder, 'source.tar');
  writeFileSync(file, savedTarball(image, ['charon:built']));
  const given = { 'source-tarball': file, image: 'charon:local', tarball: join(folder, 'charon.tar'), ...inputs };
  const outcome = await step('export-image', given);
  expect(outcome.log).not.toContain('::error');
}

function step(action: string, inputs: Inputs, more: Partial<StepRequest> = {}): Promise<StepOutcome> {
  const expressions = { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token };
  return runStep({ action, inputs, expressions, ...more, env: { ...service.env(), ...engine.env, ...more.env } });
}

const load = (inputs: Inputs = {}, more: Partial<StepRequest> = {}): Promise<StepOutcome> =>
  step('load-image', { into: 'kind', ...inputs }, more);

/** Returns the names and digests in a list of `ctr`, except the names by ID that Kubernetes sets itself. */
const namesIn = (list: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    list
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .flatMap(([name = '', , digest = '']) => (name === '' || name.startsWith('sha256:') ? [] : [[name, digest]])),
  );
const namesOn = ({ ctr }: Pick<ClusterNode, 'ctr'>): Readonly<Record<string, string>> => namesIn(ctr('images', 'ls'));
const idsOn = ({ ctr }: Pick<ClusterNode, 'ctr'>): readonly string[] =>
  ctr('images', 'ls', '-q')
    .split('\n')
    .filter((name) => name.startsWith('sha256:'));

function expectOn(
  all: readonly Pick<ClusterNode, 'ctr'>[],
  of: FixtureImage,
  more: Readonly<Record<string, string>> = {},
): void {
  for (const { ctr } of all) {
    const checked = ctr('images', 'check');
    expect(namesIn(checked)).toEqual({ [charon]: of.manifestDigest, ...more });
    const line = checked.split('\n').find((one) => one.startsWith(`${charon} `) || one.startsWith(`${charon}\t`));
    expect(line).toMatch(/complete \((\d+)\/\1\).* true/);
  }
}

/** Loads an older image into a node under these names. */
function importOlder({ name }: ClusterNode, ...names: readonly string[]): void {
  const imported = `old@${older.manifestDigest}`;
  const script = [
    'images() { ctr --namespace=k8s.io images "$@"; }',
    'images import --digests --base-name=old -',
    `for name; do images tag ${imported} "$name"; done`,
    `images rm ${imported}`,
  ].join(' && ');
  const args = ['exec', '-i', name, 'sh', '-c', script, 'sh', ...names];
  execFileSync('docker', args, { env: { ...process.env, ...engine.env }, input: savedTarball(older, []) });
}

/** Loads an older image into each node, under the same name and under another one. */
function seedNodes(): void {
  for (const node of nodes) importOlder(node, charon, 'registry.example/db:1');
}
const seeded = { 'registry.example/db:1': older.manifestDigest };

describe('into kind', () => {
  test('every node has the same image after one download, under the name that Kubernetes looks for (B.4, S0.4, S3.5)', async () => {
    await service.close();
    await begin({ tls: true });
    await exportImage();
    const downBefore = service.traffic.down;
    const outcome = await load({ 'expected-config-digest': image.configDigest });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({
      image: 'charon:local',
      'image-id': image.manifestDigest,
      'config-digest': image.configDigest,
      loaded: 'true',
      source: 'artifact',
    });
    expectOn(nodes, image);
    for (const node of nodes) expect(outcome.summary).toContain(`\`${node.name}\``);
    const [artifact] = service.artifacts;
    expect(service.traffic.down - downBefore).toBeLessThan(1.1 * (artifact?.size ?? 0));
    expect(outcome.leftInTemp).toEqual([]);
    expect(engine.docker('image', 'ls', '--quiet', 'charon')).toBe('');
    // The names that Kubernetes itself adds: its CRI plugin has seen the image.
    for (const node of nodes) expect(idsOn(node)).toEqual([image.configDigest]);
  });

  test('an image that every node has isn’t downloaded; an image that one node lacks is sent to that node only', async () => {
    await handOver();
    await load();
    const again = await load();
    expect(again.outputs).toMatchObject({ loaded: 'false', size: '0', source: 'engine' });
    const [, worker] = nodes;
    worker?.ctr('images', 'rm', '--sync', charon, image.configDigest);
    const more = await load();
    expect(more.outputs['loaded']).toBe('true');
    expect(more.log).toContain('Load into 1 of 2 nodes');
    expectOn(nodes, image);
  });

  test('an older image of that name is replaced, and nothing else changes', async () => {
    seedNodes();
    await handOver();
    const outcome = await load();
    expect(outcome.log).not.toMatch(/::(error|warning)/);
    expectOn(nodes, image, seeded);
  });

  test.each<[string, () => Promise<unknown>, Inputs, string]>([
    ['damage', () => service.blobs.flipByte(service.artifacts[0]?.blob ?? '', 5_000_000), {}, 'artifact-corrupt'],
    [
      'another digest expected',
      () => Promise.resolve(),
      { 'expected-config-digest': older.configDigest },
      'image-mismatch',
    ],
  ])('%s: every node keeps its earlier images, and gets no others', async (_, harm, inputs, code) => {
    seedNodes();
    await handOver();
    await harm();
    const outcome = await load(inputs);
    expect(errorCode(outcome)).toBe(code);
    expectOn(nodes, older, seeded);
    for (const node of nodes) expect(idsOn(node)).toEqual([older.configDigest]);
  });

  test('an image without a manifest of its own is refused, because the manifest that containerd would generate could not be verified', async () => {
    const plain = makeImage({ gzip: false });
    const bytes = podmanTarball(plain, ['charon:local']);
    const files = Readable.from([{ name: 'charon.tar', size: bytes.length, chunks: Readable.from([bytes]) }]);
    await using store = testStore(service);
    await store.upload({ name: 'docker-image', retentionDays: 1, files, onBytes: () => undefined });
    const outcome = await load();
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(errorMessage(outcome)).toContain('has no manifest of its own');
    for (const node of nodes) expect([namesOn(node), idsOn(node)]).toEqual([{}, []]);
  });

  test('a manifest with `config` and `Config` is refused, with a record and without one (B.11)', async () => {
    const lie = imageWithTwoConfigs(image, older.blobs.get(older.configDigest) ?? Buffer.alloc(0));
    const tarball = savedTarball(lie, ['charon:local']);
    seedNodes();
    for (const record of [recordOf(lie, tarball, {}), undefined]) {
      await publish(service, { tarball, record });
      const outcome = await load({ 'expected-config-digest': lie.configDigest });
      expect(errorCode(outcome)).toBe(record === undefined ? 'tarball-invalid' : 'artifact-corrupt');
      expectOn(nodes, older, seeded);
    }
  });

  test('several artifacts are loaded into the cluster at the same time', async () => {
    await handOver(image, 'one:local', 'one');
    await handOver(older, 'ghcr.io/org/two:1', 'two');
    const outcome = await load({ 'artifact-name': 'o*, two' });
    expect(outcome.log).not.toContain('::error');
    const expected = { 'docker.io/library/one:local': image.manifestDigest, 'ghcr.io/org/two:1': older.manifestDigest };
    for (const node of nodes) expect(namesOn(node)).toEqual(expected);
  });
});

describe('during the transfer', () => {
  const large = makeImage({ layers: 4, layerBytes: 20_000_000, gzip: false });
  const medium = makeImage({ layers: 2, layerBytes: 8_000_000, gzip: false });
  /** Slows a download down, so that it takes seconds. */
  const slowly: Fault = { on: 'get', times: 1000, effect: { kind: 'trickle', bytesPerSecond: 500_000 } };
  const pidOf = (node: ClusterNode | undefined): number =>
    Number(engine.docker('inspect', '--format', '{{.State.Pid}}', node?.name ?? '').trim());
  /** Waits until bytes have arrived. */
  const underWay = async (): Promise<void> => {
    const before = service.traffic.down;
    while (service.traffic.down < before + 3_000_000) await sleep(20);
  };

  test('the error names a node that dies, and the other nodes keep their earlier images', async () => {
    await handOver(medium);
    service.faults.add(slowly);
    const loading = load();
    await underWay();
    const [first] = nodes;
    engine.docker('kill', 'kind-worker');
    try {
      const outcome = await loading;
      expect(errorCode(outcome)).toBe('load-failed');
      expect(errorMessage(outcome)).toContain('On the node kind-worker: ');
      expect(errorMessage(outcome)).not.toContain('kind-control-plane');
      expect(first === undefined ? undefined : [namesOn(first), idsOn(first)]).toEqual([{}, []]);
      const still = await load();
      expect(errorCode(still)).toBe('cluster-not-found');
      expect(errorMessage(still)).toContain('kind-worker is exited');
    } finally {
      engine.docker('start', 'kind-worker');
      await waitForContainerd(engine, 'kind-worker');
    }
  });

  test('the slowest node limits the speed, and no data accumulates meanwhile', async () => {
    await handOver(large);
    const loading = load();
    await underWay();
    const pid = pidOf(nodes[1]);
    process.kill(pid, 'SIGSTOP');
    const stood = service.traffic.down;
    // Waits until no more bytes move, or all have arrived.
    let before = -1;
    while (service.traffic.down > before) {
      before = service.traffic.down;
      await sleep(800);
    }
    const moved = service.traffic.down - stood;
    process.kill(pid, 'SIGCONT');
    const outcome = await loading;
    expect(outcome.log).not.toContain('::error');
    // Pipes and buffers hold a part of the image's 80 MB.
    expect(moved).toBeLessThan(40_000_000);
    expectOn(nodes, large);
    expect(outcome.peakMemoryKb).toBeLessThan(250_000);
  });

  test('a process that holds the lock but isn’t a step is named, and the step doesn’t wait for it until the limit', async () => {
    await handOver();
    const holder = createServer();
    holder.listen(`\0${socketNameOf('nodes kind-control-plane,kind-worker')}`);
    await once(holder, 'listening');
    try {
      const outcome = await load({ 'timeout-minutes': '1' });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs['loaded']).toBe('true');
      expect(outcome.annotations).toEqual([
        expect.objectContaining({
          level: 'warning',
          message: expect.stringContaining(`process ${String(process.pid)} of uid ${String(process.getuid?.())} (`),
        }),
      ]);
      expectOn(nodes, image);
    } finally {
      holder.close();
    }
  });

  test('a cancelled step leaves every node unchanged', async () => {
    seedNodes();
    await handOver(medium);
    service.faults.add(slowly);
    const controller = new AbortController();
    const loading = load({}, { signal: controller.signal });
    await underWay();
    controller.abort();
    expect(errorCode(await loading)).toBe('cancelled');
    expectOn(nodes, older, seeded);
  });
});

/** Replaces `ctr images import` on a node by a script, in which the real ctr is `real-ctr`. */
function replaceImport(node: string, lines: readonly string[]): void {
  const script = ['#!/bin/sh', 'case "$*" in *"images import"*) ;; *) exec real-ctr "$@" ;; esac', ...lines].join('\n');
  const replace = 'test -e /bin/real-ctr || mv /bin/ctr /bin/real-ctr; cat > /bin/ctr; chmod +x /bin/ctr';
  const args = ['exec', '-i', node, 'sh', '-c', replace];
  execFileSync('docker', args, { env: { ...process.env, ...engine.env }, input: script });
}

function bringImportBack(node: string): void {
  engine.docker('exec', node, 'mv', '/bin/real-ctr', '/bin/ctr');
}

test('steps load artifacts with shared layers one after the other, because two nodes could otherwise wait for each other’s layers', async () => {
  for (const { name } of nodes)
    replaceImport(name, ['echo begin >> /tmp/turns; real-ctr "$@"; code=$?; echo end >> /tmp/turns; exit $code']);
  const one = makeImage({ layers: 2, layerBytes: 2_000_000 });
  const two = reconfigured(one, (config) => ({ ...config, config: { Env: ['IT=2'] } }));
  const images = { one, two, again: two };
  for (const [name, image] of Object.entries(images)) await handOver(image, `${name}:local`, name);
  const outcomes = await Promise.all(['one, two', 'again'].map((artifacts) => load({ 'artifact-name': artifacts })));
  for (const { log } of outcomes) expect(log).not.toContain('::error');
  const named = Object.keys(images).map((name) => `docker.io/library/${name}:local`);
  for (const { name, ctr } of nodes) {
    expect(Object.keys(namesOn({ ctr })).sort()).toEqual(named.sort());
    // The second step finds the image on the node.
    const turns = engine.docker('exec', name, 'cat', '/tmp/turns').trim().split('\n');
    expect(turns).toEqual(['begin', 'end', 'begin', 'end']);
    bringImportBack(name);
  }
});

describe('a node whose containerd stores something else', () => {
  let honest: ClusterNode;
  let liar: ClusterNode;
  beforeEach(() => {
    [honest = other, liar = other] = nodes;
    importOlder(honest, charon);
    importOlder(liar, 'docker.io/library/older:1');
  });
  afterEach(() => {
    bringImportBack(liar.name);
  });

  /** The script that the node runs instead of an import. The tarball is in /tmp/in.tar, and the image's name in $name. */
  function lie(instead: string): void {
    replaceImport(liar.name, [
      'cat > /tmp/in.tar',
      "name=$(tar -xOf /tmp/in.tar index.json | grep -o 'image-handover.invalid/[^\"]*' | head -n 1)",
      'ctr="real-ctr --namespace=k8s.io"',
      instead,
    ]);
  }

  const lies: readonly (readonly [string, string, string, string])[] = [
    ['another image', '$ctr images tag docker.io/library/older:1 "$name"', 'image-mismatch', 'instead of'],
    ['none', 'true', 'image-missing', 'finds no image'],
    [
      'a part of it',
      `$ctr images import --all-platforms /tmp/in.tar && $ctr content rm ${image.layerDigests[1] ?? ''}`,
      'image-mismatch',
      'missing content, so that docker save would fail',
    ],
    [
      'another config in the manifest',
      `$ctr images import --all-platforms /tmp/in.tar && $ctr content label ${image.manifestDigest} containerd.io/gc.ref.content.config=${older.configDigest} containerd.io/gc.ref.content.kept=${image.configDigest}`,
      'image-mismatch',
      `config digest ${older.configDigest} instead of`,
    ],
  ];
  test.each(halfOf(lies))(
    '%s: the difference is detected, the error names it, and every node is restored (B.4, B.8, S0.4)',
    async (_, instead, code, message) => {
      lie(instead);
      await handOver();
      const outcome = await load();
      expect(errorCode(outcome)).toBe(code);
      expect(errorMessage(outcome)).toContain('On the node kind-worker: ');
      expect(errorMessage(outcome)).toContain(message);
      // The node got the name, and the name had to be removed again.
      expect(outcome.log).toContain('Verified: charon:local is the image that was handed over, on kind-control-plane');
      expectOn([honest], older);
      expect(Object.keys(namesOn(liar)).filter((name) => name.includes('charon') || name.includes('handover'))).toEqual(
        [],
      );
    },
  );
});

const noGo = describeMissingGoParts(['kind']);
const withGo = noGo === undefined ? describe : describe.skip;
withGo(`kind’s own command${noGo === undefined ? '' : ` (left out: ${noGo})`}`, () => {
  let program: string;
  const kind = (...args: readonly string[]): readonly string[] =>
    execFileSync(program, args, { env: { ...process.env, ...engine.env }, encoding: 'utf8' })
      .trim()
      .split('\n');
  beforeAll(async () => void (program = join(await goPart('kind'), 'kind')), 600_000);

  test('knows the same nodes, and that the load balancer isn’t one', () => {
    const names = ['kind-external-load-balancer', ...nodes.map(({ name }) => name)];
    expect([...kind('get', 'nodes')].sort()).toEqual(names.sort());
    expect(kind('get', 'clusters')).toContain('kind');
  });

  test('loads the same image under the same name, so the step has nothing left to do', async () => {
    const tarball = join(folder, 'for-kind.tar');
    seed(engine, image, ['app:1']);
    const inputs = { 'source-image': 'app:1', image: 'charon:local', tarball };
    const exported = await step('export-image', inputs);
    expect(exported.log).not.toContain('::error');
    kind('load', 'image-archive', tarball);
    const expected = { 'expected-config-digest': exported.outputs['config-digest'] ?? '' };
    const outcome = await load(expected);
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ loaded: 'false', size: '0' });
    // And vice versa: the step loads exactly what kind would load.
    const names = nodes.map(namesOn);
    for (const { ctr } of nodes) ctr('images', 'rm', '--sync', ...ctr('images', 'ls', '-q').trim().split('\n'));
    await load(expected);
    for (const [position, node] of nodes.entries()) expect(names[position]).toMatchObject(namesOn(node));
  });
});

test('k3d’s server gets the image, and its load balancer doesn’t (B.4)', async () => {
  await handOver();
  const outcome = await load({ into: 'k3d:other' });
  expect(outcome.log).not.toContain('::error');
  expectOn([other], image);
  for (const node of nodes) expect(namesOn(node)).toEqual({});
  removeImages(other);
});

describe('into minikube', () => {
  const setAll = (socket: string): void => {
    for (const { name } of profile) setRuntime(engine, name, socket);
  };

  test('every node of the profile has the image (B.4)', async () => {
    setAll('/run/containerd/containerd.sock');
    await handOver();
    const outcome = await load({ into: 'minikube' });
    expect(outcome.log).not.toContain('::error');
    expectOn(profile, image);
    for (const node of [...nodes, other]) expect(namesOn(node)).toEqual({});
    const again = await load({ into: 'minikube:minikube' });
    expect(again.outputs).toMatchObject({ loaded: 'false', size: '0' });
  });

  test('a profile with another container runtime is refused, and the error shows the runtime’s socket', async () => {
    setAll('/var/run/cri-dockerd.sock');
    const outcome = await load({ into: 'minikube' });
    expect(errorCode(outcome)).toBe('cluster-not-found');
    expect(errorMessage(outcome)).toContain('/var/run/cri-dockerd.sock');
    expect(errorMessage(outcome)).toContain('--container-runtime=containerd');
  });

  test('a profile that doesn’t exist is an error that lists the existing profiles', async () => {
    const outcome = await load({ into: 'minikube:nope' });
    expect(errorCode(outcome)).toBe('cluster-not-found');
    expect(errorMessage(outcome)).toContain('minikube has no cluster "nope" in this engine; it has minikube');
  });
});

test('a cluster that doesn’t exist is an error that lists the existing clusters', async () => {
  const outcome = await load({ into: 'kind:nope' });
  expect(errorCode(outcome)).toBe('cluster-not-found');
  expect(errorMessage(outcome)).toContain('kind has no cluster "nope" in this engine; it has kind');
});

describe('into a containerd of this machine', () => {
  const ctr = (...args: readonly string[]): string =>
    execFileSync('ctr', ['--namespace=tests', ...args], {
      env: { ...process.env, ...engine.env, CONTAINERD_ADDRESS: engine.containerd },
    }).toString();

  test('the image is in the given namespace, and in no other (B.4)', async () => {
    await handOver();
    const outcome = await load({ into: 'containerd:tests' }, { env: { CONTAINERD_ADDRESS: engine.containerd } });
    expect(outcome.log).not.toContain('::error');
    expectOn([{ ctr }], image);
    const again = await load({ into: 'containerd:tests' }, { env: { CONTAINERD_ADDRESS: engine.containerd } });
    expect(again.outputs['loaded']).toBe('false');
    expect(ctr('namespaces', 'ls', '-q').trim().split('\n')).not.toContain('k8s.io');
  });

  test('a containerd that doesn’t respond is docker-unavailable, and the error names the variable for its socket', async () => {
    const env = { CONTAINERD_ADDRESS: join(folder, 'no.sock') };
    const outcome = await load({ into: 'containerd:tests' }, { env });
    expect(errorCode(outcome)).toBe('docker-unavailable');
    expect(errorMessage(outcome)).toContain('CONTAINERD_ADDRESS');
  });
});
