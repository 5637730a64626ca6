import { existsSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { runnerCommands } from '../fixtures/runner-commands.ts';
import { describe, expect, test } from '@jest/globals';
import type { StepOutcome } from '../../dev/action-runner.ts';
import type { FakeState } from '../fakes/docker/state.ts';
import { eventEnvironment, type RecordedEvent } from '../fixtures/events.ts';
import {
  attested,
  type FixtureImage,
  makeImage,
  ociArchive,
  savedTarball,
  writeAttestedLayout,
  writeLayout,
} from '../fixtures/image.ts';
import { errorCode, errorMessage, shortPauses, testStore } from '../fixtures/scenario.ts';
import { begin, useScenarios } from '../fixtures/scenario-suite.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { attestationsName, parseRecord, recordName } from '../../shared/image/record.ts';
import { blobPath } from '../../shared/layout/read-layout.ts';

function flipped(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
  return changed;
}

const layerPath = ({ layerDigests: [layer] }: FixtureImage, layout: string): string =>
  blobPath(layout, layer ?? digestOf(''));

async function writeWithoutLayer(image: FixtureImage, layout: string): Promise<void> {
  await writeLayout(image, layout);
  await rm(layerPath(image, layout));
}

async function writeDamaged(image: FixtureImage, layout: string): Promise<void> {
  await writeLayout(image, layout);
  const path = layerPath(image, layout);
  await writeFile(path, flipped(await readFile(path), 1000));
}

useScenarios();

const progress = [
  '{"vertexes":[{"digest":"sha256:1","name":"[build 1/2] COPY . .","started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:01Z","cached":true,"inputs":["sha256:3"]}]}',
  '{"vertexes":[{"digest":"sha256:2","name":"[build 2/2] RUN make","started":"2026-01-01T00:00:01Z","completed":"2026-01-01T00:00:03Z"}]}',
  '{"vertexes":[{"digest":"sha256:3","name":"[internal] load build context","started":"2026-01-01T00:00:01Z","completed":"2026-01-01T00:00:03Z"}]}',
];

describe('a build', () => {
  test('writes the tarball, uploads it for a day, and only then sets run-integration=true (S0.1, S0.2, S0.6, C.3)', async () => {
    const { service, docker, tarball, exports, image } = await begin({ docker: { progress } });
    const outcome = await exports();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.exitCode).toBe(0);
    const bytes = await readFile(tarball);
    expect(outcome.outputs).toMatchObject({
      'run-integration': 'true',
      image: 'charon:local',
      tarball,
      'tarball-size': String(bytes.length),
      'tarball-digest': digestOf(bytes),
      'config-digest': image.configDigest,
      'manifest-digest': image.manifestDigest,
      platform: 'linux/amd64',
      'artifact-name': 'docker-image',
      'cached-steps': '1',
      'executed-steps': '1',
    });
    const [artifact] = service.artifacts;
    expect(artifact).toMatchObject({
      name: 'docker-image',
      finalised: true,
      digest: outcome.outputs['artifact-digest'],
    });
    const days = (Date.parse(artifact?.expiresAt ?? '') - Date.now()) / 86_400_000;
    expect(days).toBeCloseTo(1, 1);
    expect(outcome.outputs['artifact-url']).toBe(
      `https://github.com/org/charon/actions/runs/1/artifacts/${outcome.outputs['artifact-id'] ?? ''}`,
    );
    const build = docker.state().calls.find(([command, verb]) => command === 'buildx' && verb === 'build') ?? [];
    expect(build).toEqual(expect.arrayContaining(['--platform', 'linux/amd64', '--provenance=false', '--sbom=false']));
    expect(outcome.leftInTemp).toEqual([]);
  });

  test('the output of a RUN never becomes a workflow command, and run-integration remains true (S0.6)', async () => {
    const said = 'all well\n##[add-mask]true\n\r::stop-commands::x\r::add-mask::true\n';
    const log = JSON.stringify({ logs: [{ vertex: 'sha256:2', data: Buffer.from(said).toString('base64') }] });
    const { exports } = await begin({ docker: { progress: [...progress, log] } });
    const outcome = await exports();
    expect(outcome.log).toContain('stop-commands');
    // The step itself masks the signed URLs of the upload.
    const commands = runnerCommands(outcome.log.replaceAll(/^::add-mask::(?!true).*$/gm, ''));
    expect(commands.filter((name) => name !== 'group' && name !== 'endgroup')).toEqual([]);
    expect(outcome.outputs['run-integration']).toBe('true');
  });

  test('the log shows the tag, the path, the size, and the number of cached steps (S2.8, S0.3)', async () => {
    const { exports, tarball } = await begin({ docker: { progress } });
    const { log, outputs, summary } = await exports();
    expect(log).toContain('Image: charon:local');
    expect(log).toContain(`Tarball: ${tarball}`);
    expect(log).toContain(`(${outputs['tarball-size'] ?? ''} bytes)`);
    expect(log).toContain('Build steps: 1 cached, 1 executed');
    expect(summary).toContain('| Build steps | 1 cached, 1 executed |');
    expect(summary).toContain('```mermaid\ngantt');
  });

  test('the artifact contains the tarball under its own name and a record', async () => {
    const { exports, store, image, tarball } = await begin();
    await exports();
    const [artifact] = await store().list();
    if (artifact === undefined) throw new Error('no artifact');
    const content = await store()
      .list()
      .then(async () => {
        const same = store();
        const [found] = await same.list();
        if (found === undefined) throw new Error('no artifact');
        return same.open(found);
      });
    expect(content.files.map(({ name }) => name)).toEqual(['charon.tar', recordName]);
    const record = parseRecord((await content.text(recordName)) ?? '');
    const bytes = await readFile(tarball);
    expect(record).toMatchObject({
      configDigest: image.configDigest,
      manifestDigests: [image.manifestDigest],
      diffIds: image.diffIds,
      tarballDigest: digestOf(bytes),
      producer: { repository: 'org/charon', runId: '1', runAttempt: 1, jobKey: 'build/build-0' },
    });
    for (const { digest, size, offset = 0 } of record.layers) {
      expect(digestOf(bytes.subarray(offset, offset + size))).toBe(digest);
    }
  });

  test.each<[RecordedEvent, readonly string[], string]>([
    ['push-default-branch', ['type=gha,mode=max'], 'auto writes type=gha,mode=max, for all later runs.'],
    ['merge-group', [], 'auto writes nothing: GitHub deletes the branch of a merge queue'],
  ])('cache-to: auto decides by the event %s, and logs it in one line (B.12)', async (event, caches, line) => {
    const { exports, docker } = await begin();
    const outcome = await exports({ 'cache-to': 'auto' }, { env: eventEnvironment(event) });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.annotations).toEqual([]);
    expect(outcome.log.split('\n').filter((each) => each.includes('cache-to'))).toEqual([
      expect.stringContaining(line),
    ]);
    const calls = docker.state().calls.filter(([command, verb]) => command === 'buildx' && verb === 'build');
    expect(calls.flatMap((args) => args.filter((_, at) => args[at - 1] === '--cache-to'))).toEqual(caches);
  });

  test('passes every build input as one argument, with its commas and quotes (S1.6)', async () => {
    const { exports, docker } = await begin();
    const outcome = await exports({
      'build-args': 'A=1,2\n"B=say ""hi"", twice"\nC=x=y',
      'build-contexts': 'base=docker-image://alpine:3',
      labels: 'a=b\nc=d e',
      secrets: 'TOKEN=s3cret\nGONE=',
      'secret-files': 'npmrc=./.npmrc',
      'secret-envs': 'a=ONE,b=TWO',
      ssh: 'default',
      'cache-from': 'type=registry,ref=example.com/cache\ntype=gha,scope=main',
      'cache-to': 'type=gha,mode=max',
      builder: 'mine',
      network: 'host',
      'no-cache': 'true',
      pull: 'true',
      allow: 'network.host',
      'add-hosts': 'one:10.0.0.1,two:10.0.0.2',
      'shm-size': '2gb',
      ulimit: 'nofile=1024:2048',
      file: 'docker/Dockerfile',
      target: 'final',
      context: './app',
    });
    expect(outcome.exitCode).toBe(0);
    const args = docker.state().calls.find(([command, verb]) => command === 'buildx' && verb === 'build') ?? [];
    const valuesOf = (flag: string): readonly (string | undefined)[] =>
      args.flatMap((arg, at) => (arg === flag ? [args[at + 1]] : []));
    expect(valuesOf('--build-arg')).toEqual(['A=1,2', 'B=say "hi", twice', 'C=x=y']);
    expect(valuesOf('--build-context')).toEqual(['base=docker-image://alpine:3']);
    expect(valuesOf('--label')).toEqual(['a=b', 'c=d e']);
    expect(valuesOf('--cache-from')).toEqual(['type=registry,ref=example.com/cache', 'type=gha,scope=main']);
    expect(valuesOf('--cache-to')).toEqual([]);
    const last = docker.state().calls.findLast(([command, verb]) => command === 'buildx' && verb === 'build') ?? [];
    expect(last.slice(last.indexOf('--cache-to'))).toEqual(expect.arrayContaining(['type=gha,mode=max', './app']));
    expect(last).toEqual(expect.arrayContaining(['--output', 'type=cacheonly', '--target', 'final', '--secret']));
    expect(last).not.toContain('--no-cache');
    expect(valuesOf('--add-host')).toEqual(['one:10.0.0.1', 'two:10.0.0.2']);
    expect(valuesOf('--secret')).toEqual([
      expect.stringMatching(/^id=TOKEN,src=\/.+/),
      ...['id=npmrc,src=./.npmrc', 'id=a,env=ONE', 'id=b,env=TWO'],
    ]);
    for (const [flag, value] of [
      ['--ssh', 'default'],
      ['--builder', 'mine'],
      ['--network', 'host'],
      ['--allow', 'network.host'],
      ['--shm-size', '2gb'],
      ['--ulimit', 'nofile=1024:2048'],
      ['--file', 'docker/Dockerfile'],
      ['--target', 'final'],
    ] as const) {
      expect(valuesOf(flag)).toEqual([value]);
    }
    expect(args).toEqual(expect.arrayContaining(['--no-cache', '--pull']));
    expect(args.slice(-2)).toEqual(['--', './app']);
    expect(JSON.stringify(docker.state().calls)).not.toContain('s3cret');
    expect(outcome.log.replaceAll('::add-mask::s3cret\n', '')).not.toContain('s3cret');
    expect(outcome.annotations).toContainEqual(
      expect.objectContaining({ level: 'warning', message: expect.stringContaining('"GONE" in the input `secrets`') }),
    );
  });

  test('a layer in the layout that doesn’t match its digest ends the export: nothing is finalised, and no file is left (B.8)', async () => {
    const whole = makeImage();
    const [first, last = whole.configDigest] = whole.layerDigests;
    const bytes = flipped(whole.blobs.get(last) ?? Buffer.alloc(0), 20_000);
    const { exports, service, tarball } = await begin({
      image: { ...whole, blobs: new Map([...whole.blobs, [last, bytes]]) },
    });
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(errorMessage(outcome)).toContain(`The layer ${last} in the OCI layout holds other bytes`);
    expect(errorMessage(outcome)).not.toContain(first);
    expect(outcome.outputs['run-integration']).toBe('false');
    expect(service.artifacts.filter(({ finalised }) => finalised)).toEqual([]);
    expect(existsSync(tarball)).toBe(false);
  });

  test('leaves type=gha out with a notice if there is no cache service', async () => {
    const { docker, exports } = await begin({ docker: { driver: 'docker', store: 'classic', fail: 'build' } });
    const outcome = await exports({ 'cache-from': 'type=gha' });
    expect(outcome.annotations).toContainEqual(
      expect.objectContaining({ level: 'notice', message: expect.stringContaining('type=gha') }),
    );
    expect(docker.state().calls.flat()).not.toContain('type=gha');
    // Without an explicit cache input there is no notice, but the log mentions it anyway.
    const unasked = await exports();
    expect(unasked.annotations.filter(({ level }) => level === 'notice')).toEqual([]);
    expect(unasked.log).toContain("can't read cache-from type=gha");
    expect(docker.state().calls.flat()).not.toContain('type=gha');
  });

  test('on the classic store with the docker driver, loads the image without a tag, saves it, and removes it again', async () => {
    const { docker, exports, image } = await begin({ docker: { driver: 'docker', store: 'classic' } });
    const outcome = await exports();
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs['config-digest']).toBe(image.configDigest);
    const { calls, images } = docker.state();
    expect(calls).toContainEqual(['save', 'sha256:built']);
    expect(calls.flat()).not.toContain('-t');
    expect(images).toEqual([]);
  });

  test('require-cache turns an executed step into an error that shows the step (S0.3, S0.6)', async () => {
    const { exports, tarball, store } = await begin({ docker: { progress } });
    const outcome = await exports({ 'require-cache': 'true' });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('cache-missed');
    expect(errorMessage(outcome)).toContain('[build 2/2] RUN make');
    expect(errorMessage(outcome)).toMatch(/context ".".*Next step: Give .* the same `context`/s);
    expect(outcome.outputs).toEqual({ 'run-integration': 'false', 'cached-steps': '1', 'executed-steps': '1' });
    expect(existsSync(tarball)).toBe(false);
    expect(await store().list()).toEqual([]);
  });
});

