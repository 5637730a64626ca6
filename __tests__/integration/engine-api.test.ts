import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { createServer } from 'node:tls';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { EngineClient, ImageStore } from '../../dev/docker-engine.ts';
import { makeCertificate } from '../fakes/artifact-service/tls.ts';
import { fakeDocker } from '../fakes/docker/fake-docker.ts';
import { type Engines, startArtifactService, startEngines, stepOn } from '../fixtures/engines.ts';
import { makeImage, podmanTarball, savedTarball } from '../fixtures/image.ts';
import { endOfArchive } from '../../shared/tar/header.ts';
import { engineEndpoint } from '../../shared/docker/endpoint.ts';

// Sends requests to the engine's API, at the endpoint that docker itself uses. Compares the tests' fake engine with real engines, and
// checks how the endpoint is found.

const stores = ['classic', 'containerd'] as const;
let engines: Engines;
let folder: string;
beforeAll(async () => void (engines = await startEngines()));
afterAll(() => engines.stop());
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'engine-api-'))));
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const image = makeImage({ layers: 1, gzip: false });
const digest = `sha256:${'d'.repeat(64)}`;

/** Each request changes the engine for the requests below it. The engine starts with an image `a:1`. */
const calls: readonly (readonly [method: string, path: string, body?: Buffer])[] = [
  ['GET', '/_ping'],
  ['GET', '/v1.51/info'],
  ['GET', '/v1.51/images/json?all=1&digests=1'],
  ['GET', '/v1.51/images/a%3A1/json'],
  ['GET', '/v1.51/images/a%3A1/json?manifests=1'],
  ['GET', '/v1.51/images/none%3A1/json?manifests=1'],
  ['GET', `/v1.51/images/none%40${digest}/json?manifests=1`],
  ['POST', '/v1.51/images/a%3A1/tag?repo=b%2Fc&tag=2'],
  ['POST', '/v1.51/images/none%3A1/tag?repo=b%2Fc&tag=2'],
  ['DELETE', '/v1.51/images/b/c%3A2'],
  ['DELETE', '/v1.51/images/b/c%3A2'],
  ['POST', '/v1.51/images/create?fromSrc=-&repo=e%3A1', endOfArchive],
  ['DELETE', '/v1.51/images/e%3A1'],
  ['POST', `/v1.51/images/create?fromImage=127.0.0.1%3A9%2Fx&tag=${digest}`],
  ['POST', '/v1.51/images/load?quiet=1', podmanTarball(image, ['loaded:1'])],
  ['DELETE', '/v1.51/images/loaded%3A1'],
  ['POST', '/v1.51/images/load?quiet=1', endOfArchive],
  ['GET', '/v9.99/info'],
  ['GET', '/v1.10/info'],
  ['GET', '/nosuch'],
];

interface Answer {
  readonly status: number;
  readonly hasVersion: boolean;
  /** JSON messages, or a text. */
  readonly body: readonly unknown[];
}

