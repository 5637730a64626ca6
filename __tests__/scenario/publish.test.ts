import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import { type Registry, registrySoftware, startRegistry } from '../../dev/docker-registry.ts';
import { describeMissingGoParts } from '../../dev/go-parts.ts';
import { installPrograms } from '../../dev/podman.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { blobName, digestOf } from '../../shared/image/digest.ts';
import { isAttestationOf, parseIndex } from '../../shared/image/manifest.ts';
import { attestationsName, recordName } from '../../shared/image/record.ts';
import { type ArtifactService, type Job, startArtifactService } from '../fakes/artifact-service/service.ts';
import { type Certificate, makeCertificate } from '../fakes/artifact-service/tls.ts';
import { type RegistryFront, startRegistryFront } from '../fakes/registry/front.ts';
import { startTokenService, type TokenService } from '../fakes/registry/tokens.ts';
import { oneOf } from '../fixtures/engines.ts';
import {
  attested,
  type AttestedIndex,
  type FixtureImage,
  makeImage,
  podmanTarball,
  savedTarball,
  tar,
  writeAttestedLayout,
} from '../fixtures/image.ts';
import {
  handOverMade,
  publish as upload,
  recordOf,
  rewritten,
  imageWithTwoConfigs,
} from '../fixtures/lying-artifact.ts';
import { errorCode, errorMessage, shortPauses, testStore } from '../fixtures/scenario.ts';

// Runs the built publish-image with real registries (Debian's docker-registry, and zot if Go is installed): without a login, with a
// password, with a token service, with TLS, and behind a proxy that misbehaves.

type Inputs = Readonly<Record<string, string>>;

