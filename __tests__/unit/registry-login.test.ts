import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { dockerCredentials } from '../../shared/docker/credentials.ts';
import { parseChallenges } from '../../shared/registry/authorization.ts';

describe('challenges', () => {
  test.each([
    [
      // docs.docker.com, "Registry authentication"
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:samalba/my-app:pull,push',
          },
        ],
      ],
    ],
    ['Basic realm="Registry Realm"', [['basic', { realm: 'Registry Realm' }]]],
    // RFC 9110, section 11.6.1: two challenges in one header; and two headers, joined.
    [
      'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
      [
        ['newauth', { realm: 'apps', type: '1', title: 'Login to "apps"' }],
        ['basic', { realm: 'simple' }],
      ],
    ],
    ['bearer REALM=https://x/t', [['bearer', { realm: 'https://x/t' }]]],
    ['', []],
    ['Bearer', []],
    ['Negotiate abc==', []],
  ])('%s', (header, expected) => {
    expect(parseChallenges(header).map(({ scheme, parameters }) => [scheme, parameters])).toEqual(expected);
  });

  test('whatever a registry sends is read in time, and never thrown over', () => {
    const piece = fc.constantFrom('Bearer ', 'Basic ', 'realm=', '"', '\\', ',', ' ', 'a', '=', 'https://x/', '\t');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 400 }), (pieces) => {
        for (const { parameters } of parseChallenges(pieces.join(''))) expect(Object.keys(parameters)).not.toEqual([]);
      }),
    );
  });
});

describe('what docker has for a registry', () => {
  let folder: string;
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'docker-config-'))));
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const auth = (text: string): string => Buffer.from(text).toString('base64');
  const config = (value: unknown): void => {
    writeFileSync(join(folder, 'config.json'), typeof value === 'string' ? value : JSON.stringify(value));
  };
  const me = { kind: 'password', username: 'me', password: 'a:b' };

  test.each([
    [
      'Docker Hub, by the address of its first API',
      { auths: { 'https://index.docker.io/v1/': { auth: auth('me:a:b') } } },
      'docker.io',
      me,
    ],
    ['Docker Hub, by name', { auths: { 'docker.io': { auth: auth('me:a:b') } } }, 'docker.io', me],
    ['a host', { auths: { 'ghcr.io': { auth: auth('me:a:b') } } }, 'ghcr.io', me],
    ['a host with a port', { auths: { 'localhost:5000': { auth: auth('me:a:b') } } }, 'localhost:5000', me],
    ['the address of a host', { auths: { 'https://ghcr.io/v2/': { auth: auth('me:a:b') } } }, 'ghcr.io', me],
    ['a name and password of their own', { auths: { 'ghcr.io': { username: 'me', password: 'a:b' } } }, 'ghcr.io', me],
    [
      'an identity token',
      { auths: { 'ghcr.io': { auth: auth('00000000:'), identitytoken: 't' } } },
      'ghcr.io',
      { kind: 'identity-token', token: 't' },
    ],
    ['another host', { auths: { 'ghcr.io': { auth: auth('me:a:b') } } }, 'quay.io', undefined],
    ['another port', { auths: { 'localhost:5000': { auth: auth('me:a:b') } } }, 'localhost:5001', undefined],
    ['an entry that a helper has emptied', { auths: { 'ghcr.io': {} } }, 'ghcr.io', undefined],
    ['no logins', {}, 'ghcr.io', undefined],
    ['logins of another shape', { auths: ['ghcr.io'], credHelpers: 3, credsStore: null }, 'ghcr.io', undefined],
  ])('%s', async (_what, value, host, expected) => {
    config(value);
    expect(await dockerCredentials(folder, host)).toEqual(expected);
  });

  test('no file is no login; one that isn’t docker’s is an error', async () => {
    expect(await dockerCredentials(join(folder, 'gone'), 'ghcr.io')).toBeUndefined();
    config('{ "auths": ');
    await expect(dockerCredentials(folder, 'ghcr.io')).rejects.toMatchObject({ code: 'invalid-input' });
  });

  test.each(['../../evil', 'a b', 'x;y'])('a helper called "%s" isn’t run', async (name) => {
    config({ credsStore: name });
    await expect(dockerCredentials(folder, 'ghcr.io')).rejects.toMatchObject({ code: 'registry-failed' });
  });
});