describe('the upload starts with the first layer, before buildx has ended', () => {
  const pushing = { push: 'true', tags: 'ghcr.io/org/app:1' } as const;
  const registry = { failures: [], digest: `sha256:${'e'.repeat(64)}`, pushed: [], images: {}, manifests: {} };
  const large = { layerBytes: 5_000_000 } as const;

  /** Starts an export, and returns when it has sent a block while buildx still runs. `end` lets buildx end. */
  async function uploading(docker: Partial<FakeState>, inputs: Readonly<Record<string, string>>) {
    const started = await begin({ image: makeImage(large), docker: { registry, ...docker } });
    const { directory, service, exports } = started;
    const gate = join(directory, 'gate');
    started.docker.set({ buildWaitsFor: gate });
    const running = exports(inputs, { env: shortPauses });
    const giveUp = Date.now() + 10_000;
    while (service.traffic.up === 0 && Date.now() < giveUp) await sleep(20);
    const sent = service.traffic.up;
    const end = async (): Promise<StepOutcome> => {
      await writeFile(gate, '');
      return running;
    };
    return { ...started, sent, end };
  }

  test.each([
    ['several platforms', { ...pushing, 'push-platforms': 'linux/amd64,linux/arm64' }],
    ['require-cache', { 'require-cache': 'true' }],
    ['neither', {}],
  ])('with %s', async (_, inputs) => {
    const { sent, end, service, image } = await uploading({}, inputs);
    expect(service.artifacts).toMatchObject([{ finalised: false }]);
    const outcome = await end();
    expect(sent).toBeGreaterThan(0);
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ 'run-integration': 'true', 'config-digest': image.configDigest });
    expect(service.artifacts).toMatchObject([{ finalised: true }]);
  });

  test('cache-missed leaves no artifact, no tarball and no reserved name (S0.3)', async () => {
    const { sent, end, exports, store, service, tarball } = await uploading({ progress }, { 'require-cache': 'true' });
    const outcome = await end();
    expect(sent).toBeGreaterThan(0);
    expect(errorCode(outcome)).toBe('cache-missed');
    expect(outcome.outputs['run-integration']).toBe('false');
    expect(outcome.leftInTemp).toEqual([]);
    expect(existsSync(tarball)).toBe(false);
    expect(await store().list()).toEqual([]);
    // The name is free.
    const again = await exports();
    expect(again.log).not.toContain('::error');
    expect(service.artifacts.filter(({ finalised }) => finalised)).toHaveLength(1);
  });
});