let directory: string;
let certificate: Certificate;
let open: Registry;
let service: ArtifactService;
let repository: string;
const image = makeImage({ layers: 3, layerBytes: 300_000, labels: { 'org.opencontainers.image.revision': 'abc123' } });
const arm = makeImage({ layers: 2, layerBytes: 100_000, architecture: 'arm64' });

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'publish-'));
  certificate = makeCertificate(directory);
  await installPrograms({ skopeo: 'skopeo' });
  open = await startRegistry();
});
afterAll(async () => {
  await open.stop();
  rmSync(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  service = await startArtifactService();
  repository = `${open.address}/org/${randomBytes(6).toString('hex')}`;
  rmSync(join(directory, 'docker'), { recursive: true, force: true });
});
afterEach(() => service.close());

async function step(
  action: string,
  inputs: Inputs,
  job: Job = {},
  env: Inputs = {},
  signal?: AbortSignal,
): Promise<StepOutcome> {
  return runStep({
    action,
    inputs,
    expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
    env: { ...service.env(job), DOCKER_CONFIG: join(directory, 'docker'), ...env },
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Hands an image over as an export would, without running one. */
const handOver = (what: FixtureImage, artifact = 'docker-image'): Promise<void> =>
  handOverMade(service, what, { artifact });

async function exportImage(
  what: FixtureImage,
  artifact = 'docker-image',
  job: Job = {},
  platform = what === arm ? 'linux/arm64' : 'linux/amd64',
): Promise<StepOutcome> {
  const saved = join(directory, `${artifact}.tar`);
  writeFileSync(saved, savedTarball(what, ['charon:local']));
  const inputs = { 'source-tarball': saved, 'artifact-name': artifact, platform, tarball: join(directory, 'out.tar') };
  const outcome = await step('export-image', inputs, job);
  expect(outcome.log).not.toContain('::error');
  return outcome;
}

/** Hands an image with provenance over, from a layout like BuildKit's. */
async function exportLayout(
  what: FixtureImage,
  artifact = 'docker-image',
  architecture = 'amd64',
): Promise<StepOutcome> {
  const layout = join(directory, `layout-${artifact}`);
  await writeAttestedLayout(what, attested(what, [], architecture), layout);
  const outcome = await step(
    'export-image',
    {
      'source-layout': layout,
      'artifact-name': artifact,
      platform: `linux/${architecture}`,
      tarball: join(directory, 'out.tar'),
    },
    { jobId: architecture },
  );
  expect(outcome.log).not.toContain('::error');
  return outcome;
}

const publish = (inputs: Inputs = {}, job: Job = {}, env: Inputs = {}): Promise<StepOutcome> =>
  step('publish-image', { tags: `${repository}:1.0`, ...inputs }, job, env);

const blobEntries = ({ blobs }: AttestedIndex): readonly (readonly [string, Buffer])[] =>
  [...blobs].map(([digest, bytes]) => [blobName(digest), bytes] as const);

/** Returns an index whose first image is another one. */
function foreignFirst({ index }: AttestedIndex): Buffer {
  const { manifests, ...rest } = JSON.parse(index.toString());
  const [foreign] = JSON.parse(attested(arm).index.toString()).manifests;
  return Buffer.from(JSON.stringify({ ...rest, manifests: [foreign, ...manifests] }));
}

/** Writes docker's configuration file. */
function dockerConfig(config: unknown): void {
  mkdirSync(join(directory, 'docker'), { recursive: true });
  writeFileSync(join(directory, 'docker', 'config.json'), JSON.stringify(config));
}

async function get(path: string, accept = '*/*'): Promise<Buffer> {
  const [host = '', ...name] = repository.split('/');
  const response = await fetch(`http://${host}/v2/${name.join('/')}/${path}`, { headers: { accept } });
  return response.ok ? Buffer.from(await response.arrayBuffer()) : Buffer.from(`HTTP ${String(response.status)}`);
}

const anyManifest =
  'application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json';

const dockerList = 'application/vnd.docker.distribution.manifest.list.v2+json';

async function expectAllOf({ blobs, manifestDigest }: FixtureImage): Promise<void> {
  for (const [digest, bytes] of blobs) {
    const kind = digest === manifestDigest ? 'manifests' : 'blobs';
    expect([digest, (await get(`${kind}/${digest}`, anyManifest)).equals(bytes)]).toEqual([digest, true]);
  }
}

/** Pulls each reference with skopeo, which shares no code with the actions, and checks the content of each digest. */
async function expectPullable(...references: readonly string[]): Promise<void> {
  for (const reference of references) await expectPullableAs([], reference);
}

/** @param login options of skopeo */
async function expectPullableAs(login: readonly string[], ...references: readonly string[]): Promise<void> {
  for (const reference of references) {
    const copy = join(directory, 'pulled');
    const from = ['--src-tls-verify=false', ...login, `docker://${reference}`];
    const args = ['--insecure-policy', 'copy', '--quiet', '--all', ...from, `dir:${copy}`];
    await promisify(execFile)('skopeo', args, { timeout: 60_000 });
    rmSync(copy, { recursive: true });
  }
}

async function removeManifest(digest: string): Promise<void> {
  const [host = '', ...name] = repository.split('/');
  const response = await fetch(`http://${host}/v2/${name.join('/')}/manifests/${digest}`, { method: 'DELETE' });
  expect(response.status).toBe(202);
}

const software = describeMissingGoParts(['zot']) === undefined ? registrySoftware : (['docker-registry'] as const);

/** Gives each test a repository of a registry of that kind. */
function useRegistry(kind: (typeof registrySoftware)[number]): void {
  let registry: Registry;
  beforeAll(async () => void (registry = await startRegistry({ software: kind })), 600_000);
  afterAll(() => registry.stop());
  beforeEach(() => void (repository = `${registry.address}/org/${randomBytes(6).toString('hex')}`));
}

describe.each(software)('to %s', (kind) => {
  useRegistry(kind);

  describe('one platform', () => {
    test('the published image has the handed-over digest and the same bytes (B.1, S4.5)', async () => {
      const exported = await exportImage(image);
      const outcome = await publish({ tags: `${repository}:1.0\n${repository}:latest` });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs).toEqual({
        digest: image.manifestDigest,
        references: `${repository}:1.0\n${repository}:latest`,
        'pushed-reference': `${repository}@${image.manifestDigest}`,
        'subject-name': repository,
        published: 'true',
        'pushed-bytes': expect.stringMatching(/^\d{6,}$/),
        'mounted-bytes': '0',
      });
      expect(exported.outputs['manifest-digest']).toBe(image.manifestDigest);
      await expectAllOf(image);
      await expectPullable(`${repository}:1.0`, `${repository}:latest`);
      for (const tag of ['1.0', 'latest'])
        expect(digestOf(await get(`manifests/${tag}`, anyManifest))).toBe(image.manifestDigest);
      expect(outcome.summary).toContain(`🚀 Published \`${repository}:1.0\``);
      expect(outcome.leftInTemp).toEqual([]);
    });

    test('the attestations of a layout are published with the image, in the index of the build', async () => {
      const exported = await exportLayout(image);
      const index = attested(image);
      const digest = digestOf(index.index);
      expect(exported.outputs).toMatchObject({ digest, 'manifest-digest': digest });
      const outcome = await publish({ 'expected-config-digest': exported.outputs['config-digest'] ?? '' });
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs).toMatchObject({ digest, 'pushed-reference': `${repository}@${digest}` });
      expect((await get('manifests/1.0', anyManifest)).equals(index.index)).toBe(true);
      await expectAllOf(image);
      await expectPullable(`${repository}:1.0`);
      for (const [blob, bytes] of index.blobs) {
        const kinds = await Promise.all(['blobs', 'manifests'].map((path) => get(`${path}/${blob}`, anyManifest)));
        expect(kinds.some((found) => found.equals(bytes))).toBe(true);
      }
      const again = await publish();
      expect(again.outputs).toMatchObject({ published: 'false', 'pushed-bytes': '0', digest });
    });

    test('existing blobs aren’t sent again; an additional tag sends no blob', async () => {
      await handOver(image);
      await publish();
      const down = service.traffic.down;
      const again = await publish();
      expect(again.outputs).toMatchObject({ published: 'false', 'pushed-bytes': '0', digest: image.manifestDigest });
      expect(again.summary).toContain('Already published');
      const tagged = await publish({ tags: `${repository}:2.0` });
      expect(tagged.outputs).toMatchObject({ published: 'true', 'pushed-bytes': '0' });
      expect(digestOf(await get('manifests/2.0', anyManifest))).toBe(image.manifestDigest);
      // The record, the config and the manifest: no layer is read.
      expect(service.traffic.down - down).toBeLessThan(300_000);
    });

    test('blobs of another repository are mounted from there: for the second of `tags`, and with `mount-from`', async () => {
      await handOver(makeImage({ layers: 3, layerBytes: 310_000 }));
      const outcome = await publish({ tags: `${repository}:1.0\n${repository}-two:1.0` });
      const { 'pushed-bytes': pushed, 'mounted-bytes': mounted } = outcome.outputs;
      expect(Number(pushed)).toBeGreaterThan(600_000);
      // zot reports a blob of any repository as present.
      expect(mounted).toBe(kind === 'zot' ? '0' : pushed);
      const third = await publish({ tags: `${repository}-three:1.0`, 'mount-from': repository });
      expect(third.outputs).toMatchObject({ 'pushed-bytes': '0', 'mounted-bytes': mounted });
      await expectPullable(`${repository}:1.0`, `${repository}-two:1.0`, `${repository}-three:1.0`);
    });
  });

  describe('several platforms', () => {
    test('become one index, whose digest is always the same, and each image keeps its bytes (B.2)', async () => {
      await handOver(image, 'docker-image-linux-amd64');
      await handOver(arm, 'docker-image-linux-arm64');
      const expected = `${arm.configDigest}\n${image.configDigest}`;
      const outcome = await publish({ 'artifact-name': 'docker-image-linux-*', 'expected-config-digest': expected });
      expect(outcome.log).not.toContain('::error');
      const bytes = await get('manifests/1.0', anyManifest);
      expect(digestOf(bytes)).toBe(outcome.outputs['digest']);
      const index: unknown = JSON.parse(bytes.toString());
      expect(index).toEqual({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.index.v1+json',
        manifests: [image, arm].map(({ manifestDigest, blobs }, position) => ({
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          digest: manifestDigest,
          size: blobs.get(manifestDigest)?.length,
          platform: { architecture: ['amd64', 'arm64'][position], os: 'linux' },
        })),
      });
      await expectAllOf(image);
      await expectAllOf(arm);
      const again = await publish({ 'artifact-name': 'docker-image-linux-arm64, docker-image-linux-amd64' });
      expect(again.outputs).toMatchObject({ published: 'false', digest: outcome.outputs['digest'] });
      await expectPullable(`${repository}:1.0`);
    });

    test('keep the attestations of each image', async () => {
      await exportLayout(image, 'docker-image-linux-amd64');
      await exportLayout(arm, 'docker-image-linux-arm64', 'arm64');
      const outcome = await publish({ 'artifact-name': 'docker-image-linux-*' });
      expect(outcome.log).not.toContain('::error');
      const list = parseIndex(await get('manifests/1.0', anyManifest), 'index');
      const [one, two, ...attestations] = list;
      expect([one?.digest, two?.digest]).toEqual([image.manifestDigest, arm.manifestDigest]);
      expect(
        attestations.map((item) => [
          isAttestationOf(item, image.manifestDigest),
          isAttestationOf(item, arm.manifestDigest),
        ]),
      ).toEqual([
        [true, false],
        [false, true],
      ]);
      await expectPullable(`${repository}:1.0`);
    });

    test('are published again if their index has lost an image', async () => {
      await handOver(image, 'docker-image-linux-amd64');
      await handOver(arm, 'docker-image-linux-arm64');
      const first = await publish({ 'artifact-name': 'docker-image-linux-*' });
      await removeManifest(arm.manifestDigest);
      await expect(expectPullable(`${repository}:1.0`)).rejects.toThrow('skopeo');
      const again = await publish({ 'artifact-name': 'docker-image-linux-*' });
      expect(again.outputs).toMatchObject({ published: 'true', digest: first.outputs['digest'] });
      await expectPullable(`${repository}:1.0`);
    });

    test('with Docker’s manifests become a Docker manifest list', async () => {
      const [one, two] = ['amd64', 'arm64'].map((architecture) => makeImage({ architecture, docker: true }));
      for (const each of [one, two]) {
        const platform = each === one ? 'amd64' : 'arm64';
        if (each !== undefined)
          await exportImage(each, `docker-image-linux-${platform}`, { jobId: platform }, `linux/${platform}`);
      }
      const outcome = await publish({ 'artifact-name': 'docker-image-linux-*' });
      if (kind === 'zot') {
        // This version accepts only OCI's formats.
        expect(errorMessage(outcome)).toMatch(/HTTP 415 .*doesn’t take images in this format/s);
        return;
      }
      expect(outcome.log).not.toContain('::error');
      const list: unknown = JSON.parse((await get('manifests/1.0', `${anyManifest}, ${dockerList}`)).toString());
      expect(list).toMatchObject({
        mediaType: dockerList,
        manifests: [
          { mediaType: 'application/vnd.docker.distribution.manifest.v2+json', digest: one?.manifestDigest },
          { mediaType: 'application/vnd.docker.distribution.manifest.v2+json', digest: two?.manifestDigest },
        ],
      });
      await expectPullable(`${repository}:1.0`);
    });
  });
});

// Behaviour that doesn't depend on the registry, and logins, which all registries accept in the same way.
describe.each(oneOf(software, 0))('to %s only', (kind) => {
  useRegistry(kind);

  test('the tags of docker/metadata-action’s output, and `auto`', async () => {
    await handOver(image);
    const json = JSON.stringify({ tags: [`${repository}:from-json`] });
    expect((await publish({ tags: json })).outputs['references']).toBe(`${repository}:from-json`);
    const auto = { DOCKER_METADATA_OUTPUT_TAGS: `${repository}:auto-1,${repository}:auto-2` };
    expect((await publish({ tags: 'auto' }, {}, auto)).outputs['references']).toBe(
      `${repository}:auto-1\n${repository}:auto-2`,
    );
    expect((await publish({ tags: 'bare', repository })).outputs['references']).toBe(`${repository}:bare`);
  });

  // zot accepts a blob of any repository without its bytes.
  const fresh = makeImage({ labels: { 'org.opencontainers.image.revision': 'abc123' } });
  test.each<[string, FixtureImage]>([
    ['that engines read as another', imageWithTwoConfigs(image, arm.blobs.get(arm.configDigest) ?? Buffer.alloc(0))],
    [
      'with a layer elsewhere',
      rewritten(image, { manifest: (text) => text.replace('"layers":[{', '$&"urls":["http://127.0.0.1:1"],') }),
    ],
    ['with an unknown layer type', rewritten(fresh, { manifest: (text) => text.replace('tar+gzip', 'tar+zstd') })],
  ])('an image %s is not published (B.11)', async (_, lie) => {
    await handOver(arm);
    await publish({ tags: `${repository}:other` });
    const tarball = savedTarball(lie, ['charon:local']);
    const labels = { 'org.opencontainers.image.revision': 'abc123' };
    await upload(service, { tarball, record: recordOf(lie, tarball, labels) });
    const outcome = await publish({ 'expected-config-digest': lie.configDigest });
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(String(await get('manifests/1.0', anyManifest))).toBe('HTTP 404');
  });

  test('the image of another run is published (S3.3)', async () => {
    service.addRun({ id: 77, branch: 'main', conclusion: 'success' });
    await exportImage(image, 'docker-image', { runId: '77' });
    const outcome = await publish({ 'run-id': '77' });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['digest']).toBe(image.manifestDigest);
    expect(outcome.summary).toContain('[77](');
  });

  test('`artifact-ids` publishes exactly that artifact', async () => {
    await handOver(image, 'tested');
    const id = service.artifacts[0]?.id;
    await handOver(makeImage());
    const outcome = await publish({ 'artifact-ids': String(id) });
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['digest']).toBe(image.manifestDigest);
    const missing = await publish({ 'artifact-ids': '999999' });
    expect(errorCode(missing)).toBe('artifact-not-found');
    expect(errorMessage(missing)).toContain('"id:999999"');
  });

  test('expectations are compared with the bytes before anything is sent', async () => {
    await handOver(image);
    const wrong = await publish({ 'expected-config-digest': arm.configDigest });
    expect(errorCode(wrong)).toBe('image-mismatch');
    expect(errorMessage(wrong)).toContain(image.configDigest);
    const other = await publish({ 'expected-revision': 'def456' });
    expect(errorCode(other)).toBe('revision-mismatch');
    expect((await get('tags/list')).toString()).toBe('HTTP 404');
    const right = await publish({ 'expected-config-digest': image.configDigest, 'expected-revision': 'abc123' });
    expect(right.log).not.toContain('::error');
  });

  test('with two images of one platform are rejected (B.2)', async () => {
    await handOver(image, 'docker-image-a');
    await handOver(makeImage(), 'docker-image-b');
    const outcome = await publish({ 'artifact-name': 'docker-image-*' });
    expect(errorCode(outcome)).toBe('invalid-input');
    expect(errorMessage(outcome)).toContain('both contain an image for linux/amd64');
  });

  describe('with a login', () => {
    const login = { user: 'tester', password: 'opensesame' };
    const auth = Buffer.from(`${login.user}:${login.password}`).toString('base64');
    let locked: Registry;
    beforeAll(async () => void (locked = await startRegistry({ login, software: kind })));
    afterAll(() => locked.stop());
    beforeEach(async () => {
      repository = `${locked.address}/org/${randomBytes(6).toString('hex')}`;
      await handOver(image);
    });

    test.each([
      ['docker’s configuration', () => ({ auths: { [locked.address]: { auth } } })],
      ['an address in docker’s configuration', () => ({ auths: { [`https://${locked.address}/v1/`]: { auth } } })],
    ] as const)('from %s', async (_where, config) => {
      dockerConfig(config());
      const outcome = await publish();
      expect(outcome.log).not.toContain('::error');
      expect(outcome.outputs['published']).toBe('true');
      expect(outcome.log).toContain(`::add-mask::${login.password}`);
    });

    test('from DOCKER_AUTH_CONFIG, and from a login for this repository only (login-action’s `scope`)', async () => {
      dockerConfig({ auths: { [locked.address]: { auth: Buffer.from('somebody:else').toString('base64') } } });
      const DOCKER_AUTH_CONFIG = JSON.stringify({ auths: { [locked.address]: { auth } } });
      const given = await publish({ tags: `${repository}:given` }, {}, { DOCKER_AUTH_CONFIG });
      expect(given.log).not.toContain('::error');
      expect(given.log).toContain(`::add-mask::${login.password}`);
      const scoped = join(directory, 'docker', 'buildx', 'config', `${repository}@push`);
      mkdirSync(scoped, { recursive: true });
      writeFileSync(join(scoped, 'config.json'), JSON.stringify({ auths: { [locked.address]: { auth } } }));
      const found = await publish({ tags: `${repository}:scoped` });
      expect(found.log).not.toContain('::error');
      expect(errorMessage(await publish({ tags: `${repository}-other:1.0` }))).toContain('HTTP 401');
    });

    test('from the inputs, and from a credential helper', async () => {
      const tags = ['1.0', '1.1', '1.2', '1.3'].map((tag) => `${repository}:${tag}`).join('\n');
      const given = await publish({ tags, username: login.user, password: login.password });
      expect(given.log).not.toContain('::error');
      const bin = join(directory, 'bin');
      mkdirSync(bin, { recursive: true });
      const answer = JSON.stringify({ ServerURL: locked.address, Username: login.user, Secret: login.password });
      const script = `#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = "${locked.address}" ] && echo '${answer}' && exit 0\necho "credentials not found in native keychain"\nexit 1\n`;
      writeFileSync(join(bin, 'docker-credential-ours'), script);
      chmodSync(join(bin, 'docker-credential-ours'), 0o755);
      dockerConfig({ credHelpers: { [locked.address]: 'ours' } });
      const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
      const helped = await publish({ tags: `${repository}:helped` }, {}, env);
      expect(helped.log).not.toContain('::error');
      writeFileSync(
        join(bin, 'docker-credential-ours'),
        `#!/bin/sh\necho '{"Secret":"opensesame"'\nexit $(cat | wc -w)\n`,
      );
      for (const store of [{ credHelpers: { [locked.address]: 'ours' } }, { credsStore: 'ours' }]) {
        dockerConfig(store);
        const failed = await publish({ tags: `${repository}:failed` }, {}, env);
        expect(errorCode(failed)).toBe('registry-failed');
        expect(failed.log + failed.summary).not.toContain(login.password);
      }
      dockerConfig({ credsStore: 'gone' });
      const gone = await publish({ tags: `${repository}:gone` });
      expect(errorCode(gone)).toBe('registry-failed');
      expect(errorMessage(gone)).toContain('there is no docker-credential-gone on PATH');
    });

    test.each([
      ['no login', {}],
      ['a wrong login', { username: login.user, password: 'wrong-password' }],
    ])('%s is registry-failed immediately, with the registry’s message', async (_what, inputs) => {
      const outcome = await publish(inputs);
      expect(errorCode(outcome)).toBe('registry-failed');
      expect(errorMessage(outcome)).toContain('HTTP 401');
      expect(errorMessage(outcome)).toContain('docker/login-action');
      expect(outcome.log).not.toContain('attempt 1 of');
      expect(outcome.outputs).toEqual({});
    });
  });
});

