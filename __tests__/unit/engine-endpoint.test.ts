import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { type DockerSettings, engineEndpoint } from '../../shared/docker/endpoint.ts';

const root = mkdtempSync(join(tmpdir(), 'endpoint-'));
afterAll(() => {
  rmSync(root, { recursive: true });
});

type Files = Readonly<Record<string, string>>;

/** Creates Docker's configuration folder with these files. */
function configFolder(files: Files): string {
  const folder = mkdtempSync(join(root, 'config-'));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** Returns the files of a context as `docker context create` stores it. */
function context(name: string, docker: object, tls: Files = {}): Files {
  const id = createHash('sha256').update(name).digest('hex');
  const meta = JSON.stringify({ Name: name, Metadata: {}, Endpoints: { docker } });
  const files = Object.entries(tls).map(([file, content]) => [`contexts/tls/${id}/docker/${file}`, content] as const);
  const all: Files = { [`contexts/meta/${id}/meta.json`]: meta, ...Object.fromEntries(files) };
  return all;
}

const endpoint = (
  dockerVariables: DockerSettings['dockerVariables'],
  files: Files = {},
  proxies: DockerSettings['proxies'] = { except: '' },
): ReturnType<typeof engineEndpoint> =>
  engineEndpoint({ dockerConfigFolder: configFolder(files), dockerVariables, proxies });

const rootless = context('rootless', { Host: 'unix:///run/user/1000/docker.sock' });
const pem = { 'ca.pem': 'CA', 'cert.pem': 'CERT', 'key.pem': 'KEY' };
const proxy = { variable: 'HTTP_PROXY', value: 'http://proxy:3128' };

describe('the engine that docker itself would use', () => {
  test.each<[string, Readonly<Record<string, string>>, Files, string]>([
    ['the default socket', {}, {}, '/var/run/docker.sock'],
    [
      'the default socket for a configuration without a context',
      {},
      { 'config.json': '{"auths":{}}' },
      '/var/run/docker.sock',
    ],
    ['the default socket for an empty configuration', {}, { 'config.json': '' }, '/var/run/docker.sock'],
    ['DOCKER_HOST', { DOCKER_HOST: 'unix:///tmp/other.sock' }, {}, '/tmp/other.sock'],
    ['DOCKER_CONTEXT', { DOCKER_CONTEXT: 'rootless' }, rootless, '/run/user/1000/docker.sock'],
    [
      'the current context',
      {},
      { ...rootless, 'config.json': '{"currentContext":"rootless"}' },
      '/run/user/1000/docker.sock',
    ],
    [
      'DOCKER_HOST, which has precedence over DOCKER_CONTEXT',
      { DOCKER_HOST: 'unix:///tmp/other.sock', DOCKER_CONTEXT: 'rootless' },
      rootless,
      '/tmp/other.sock',
    ],
    [
      'DOCKER_CONTEXT, which has precedence over the current context',
      { DOCKER_CONTEXT: 'default' },
      { ...rootless, 'config.json': '{"currentContext":"rootless"}' },
      '/var/run/docker.sock',
    ],
  ])('the engine is found from %s', async (_, variables, files, socketPath) => {
    expect(await endpoint(variables, files)).toMatchObject({
      host: `unix://${socketPath}`,
      address: { kind: 'unix', socketPath },
    });
  });

  test.each<[string, Readonly<Record<string, string>>, Files, object]>([
    ['TCP', { DOCKER_HOST: 'tcp://10.0.0.5' }, {}, { hostname: '10.0.0.5', port: 2375, tls: undefined }],
    ['TCP on port 80', { DOCKER_HOST: 'tcp://h:80' }, {}, { hostname: 'h', port: 80 }],
    ['TCP over IPv6', { DOCKER_HOST: 'tcp://[::1]:99' }, {}, { hostname: '::1', port: 99 }],
    [
      'DOCKER_TLS_VERIFY with the files of the configuration',
      { DOCKER_HOST: 'tcp://h', DOCKER_TLS_VERIFY: '1' },
      pem,
      { port: 2376, tls: { ca: 'CA', cert: 'CERT', key: 'KEY', verify: true } },
    ],
    [
      'DOCKER_TLS alone, without a certificate check',
      { DOCKER_HOST: 'tcp://h:1', DOCKER_TLS: '1' },
      { 'ca.pem': 'CA' },
      { port: 1, tls: { ca: 'CA', cert: undefined, key: undefined, verify: false } },
    ],
    [
      'a context with certificates',
      { DOCKER_CONTEXT: 'far' },
      context('far', { Host: 'tcp://far:2376', SkipTLSVerify: false }, pem),
      { hostname: 'far', port: 2376, tls: { ca: 'CA', cert: 'CERT', key: 'KEY', verify: true } },
    ],
    [
      'a context without a certificate check',
      { DOCKER_CONTEXT: 'far' },
      context('far', { Host: 'tcp://far:2376', SkipTLSVerify: true }),
      { tls: { ca: undefined, cert: undefined, key: undefined, verify: false } },
    ],
  ])('the engine is found with its address and certificates from %s', async (_, variables, files, address) => {
    expect((await endpoint(variables, files))?.address).toMatchObject({ kind: 'tcp', ...address });
  });

  test('the engine has certificates from DOCKER_CERT_PATH, which has precedence over the configuration', async () => {
    const certificates = configFolder({ 'ca.pem': 'OTHER' });
    const found = await endpoint(
      { DOCKER_HOST: 'tcp://h', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: certificates },
      pem,
    );
    expect(found?.address).toMatchObject({ tls: { ca: 'OTHER', cert: undefined } });
  });

  test('the engine receives DOCKER_API_VERSION and the headers of the configuration', async () => {
    const files = { 'config.json': '{"HttpHeaders":{"X-Team":"image handover"}}' };
    expect(await endpoint({ DOCKER_API_VERSION: '1.44' }, files)).toMatchObject({
      apiVersion: '1.44',
      headers: { 'X-Team': 'image handover' },
    });
  });
});

describe('an engine that only the docker command can find or reach', () => {
  test.each<[string, Readonly<Record<string, string>>, Files]>([
    ['SSH', { DOCKER_HOST: 'ssh://me@far' }, {}],
    ['a Windows pipe', { DOCKER_HOST: 'npipe:////./pipe/docker_engine' }, {}],
    ['a descriptor', { DOCKER_HOST: 'fd://3' }, {}],
    ['a host without a scheme', { DOCKER_HOST: 'far:2375' }, {}],
    ['a path after the host', { DOCKER_HOST: 'tcp://far:2375/engine' }, {}],
    ['a relative socket', { DOCKER_HOST: 'unix://docker.sock' }, {}],
    ['TLS on a socket', { DOCKER_TLS_VERIFY: '1' }, pem],
    ['TLS without a certificate authority', { DOCKER_HOST: 'tcp://h', DOCKER_TLS_VERIFY: '1' }, {}],
    ['an SSH context', { DOCKER_CONTEXT: 'far' }, context('far', { Host: 'ssh://far' })],
    ['a missing context', { DOCKER_CONTEXT: 'gone' }, {}],
    ['a broken context', { DOCKER_CONTEXT: 'far' }, context('far', ['Host'])],
    ['a broken configuration', {}, { 'config.json': '{"currentContext"' }],
    ['a configuration that is a folder', {}, { 'config.json/x': '' }],
    ['an invalid header', {}, { 'config.json': '{"HttpHeaders":{"X":"a\\nb"}}' }],
    ['headers in the environment', { DOCKER_CUSTOM_HEADERS: 'a=b' }, {}],
    ['an invalid version', { DOCKER_API_VERSION: 'newest' }, {}],
  ])('there is no endpoint for %s', async (_, variables, files) => {
    expect(await endpoint(variables, files)).toBeUndefined();
  });

  test.each([
    ['tcp://far:2375', { http: proxy }, undefined],
    ['tcp://far:2375', { https: proxy }, 'tcp://far:2375'],
    ['tcp://localhost:2375', { http: proxy }, 'tcp://localhost:2375'],
    ['tcp://127.0.0.1:2375', { http: proxy }, 'tcp://127.0.0.1:2375'],
    ['unix:///tmp/d.sock', { http: proxy, https: proxy }, 'unix:///tmp/d.sock'],
  ])('the host %s with the proxies %j has the endpoint %s', async (host, proxies, found) => {
    expect((await endpoint({ DOCKER_HOST: host }, {}, { ...proxies, except: '' }))?.host).toBe(found);
  });
});