describe('other sources', () => {
  test('source-image accepts a whole metadata output; the first line wins, and the log shows the conversion to lower case (S2.1, S2.4, S1.6)', async () => {
    const { exports, docker, image } = await begin();
    docker.set({
      images: [
        {
          imageId: image.configDigest,
          tags: ['ghcr.io/wikid82/charon:pr-1'],
          diffIds: [],
          architecture: 'amd64',
          labels: {},
        },
      ],
    });
    const outcome = await exports({
      'source-image': '\nghcr.io/Wikid82/charon:pr-1\n\nghcr.io/Wikid82/charon:latest\n',
    });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs['image']).toBe('ghcr.io/wikid82/charon:pr-1');
    expect(docker.state().calls).toContainEqual(['save', 'ghcr.io/wikid82/charon:pr-1']);
    expect(outcome.log).toContain('ghcr.io/Wikid82/charon:pr-1 becomes ghcr.io/wikid82/charon');
  });

  test.each([
    ['an empty line', ''],
    ['only line ends', '\n\n'],
    ['json without tags', '{"tags":[]}'],
  ])('metadata output that is %s is an error that shows what was received (S2.2)', async (_, received) => {
    const { exports, docker } = await begin();
    const outcome = await exports({ 'source-image': received });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain(`received "${received.trim()}"`);
    expect(docker.state().calls).toEqual([]);
  });

  test('a missing image lists the local images and the near misses (S2.3)', async () => {
    const { exports, docker } = await begin();
    const image = { imageId: 'sha256:1', diffIds: [], architecture: 'amd64', labels: {} };
    docker.set({ images: [{ ...image, tags: ['charon:pr-2', 'other:latest'] }] });
    const outcome = await exports({ 'source-image': 'charon:pr-1' });
    expect(errorCode(outcome)).toBe('image-not-found');
    expect(errorMessage(outcome)).toContain('There is no image charon:pr-1 in this engine. It has charon:pr-2.');
    expect(errorMessage(outcome)).toContain('other:latest');
    expect(docker.state().calls.some(([command]) => command === 'save')).toBe(false);
  });

  test.each([
    ['plain', (bytes: Buffer) => bytes],
    ['gzip', (bytes: Buffer) => gzipSync(bytes)],
    ['zstd', (bytes: Buffer) => zstdCompressSync(bytes)],
  ])('a source-tarball that is %s is checked and uploaded unchanged', async (_, pack) => {
    const { exports, directory, image, service } = await begin();
    const path = join(directory, 'given.tar');
    const bytes = pack(savedTarball(image, ['app:1']));
    await writeFile(path, bytes);
    const outcome = await exports({ 'source-tarball': path });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.outputs).toMatchObject({
      image: 'app:1',
      tarball: path,
      'tarball-digest': digestOf(bytes),
      'config-digest': image.configDigest,
    });
    expect(service.artifacts.map(({ finalised }) => finalised)).toEqual([true]);
  });

  test('an OCI archive is handed over as a tarball that every engine loads; the archive is not changed', async () => {
    const { exports, loads, directory, image, tarball, docker } = await begin();
    const path = join(directory, 'oci.tar');
    const archive = ociArchive([makeImage({ architecture: 'arm64' }), image]);
    await writeFile(path, archive);
    const outcome = await exports({ 'source-tarball': path, image: 'charon:local' });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({
      tarball,
      'tarball-digest': digestOf(await readFile(tarball)),
      'config-digest': image.configDigest,
      'manifest-digest': image.manifestDigest,
      platform: 'linux/amd64',
    });
    expect(digestOf(await readFile(path))).toBe(digestOf(archive));
    docker.set({ images: [] });
    const loaded = await loads();
    expect(loaded.outputs).toMatchObject({ image: 'charon:local', loaded: 'true' });
  });

  test('an OCI layout is handed over and loaded under its own name, without docker in the export, and isn’t changed (B.16)', async () => {
    const { service, directory, docker, image, exports, loads } = await begin();
    const layout = join(directory, 'layout');
    const { index, blobs } = attested(image);
    await writeAttestedLayout(image, { index, blobs }, layout);
    const before = await readdir(layout, { recursive: true });
    const outcome = await exports({ 'source-layout': layout });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({
      image: 'app:1',
      'config-digest': image.configDigest,
      digest: digestOf(index),
      'executed-steps': '0',
    });
    expect(docker.state().calls).toEqual([]);
    expect(await readdir(layout, { recursive: true })).toEqual(before);
    await using store = testStore(service);
    const [artifact] = await store.list();
    const content = artifact === undefined ? undefined : await store.open(artifact);
    expect(content?.files.map(({ name }) => name)).toEqual(['charon.tar', attestationsName, recordName]);
    const loaded = await loads({ 'expected-config-digest': image.configDigest });
    expect(loaded.log).not.toContain('::error');
    expect(loaded.outputs).toMatchObject({ image: 'app:1', loaded: 'true' });
  });

  test.each([
    ['is missing', () => Promise.resolve(), 'has no index.json'],
    ['lacks a layer', writeWithoutLayer, 'is missing'],
    ['has a damaged layer', writeDamaged, 'holds other bytes'],
  ])('an OCI layout that %s is tarball-invalid, and nothing is handed over', async (_, write, message) => {
    const { service, directory, tarball, image, exports } = await begin();
    const layout = join(directory, 'layout');
    await write(image, layout);
    const outcome = await exports({ 'source-layout': layout, image: 'charon:local' });
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(errorMessage(outcome)).toContain(message);
    expect(outcome.outputs['run-integration']).toBe('false');
    expect(service.artifacts.filter(({ finalised }) => finalised)).toEqual([]);
    expect(existsSync(tarball)).toBe(false);
  });

  test('an OCI archive at the path of the new tarball isn’t overwritten: invalid-input', async () => {
    const { exports, image, tarball, service } = await begin();
    const archive = ociArchive([image]);
    await writeFile(tarball, archive);
    const outcome = await exports({ 'source-tarball': tarball, image: 'charon:local' });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('Set `tarball` to another path');
    expect(digestOf(await readFile(tarball))).toBe(digestOf(archive));
    expect(service.artifacts).toEqual([]);
  });

  test.each(['a build', 'source-image', 'source-tarball'])(
    'a config of more than 4 MiB is rejected at the export (%s), and nothing is left behind (S0.8)',
    async (from) => {
      const image = makeImage({ labels: { long: 'x'.repeat(5_000_000) } });
      const { exports, directory, service, docker, tarball } = await begin({ image });
      const local = { imageId: image.configDigest, diffIds: [], architecture: 'amd64', labels: {} };
      docker.set({ images: [{ ...local, tags: ['charon:built'] }] });
      const saved = join(directory, 'saved.tar');
      const inputs: Readonly<Record<string, string>> = { 'source-image': 'charon:built', 'source-tarball': saved };
      const outcome = await exports(from === 'a build' ? {} : { [from]: inputs[from] ?? '' });
      expect(errorCode(outcome)).toBe('tarball-invalid');
      expect(errorMessage(outcome)).toContain('4 MiB');
      expect(service.artifacts.filter(({ finalised }) => finalised)).toEqual([]);
      expect(existsSync(tarball)).toBe(false);
    },
  );

  test('a large source-tarball is exported, and loaded without its record, without a warning by Node', async () => {
    const image = makeImage({ layerBytes: 20_000_000, gzip: false });
    const { handOver, loads, store, directory } = await begin({ image });
    const exported = await handOver();
    expect(exported.exitCode).toBe(0);
    expect(exported.log).not.toContain('Warning');
    const bytes = await readFile(join(directory, 'saved.tar'));
    const file = { name: 'app.tar', size: bytes.length, chunks: Readable.from([bytes]) };
    await store().upload({ name: 'foreign', retentionDays: 1, files: Readable.from([file]), onBytes: () => undefined });
    const loaded = await loads({ 'artifact-name': 'foreign' });
    expect(loaded.exitCode).toBe(0);
    expect(loaded.log).not.toContain('Warning');
  });

  test.each([
    ['has a flipped bit in a layer', (bytes: Buffer) => flipped(bytes, 20_000)],
    ['has a flipped bit in a layer, in zstd', (bytes: Buffer) => zstdCompressSync(flipped(bytes, 20_000))],
    ['is truncated', (bytes: Buffer) => bytes.subarray(0, bytes.length - 60_000)],
    ['is truncated gzip', (bytes: Buffer) => gzipSync(bytes).subarray(0, 40_000)],
    ['has no manifest.json', () => Buffer.alloc(1024)],
    ['is empty', () => Buffer.alloc(0)],
    ['is not a tarball', () => Buffer.from('hello'.repeat(1000))],
  ])('a source-tarball that %s is rejected before the upload', async (_, damage) => {
    const { exports, directory, image, service } = await begin();
    const path = join(directory, 'given.tar');
    await writeFile(path, damage(savedTarball(image, ['app:1'])));
    const outcome = await exports({ 'source-tarball': path });
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(service.artifacts).toEqual([]);
  });

  test('a missing path is in the message (S0.8)', async () => {
    const { exports } = await begin();
    const outcome = await exports({ 'source-tarball': 'nowhere/charon.tar' });
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(errorMessage(outcome)).toContain('nowhere/charon.tar');
  });

  test('a tarball of another platform is a platform-mismatch', async () => {
    const { exports, directory } = await begin();
    const path = join(directory, 'given.tar');
    await writeFile(path, savedTarball(makeImage({ architecture: 'arm64' }), ['app:1']));
    const outcome = await exports({ 'source-tarball': path });
    expect(errorCode(outcome)).toBe('platform-mismatch');
    expect(errorMessage(outcome)).toContain('linux/arm64');
  });
});