describe('with a token service', () => {
  const login = { user: 'tester', password: 'opensesame' };
  let tokens: TokenService;
  let guarded: Registry;
  beforeAll(async () => {
    const hidden = ['org/hidden'];
    tokens = await startTokenService({ certificate, login, identityToken: 'an-identity-token', hidden });
    guarded = await startRegistry({ tokens: { ...tokens, cert: join(directory, 'cert.pem') } });
  });
  afterAll(async () => {
    await guarded.stop();
    await tokens.close();
  });
  beforeEach(async () => {
    repository = `${guarded.address}/org/${randomBytes(6).toString('hex')}`;
    await handOver(image);
  });

  test('one token is used for all requests in a repository, with a password or an identity token', async () => {
    const before = tokens.tokenRequests.length;
    const tags = `${repository}:1.0\n${repository}:1.1\n${repository}:1.2`;
    const outcome = await publish({ tags, username: login.user, password: login.password });
    expect(outcome.log).not.toContain('::error');
    const path = repository.slice(repository.indexOf('/') + 1);
    expect(tokens.tokenRequests.slice(before)).toEqual([`repository:${path}:pull,push as the user`]);
    dockerConfig({ auths: { [guarded.address]: { identitytoken: 'an-identity-token' } } });
    const second = await publish({ tags: `${repository}-two:1.0` });
    expect(second.log).not.toContain('::error');
    expect(second.outputs['published']).toBe('true');
    const basic = Buffer.from(`${login.user}:${login.password}`).toString('base64');
    expect(outcome.log).toContain(`::add-mask::${basic}`);
    const references = [...tags.split('\n'), `${repository}-two:1.0`];
    await expectPullableAs(['--src-creds', `${login.user}:${login.password}`], ...references);
  });

  test('a mount that is not permitted only prevents the mount', async () => {
    const inputs = { username: login.user, password: login.password, 'mount-from': `${guarded.address}/org/hidden` };
    const outcome = await publish(inputs);
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs).toMatchObject({ published: 'true', 'mounted-bytes': '0' });
  });

  test('an anonymous push is rejected with the registry’s message', async () => {
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toMatch(/HTTP 401 \(UNAUTHORIZED: authentication required\)/);
  });
});