async function ask(host: string, [method, path, body]: (typeof calls)[number]): Promise<Answer> {
  const asked = request({ socketPath: host.replace('unix://', ''), method, path, headers: { host: 'docker' } });
  asked.end(body);
  const [response] = await once(asked, 'response');
  const lines = (await buffer(response)).toString().split('\n');
  const parts = lines.map((line) => line.trim()).filter((line) => line !== '');
  return {
    status: response.statusCode,
    hasVersion: response.headers['api-version'] !== undefined,
    body: parts.map((part): unknown => (/^[[{]/.test(part) ? JSON.parse(part) : part)),
  };
}

// Ignores digests, numbers, and the details of a refused connection.
const words = (text: string): string =>
  text
    .replace(/sha256:[0-9a-f]{64}/g, 'DIGEST')
    .replace(/\d+(?:\.\d+)*/g, 'N')
    .replace(/^.*connection refused.*$|^.*ECONNREFUSED.*$|^.*fetch failed.*$/, 'connection refused');
// Each store has its own wording for a defective tarball.
const oneOfItsOwn = /^(?:open .*: no such file or directory|unrecognized image format|invalid archive: .*)$/;

/** Returns the fake's response unchanged, and the part of the real response that the fake also has: keys, types of values, and words. */
function shape(value: unknown, like: unknown): unknown {
  if (typeof value === 'string' && typeof like === 'string') return oneOfItsOwn.test(value) ? 'its own' : words(value);
  if (Array.isArray(value) && Array.isArray(like)) {
    const [first] = like;
    return value.slice(0, 1).map((item: unknown) => shape(item, first));
  }
  if (typeof value === 'object' && value !== null && typeof like === 'object' && like !== null)
    return Object.fromEntries(
      Object.keys(like)
        .sort()
        .map((key) => [key, kindOf(key, Reflect.get(value, key), Reflect.get(like, key))]),
    );
  return typeof value;
}

// Names, hosts and numbers differ between engines.
function kindOf(key: string, value: unknown, like: unknown): unknown {
  const isTold = ['message', 'error', 'errorDetail', 'stream', 'Untagged', 'Deleted', 'status'].includes(key);
  if (isTold) return shape(value, like);
  if (Array.isArray(value)) return 'a list';
  return value === null ? 'object' : typeof value;
}

describe.each(stores)('the fake engine responds like the %s store', (store) => {
  test('each request returns the same status, the same keys and the same words', async () => {
    const engine = engines[store];
    execFileSync('docker', ['import', '-', 'a:1'], {
      env: { ...process.env, ...engine.env },
      input: endOfArchive,
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    const fake = await fakeDocker({
      store,
      images: [{ imageId: digest, tags: ['a:1'], diffIds: [], architecture: 'amd64', labels: {} }],
    });
    try {
      for (const call of calls) {
        const here = await ask(fake.env['DOCKER_HOST'] ?? '', call);
        const real = await ask(engine.host, call);
        const seen = (answer: Answer): unknown => ({ ...answer, body: shape(answer.body, here.body) });
        expect([call[0], call[1], seen(here)]).toEqual([call[0], call[1], seen(real)]);
      }
    } finally {
      await fake.remove();
      engine.docker('image', 'rm', 'a:1');
    }
  });
});

test('the endpoint is the same as for docker’s own commands', async () => {
  const { env } = engines.classic;
  const config = join(folder, 'config');
  mkdirSync(config);
  const docker = (variables: Readonly<Record<string, string>>, ...args: readonly string[]): string =>
    execFileSync('docker', args, {
      env: { PATH: env['PATH'], HOME: folder, DOCKER_CONFIG: config, ...variables },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
      .toString()
      .trim();
  makeCertificate(folder);
  const files = ['ca', 'cert', 'key'].map((name) => `${name}=${join(folder, `${name}.pem`)}`).join(',');
  docker({}, 'context', 'create', 'rootless', '--docker', 'host=unix:///run/user/1000/docker.sock');
  docker({}, 'context', 'create', 'far', '--docker', `host=tcp://10.0.0.5:2376,${files}`);
  docker({}, 'context', 'create', 'ssh', '--docker', 'host=ssh://me@far');
  const variables: readonly Readonly<Record<string, string>>[] = [
    {},
    { DOCKER_HOST: 'unix:///tmp/other.sock' },
    { DOCKER_HOST: 'tcp://127.0.0.1:2375' },
    { DOCKER_CONTEXT: 'rootless' },
    { DOCKER_CONTEXT: 'far' },
    { DOCKER_CONTEXT: 'ssh' },
    { DOCKER_CONTEXT: 'default' },
    { DOCKER_HOST: 'unix:///tmp/other.sock', DOCKER_CONTEXT: 'far' },
  ];
  for (const current of ['default', 'rootless']) {
    docker({}, 'context', 'use', current);
    for (const each of variables) {
      const expected = docker(each, 'context', 'inspect', '--format', '{{.Endpoints.docker.Host}}');
      const settings = { dockerConfigFolder: config, dockerVariables: each, proxies: { except: '' } };
      const found = await engineEndpoint(settings);
      expect([current, each, found?.host]).toEqual([current, each, expected.startsWith('ssh:') ? undefined : expected]);
      if (each['DOCKER_CONTEXT'] === 'far' && each['DOCKER_HOST'] === undefined)
        expect(found?.address).toMatchObject({ tls: { verify: true, ca: expect.stringContaining('BEGIN CERT') } });
    }
  }
});

/** Runs a step against the engine, without DOCKER_HOST and with another configuration. */
async function loadsWith(engine: EngineClient, variables: Readonly<Record<string, string>>): Promise<string> {
  const service = await startArtifactService();
  try {
    const saved = join(folder, 'saved.tar');
    writeFileSync(saved, savedTarball(image, ['loaded:1']));
    await stepOn(service, engine, 'export-image', { 'source-tarball': saved, image: 'charon:local' });
    const env = { ...engine.env, DOCKER_HOST: '', ...variables };
    const outcome = await stepOn(service, { env }, 'load-image', {});
    const here = engine.docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}').trim();
    if (here !== '') engine.docker('image', 'rm', here);
    return `${outcome.log}\n${here}`;
  } finally {
    await service.close();
  }
}

describe.each(stores)('an engine of the %s store that a Docker context names', (store: ImageStore) => {
  test('loads an image through its socket, and through TLS with certificates on both sides, and docker’s own command finds it', async () => {
    const engine = engines[store];
    const config = join(folder, 'config');
    mkdirSync(config);
    const { key, cert } = makeCertificate(folder);
    const refused: string[] = [];
    // dockerd with --tlsverify does the same.
    const server = createServer({ key, cert, ca: cert, requestCert: true, rejectUnauthorized: true }, (socket) => {
      const behind = connect(engine.host.replace('unix://', ''));
      socket.pipe(behind).pipe(socket);
      for (const end of [socket, behind]) end.on('error', () => undefined);
    });
    server.on('tlsClientError', (error) => refused.push(error.message));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const files = ['ca', 'cert', 'key'].map((name) => `${name}=${join(folder, `${name}.pem`)}`).join(',');
    const create = (name: string, target: string): void =>
      void execFileSync('docker', ['context', 'create', name, '--docker', target], {
        env: { ...process.env, ...engine.env, DOCKER_CONFIG: config },
        stdio: 'ignore',
      });
    try {
      create('here', `host=${engine.host}`);
      create('tls', `host=tcp://127.0.0.1:${String(port)},${files}`);
      for (const context of ['here', 'tls']) {
        const log = await loadsWith(engine, { DOCKER_CONFIG: config, DOCKER_CONTEXT: context });
        expect(log).toMatch(/Verified: charon:local is the image that was handed over[\s\S]*\ncharon:local$/);
      }
      expect(refused).toEqual([]);
    } finally {
      server.close();
    }
  });
});