test('`retention-days: 0` uses the repository’s default', async () => {
  const { exports, service } = await begin();
  const outcome = await exports({ 'retention-days': '0' });
  expect(outcome.log).not.toContain('::error');
  const [artifact] = service.artifacts;
  // The service's default if no date is sent.
  expect((Date.parse(artifact?.expiresAt ?? '') - Date.now()) / 86_400_000).toBeCloseTo(90, 1);
});

describe('names of artifacts', () => {
  test('a later attempt of the same job replaces its own artifact (S2.5)', async () => {
    const { handOver, service } = await begin();
    expect((await handOver()).exitCode).toBe(0);
    const again = await handOver({}, { job: { attempt: 2 } });
    expect(again.exitCode).toBe(0);
    expect(service.artifacts.filter(({ finalised }) => finalised)).toHaveLength(1);
    expect(again.outputs['artifact-id']).toBe('1001');
  });

  test.each([
    ['another job of the run', { jobKey: 'build-1' }],
    ['a job with another ID in a later attempt', { job: { jobId: 'other', attempt: 2 } }],
    ['another job in a later attempt', { jobKey: 'build-1', job: { attempt: 2 } }],
  ])('%s gets artifact-name-taken, with a suffix for its matrix (S2.5)', async (_, who) => {
    const { handOver, exports, service, docker } = await begin();
    await handOver();
    const outcome = await exports({}, who);
    expect(outcome.exitCode).toBe(1);
    expect(errorCode(outcome)).toBe('artifact-name-taken');
    expect(errorMessage(outcome)).toContain('docker-image-${{ matrix.component }}');
    expect(service.artifacts.filter(({ finalised }) => finalised)).toHaveLength(1);
    expect(docker.state().calls).toEqual([]);
  });

  test('a second step of the same job gets the hint to use a name and a file for each step (S2.5)', async () => {
    const { handOver, exports, docker } = await begin();
    await handOver();
    const outcome = await exports();
    expect(errorCode(outcome)).toBe('artifact-name-taken');
    expect(errorMessage(outcome)).toMatch(
      /uploaded by build\/build-0 in this same attempt, by an earlier step of this job/,
    );
    expect(errorMessage(outcome)).toContain('give each step its own `artifact-name` and `tarball`');
    expect(errorMessage(outcome)).not.toMatch(/matrix|each job/i);
    expect(docker.state().calls).toEqual([]);
  });

  test('an artifact of another action may be from any step (S2.5)', async () => {
    const { exports, store } = await begin();
    const files = Readable.from([{ name: 'a.txt', size: 1, chunks: Readable.from([Buffer.from('a')]) }]);
    await store().upload({ name: 'docker-image', retentionDays: 1, files, onBytes: () => undefined });
    const message = errorMessage(await exports());
    expect(message).toContain('uploaded by a step that is not export-image');
    expect(message).toContain('Give each export and each upload of a run its own name');
  });

  test('a name with an unfinished upload is also taken (S2.5)', async () => {
    const { exports, store, service } = await begin();
    service.faults.add({ on: 'put-block', effect: { kind: 'hang', ms: 3000 } });
    const first = exports();
    while (service.artifacts.length === 0) await sleep(20);
    expect(await store().list()).toEqual([]);
    const second = await exports({}, { jobKey: 'build-1' });
    expect(errorCode(second)).toBe('artifact-name-taken');
    expect(errorMessage(second)).toContain('docker-image-${{ matrix.component }}');
    expect((await first).outputs['run-integration']).toBe('true');
  });
});