describe('with TLS', () => {
  let secure: Registry;
  beforeAll(async () => {
    const tls = { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') };
    secure = await startRegistry({ tls });
  });
  afterAll(() => secure.stop());

  test('`registry-ca` is trusted; without it the message suggests it', async () => {
    await handOver(image);
    repository = `${secure.address}/org/app`;
    const refused = await publish();
    expect(errorCode(refused)).toBe('registry-failed');
    expect(errorMessage(refused)).toContain('registry-ca');
    const trusted = await publish({ 'registry-ca': certificate.caFile });
    expect(trusted.log).not.toContain('::error');
    expect(trusted.outputs['digest']).toBe(image.manifestDigest);
    await expectPullable(`${repository}:1.0`);
    const noFile = await publish({ 'registry-ca': join(directory, 'gone.pem') });
    expect(errorCode(noFile)).toBe('invalid-input');
    const noCertificate = await publish({ 'registry-ca': join(directory, 'key.pem') });
    expect(errorMessage(noCertificate)).toContain('BEGIN CERTIFICATE');
  });
});

describe('a registry that misbehaves', () => {
  let front: RegistryFront;
  beforeEach(async () => {
    front = await startRegistryFront(open.address);
    repository = repository.replace(open.address, front.address);
    await handOver(image);
  });
  afterEach(() => front.close());
  const isUpload = ({ method, path }: { method: string; path: string }): boolean =>
    method === 'PUT' && path.includes('/blobs/uploads/');

  test('interrupted uploads and a busy service are retried until everything is uploaded', async () => {
    let cuts = 2;
    front.misbehave = (request) => {
      if (isUpload(request) && cuts > 0) {
        cuts -= 1;
        return { kind: 'cut', afterBytes: 100_000 };
      }
      const isFirstHead = request.method === 'HEAD' && request.path.includes('/blobs/') && request.count === 1;
      return isFirstHead ? { kind: 'answer', status: 503, headers: { 'retry-after': '0' } } : undefined;
    };
    const outcome = await publish();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.log).toMatch(/The blob sha256:[0-9a-f]+: .*attempt 1 of 6/);
    await expectAllOf(image);
  });

  test.each([
    [403, '{"errors":[{"code":"DENIED","message":"installation not allowed to Write organization package"}]}'],
    [404, '{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}'],
    [200, 'nothing of the kind'],
    [201, ''],
    [202, ''],
  ])('an upload with the response %s fails, and the response is shown', async (status, body) => {
    front.misbehave = ({ method, path }) =>
      method === 'POST' && path.includes('/blobs/uploads/') ? { kind: 'answer', status, body } : undefined;
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('registry-failed');
    const words = /"message":"([^"]*)"/.exec(body)?.[1] ?? '';
    expect(errorMessage(outcome)).toContain(words);
    expect(outcome.log).not.toContain('unexpected error');
    expect((await get('manifests/1.0', anyManifest)).toString()).toMatch(/^HTTP 404/);
  });

  test.each(['http://elsewhere.invalid/upload', 'ftp://127.0.0.1/x', 'http://[', ''])(
    'an upload that is redirected to "%s" is rejected',
    async (location) => {
      front.misbehave = ({ method, path }) =>
        method === 'POST' && path.includes('/blobs/uploads/')
          ? { kind: 'answer', status: 202, headers: location === '' ? {} : { location } }
          : undefined;
      const outcome = await publish();
      expect(errorCode(outcome)).toBe('registry-failed');
      expect(errorMessage(outcome)).toContain('https://');
    },
  );

  test('a manifest that changed in the registry is image-mismatch (B.1, B.8)', async () => {
    front.misbehave = ({ method, path }) =>
      method === 'GET' && path.endsWith('/manifests/1.0')
        ? { kind: 'answer', status: 200, body: '{"schemaVersion":2}' }
        : undefined;
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('image-mismatch');
    expect(outcome.outputs).toEqual({});
  });

  test('a push-only login can publish, and the registry’s digest is checked', async () => {
    front.misbehave = ({ method, path }) =>
      method === 'HEAD' || (method === 'GET' && path.includes('/manifests/'))
        ? { kind: 'answer', status: 403 }
        : undefined;
    const outcome = await publish();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['published']).toBe('true');
    front.misbehave = () => undefined;
    await expectAllOf(image);
  });

  test('a login is sent only to the registry, not to a token service without TLS or to the target of an upload', async () => {
    const login = { username: 'tester', password: 'opensesame' };
    const realm = { 'www-authenticate': 'Bearer realm="http://tokens.invalid/token",service="x"' };
    front.misbehave = () => ({ kind: 'answer', status: 401, headers: realm });
    const refused = await publish(login);
    expect(errorCode(refused)).toBe('registry-failed');
    expect(errorMessage(refused)).toContain('No password was sent');
    const elsewhere = await startRegistryFront(open.address);
    try {
      front.misbehave = ({ method, path, authorization }) => {
        if (authorization === undefined)
          return { kind: 'answer', status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };
        const location = `https://${elsewhere.address}/upload`;
        return method === 'POST' && path.includes('/blobs/uploads/')
          ? { kind: 'answer', status: 202, headers: { location } }
          : undefined;
      };
      expect(errorCode(await publish(login))).toBe('registry-failed');
      expect(elsewhere.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
      expect(front.seen.some(({ authorization }) => authorization?.startsWith('Basic ') === true)).toBe(true);
    } finally {
      await elsewhere.close();
    }
  });

  test('with a wrong response to HEAD gets the blob after it has refused the manifest', async () => {
    front.misbehave = ({ method, path }) => {
      const [, digest = ''] = /\/blobs\/(sha256:.*)$/.exec(path) ?? [];
      const size = [...image.blobs].find(([one]) => one === digest)?.[1].length;
      return method === 'HEAD' && size !== undefined
        ? { kind: 'answer', status: 200, headers: { 'content-length': String(size) } }
        : undefined;
    };
    const outcome = await publish();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['published']).toBe('true');
    front.misbehave = () => undefined;
    await expectAllOf(image);
    await expectPullable(`${repository}:1.0`);
  });

  test('if the second of two repositories refuses, the first gets no tag', async () => {
    front.misbehave = ({ method, path }) =>
      method === 'PUT' && path.includes('-two/manifests/') ? { kind: 'answer', status: 403 } : undefined;
    const outcome = await publish({ tags: `${repository}:1.0\n${repository}-two:1.0` });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(outcome.outputs).toEqual({});
    expect(outcome.log).toContain('References that are set: none. Not set');
    expect((await get('manifests/1.0', anyManifest)).toString()).toMatch(/^HTTP 404/);
  });

  test('a cancellation between two tags keeps the first, and outputs and log show this', async () => {
    const controller = new AbortController();
    front.misbehave = ({ method, path }) => {
      if (method !== 'PUT' || !path.endsWith('/manifests/1.1')) return undefined;
      controller.abort();
      return { kind: 'silence' };
    };
    const tags = `${repository}:1.0\n${repository}:1.1`;
    const outcome = await step('publish-image', { tags }, {}, {}, controller.signal);
    expect(errorCode(outcome)).toBe('cancelled');
    expect(outcome.outputs).toMatchObject({ references: `${repository}:1.0`, digest: image.manifestDigest });
    expect(outcome.log).toContain(
      `References that are set: ${repository}:1.0. Not set, or not confirmed: ${repository}:1.1.`,
    );
  });

  test('a manifest that exists according to HEAD but can’t be read is published', async () => {
    front.misbehave = ({ method, path }) =>
      method === 'HEAD' && path.includes('/manifests/')
        ? { kind: 'answer', status: 200, headers: { 'docker-content-digest': image.manifestDigest } }
        : undefined;
    const outcome = await publish();
    expect(outcome.log).not.toContain('::error');
    expect(outcome.outputs['published']).toBe('true');
    await expectPullable(`${repository}:1.0`);
  });

  test('if the second of two tags is refused, the first is kept, and outputs and log show this', async () => {
    front.misbehave = ({ method, path }) =>
      method === 'PUT' && path.endsWith('/manifests/1.1')
        ? { kind: 'answer', status: 409, body: '{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}' }
        : undefined;
    const outcome = await publish({ tags: `${repository}:1.0\n${repository}:1.1\n${repository}:1.2` });
    expect(errorCode(outcome)).toBe('registry-failed');
    expect(errorMessage(outcome)).toContain('the tag is immutable');
    expect(errorMessage(outcome)).not.toContain('docker/login-action');
    expect(outcome.outputs).toMatchObject({
      digest: image.manifestDigest,
      references: `${repository}:1.0`,
      'pushed-reference': `${repository}@${image.manifestDigest}`,
    });
    expect(outcome.log).toContain(
      `References that are set: ${repository}:1.0. Not set, or not confirmed: ${repository}:1.1, ${repository}:1.2.`,
    );
    await expectPullable(`${repository}:1.0`);
    expect((await get('manifests/1.2', anyManifest)).toString()).toMatch(/^HTTP 404/);
  });

  test('nothing is mounted from a repository that only the artifact mentions', async () => {
    await using store = testStore(service);
    const [artifact] = await store.list();
    if (artifact === undefined) throw new Error('there is no artifact');
    const content = await store.open(artifact);
    const record = Object(JSON.parse((await content.text(recordName)) ?? ''));
    const pushedReference = `${repository}-private@sha256:${'0'.repeat(64)}`;
    const read = await content.ranges(record.tarballName);
    const tarball = await copiedBytes(read?.(0, record.tarballSize, () => undefined) ?? Readable.from([]));
    await upload(service, { tarball, record: { ...record, tarballName: 'charon.tar', pushedReference } });
    const outcome = await publish();
    expect(outcome.log).not.toContain('::error');
    expect(front.seen.filter(({ path }) => path.includes('mount='))).toEqual([]);
  });

  test('a cancelled upload is also deleted in the registry', async () => {
    const controller = new AbortController();
    front.misbehave = (request) => {
      if (!isUpload(request)) return undefined;
      setTimeout(() => {
        controller.abort();
      }, 100);
      return { kind: 'silence' };
    };
    const outcome = await step('publish-image', { tags: `${repository}:1.0` }, {}, {}, controller.signal);
    expect(errorCode(outcome)).toBe('cancelled');
    const uploads = (method: string): readonly string[] =>
      front.seen
        .filter((one) => one.method === method)
        .flatMap(({ path }) => /uploads\/([0-9a-f-]+)/.exec(path)?.[1] ?? []);
    expect(uploads('PUT')).toHaveLength(3);
    expect(uploads('DELETE').toSorted()).toEqual(uploads('PUT').toSorted());
  });

  test('SIGINT during an upload ends the step in time, and no tag is set', async () => {
    const controller = new AbortController();
    front.misbehave = (request) => {
      if (!isUpload(request)) return undefined;
      setTimeout(() => {
        controller.abort();
      }, 200);
      return { kind: 'answer', status: 503, headers: { 'retry-after': '30' } };
    };
    const outcome = await step('publish-image', { tags: `${repository}:1.0` }, {}, {}, controller.signal);
    expect(errorCode(outcome)).toBe('cancelled');
    expect(front.seen.some(({ method, path }) => method === 'PUT' && path.includes('/manifests/'))).toBe(false);
  });
});

describe('a manipulated artifact', () => {
  test('a layer that doesn’t match its manifest is artifact-corrupt: its last bytes aren’t sent, and no tag is set (B.1, B.8)', async () => {
    await handOver(image);
    const name = service.artifacts[0]?.blob ?? '';
    const blob = await copiedBytes(service.blobs.read(name, 0, service.blobs.size(name) ?? 0));
    const digest = image.layerDigests[1] ?? image.configDigest;
    const layer = image.blobs.get(digest) ?? Buffer.alloc(0);
    await service.blobs.flipByte(name, blob.indexOf(layer) + layer.length - 10);
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(errorMessage(outcome)).toContain(digest);
    expect((await get('manifests/1.0', anyManifest)).toString()).toMatch(/^HTTP 404/);
    expect((await get(`blobs/${digest}`)).toString()).toBe('HTTP 404');
  });

  test.each<[string, (real: AttestedIndex) => readonly (readonly [string, Buffer])[] | undefined]>([
    ['are missing', () => undefined],
    ['have an index of another image', () => [['index.json', attested(arm).index]]],
    ['have an index with another image in front', (real) => [...blobEntries(real), ['index.json', foreignFirst(real)]]],
    ['lack a blob', (real) => [...blobEntries(real).slice(1), ['index.json', real.index]]],
  ])('attestations that %s are artifact-corrupt, and nothing is sent (B.8)', async (_, entries) => {
    const real = attested(image);
    const made = entries(real);
    const tarball = savedTarball(image, ['charon:local']);
    const labels = { 'org.opencontainers.image.revision': 'abc123' };
    const index = made?.find(([name]) => name === 'index.json')?.[1] ?? real.index;
    const record = { ...recordOf(image, tarball, labels), indexDigest: digestOf(index) };
    const more = made === undefined ? [] : [{ name: attestationsName, bytes: tar(made) }];
    await upload(service, { tarball, record, more });
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('artifact-corrupt');
    expect(errorMessage(outcome)).toContain(attestationsName);
    expect(String(await get('manifests/1.0', anyManifest))).toBe('HTTP 404');
  });

  test('an artifact without its own manifest can’t be published unchanged', async () => {
    const saved = join(directory, 'plain.tar');
    writeFileSync(saved, podmanTarball(makeImage({ gzip: false }), ['charon:local']));
    const exported = await step('export-image', { 'source-tarball': saved, tarball: join(directory, 'out.tar') });
    expect(exported.log).not.toContain('::error');
    const outcome = await publish();
    expect(errorCode(outcome)).toBe('tarball-invalid');
    expect(errorMessage(outcome)).toContain('source-tarball');
  });

  test('a name that matches nothing lists the artifacts', async () => {
    await handOver(image);
    const outcome = await publish({ 'artifact-name': 'other-image' });
    expect(errorCode(outcome)).toBe('artifact-not-found');
    expect(errorMessage(outcome)).toContain('"docker-image"');
  });
});

test.each([
  [{ tags: '' }, 'tags'],
  [{ tags: 'latest' }, 'repository'],
  [{ username: 'a' }, '`username` is given without `password`'],
  [{ 'mount-from': 'ghcr.io/org/base:1' }, 'mount-from'],
  [{ 'artifact-name': 'a/b' }, 'artifact'],
  [{ branch: 'main' }, '`branch` is given without `workflow`'],
  [{ 'run-repository': 'a b', 'run-id': '1' }, 'run-repository'],
  [{ tags: 'ghcr.io/a/b:1\ndocker.io/a/b:1', username: 'a', password: 'b' }, '2 registries'],
])('%j is invalid-input with the input’s name', async (inputs, told) => {
  const outcome = await publish(inputs);
  expect(errorCode(outcome)).toBe('invalid-input');
  expect(errorMessage(outcome)).toContain(told);
});

test('an unreachable registry is registry-failed, with its address', async () => {
  await handOver(image);
  const outcome = await publish({ tags: '127.0.0.1:9/org/app:1', 'timeout-minutes': '2' }, {}, shortPauses);
  expect(errorCode(outcome)).toBe('registry-failed');
  expect(errorMessage(outcome)).toContain('127.0.0.1:9');
});
