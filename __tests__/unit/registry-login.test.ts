import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { askHelper } from '../../shared/docker/credential-helper.ts';
import { parseChallenges } from '../../shared/registry/authorization.ts';
import { type Credentials, dockerCredentials, loginFolder } from '../../shared/registry/logins.ts';
import { registries } from '../../shared/registry/registries.ts';

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
    // RFC 9110, section 11.6.1: two challenges in one header, and two headers that were joined.
    [
      'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
      [
        ['newauth', { realm: 'apps', type: '1', title: 'Login to "apps"' }],
        ['basic', { realm: 'simple' }],
      ],
    ],
    ['bearer REALM=https://x/t', [['bearer', { realm: 'https://x/t' }]]],
    ['', []],
    ['Bearer', [['bearer', {}]]],
    // Artifactory and others send no realm.
    ['Basic', [['basic', {}]]],
    ['Negotiate abc==', [['negotiate', {}]]],
    [
      'Negotiate, NTLM abc==, Basic realm="simple"',
      [
        ['negotiate', {}],
        ['ntlm', {}],
        ['basic', { realm: 'simple' }],
      ],
    ],
    [
      'Bearer realm="https://x/t" , x-trace.id = 1,, error_description="a, b=\\"c\\"", service=s , Basic',
      [
        ['bearer', { realm: 'https://x/t', 'x-trace.id': '1', error_description: 'a, b="c"', service: 's' }],
        ['basic', {}],
      ],
    ],
  ])('%s', (header, expected) => {
    expect(parseChallenges(header).map(({ scheme, parameters }) => [scheme, parameters])).toEqual(expected);
  });

  test('any header of a registry is parsed in time and never throws', () => {
    const piece = fc.constantFrom('Bearer ', 'Basic ', 'realm=', '"', '\\', ',', ' ', 'a', '=', 'https://x/', '\t');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 400 }), (pieces) => {
        for (const { scheme } of parseChallenges(pieces.join(''))) expect(scheme).toMatch(/^[!-~]+$/);
      }),
    );
  });
});

test('an invalid certificate is refused, and the error doesn’t show it', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'authority-')), 'ca.pem');
  writeFileSync(path, '-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n');
  const { signal } = new AbortController();
  const ignore = (): void => undefined;
  const places = { dockerConfigFolder: dirname(path), buildxConfigFolder: dirname(path), dockerAuthConfig: '' };
  const log = { log: { info: ignore, notice: ignore }, maskSecret: ignore };
  await using all = registries({
    ...places,
    ...log,
    askHelper,
    login: undefined,
    authorityPath: path,
    proxies: { except: '' },
    signal,
  });
  const error: unknown = await all.of('ghcr.io/org/app').catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'invalid-input', message: expect.stringContaining(path) });
  expect(String(error)).not.toContain('hunter2');
  rmSync(dirname(path), { recursive: true });
});

describe('docker’s login for a registry', () => {
  let folder: string;
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'docker-config-'))));
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const auth = (text: string): string => Buffer.from(text).toString('base64');
  const config = (value: unknown): void => {
    writeFileSync(join(folder, 'config.json'), typeof value === 'string' ? value : JSON.stringify(value));
  };
  let notices: string[];
  beforeEach(() => void (notices = []));
  const find = (
    host: string,
    more: { folder?: string; dockerAuthConfig?: string; signal?: AbortSignal } = {},
  ): Promise<Credentials | undefined> =>
    dockerCredentials(host, {
      folder,
      dockerAuthConfig: '',
      askHelper,
      signal: new AbortController().signal,
      onNotice: (line) => notices.push(line),
      ...more,
    });
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
    [
      'a name and a password in separate members',
      { auths: { 'ghcr.io': { username: 'me', password: 'a:b' } } },
      'ghcr.io',
      me,
    ],
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
    ['logins of another form', { auths: ['ghcr.io'], credHelpers: 3, credsStore: null }, 'ghcr.io', undefined],
  ])('%s', async (_what, value, host, expected) => {
    config(value);
    expect(await find(host)).toEqual(expected);
  });

  test('a missing file means no login, and a file that isn’t docker’s is an error', async () => {
    expect(await find('ghcr.io', { folder: join(folder, 'gone') })).toBeUndefined();
    config('{ "auths": ');
    await expect(find('ghcr.io')).rejects.toMatchObject({ code: 'invalid-input' });
  });

  test('an unreadable file is reported, as docker does, and means no login', async () => {
    mkdirSync(join(folder, 'config.json'));
    expect(await find('ghcr.io')).toBeUndefined();
    expect(notices).toEqual([expect.stringMatching(/config\.json, because it can’t be read/)]);
  });

  test.each(['../../evil', 'a b', 'x;y'])('a helper called "%s" isn’t run', async (name) => {
    config({ credsStore: name });
    await expect(find('ghcr.io')).rejects.toMatchObject({ code: 'registry-failed' });
  });

  describe('the variable DOCKER_AUTH_CONFIG', () => {
    const other = { kind: 'password', username: 'other', password: 'x' };
    beforeEach(() => {
      config({
        auths: { 'ghcr.io': { auth: auth('me:a:b') }, 'https://index.docker.io/v1/': { auth: auth('me:a:b') } },
      });
    });

    test.each([
      ['has priority over the file', { auths: { 'ghcr.io': { auth: auth('other:x') } } }, 'ghcr.io', other],
      [
        'contains a login of Docker Hub',
        { auths: { 'https://index.docker.io/v1/': { auth: auth('other:x') } } },
        'docker.io',
        other,
      ],
      [
        'with a login of another registry keeps the file’s login',
        { auths: { 'quay.io': { auth: auth('other:x') } } },
        'ghcr.io',
        me,
      ],
      [
        'with an address as the key has no effect, as in docker',
        { auths: { 'https://ghcr.io/v2/': { auth: auth('other:x') } } },
        'ghcr.io',
        me,
      ],
      ['without logins has no effect', { auths: {} }, 'ghcr.io', me],
    ])('%s', async (_what, value, host, expected) => {
      expect(await find(host, { dockerAuthConfig: JSON.stringify(value) })).toEqual(expected);
      expect(notices).toEqual([]);
    });

    test.each([
      ['invalid JSON', '{"auths": {"ghcr.io": {"auth": "hunter2"'],
      ['a list', '["hunter2"]'],
      ['further members', JSON.stringify({ auths: { 'ghcr.io': { auth: auth('other:x') } }, credsStore: 'hunter2' })],
      ['a login of another form', JSON.stringify({ auths: { 'ghcr.io': { username: 'other', password: 'hunter2' } } })],
      ['no colon', JSON.stringify({ auths: { 'ghcr.io': { auth: auth('hunter2') } } })],
    ])(
      '%s: the variable is ignored as docker does, and the notice doesn’t show its content',
      async (_what, dockerAuthConfig) => {
        expect(await find('ghcr.io', { dockerAuthConfig })).toEqual(me);
        expect(notices).toEqual([expect.stringContaining('DOCKER_AUTH_CONFIG is ignored')]);
        expect(notices.join()).not.toContain('hunter2');
      },
    );
  });

  describe('for one repository, or one use (docker/login-action’s `scope`)', () => {
    const folders = (...paths: readonly string[]): void => {
      for (const path of paths) {
        mkdirSync(join(folder, 'config', path), { recursive: true });
        writeFileSync(join(folder, 'config', path, 'config.json'), '{}');
      }
    };
    const found = async (repository: string): Promise<string> => {
      const places = { dockerConfigFolder: 'usual', buildxConfigFolder: folder, dockerAuthConfig: '' };
      return (await loginFolder(places, repository)).replace(`${folder}/config/`, '');
    };

    test.each([
      ['ghcr.io/org/app', ['ghcr.io/org/app@push'], 'ghcr.io/org/app@push'],
      ['ghcr.io/org/app', ['ghcr.io/org/app@pull,push'], 'ghcr.io/org/app@pull,push'],
      ['ghcr.io/org/app', ['ghcr.io/org/app'], 'ghcr.io/org/app'],
      ['ghcr.io/org/app', ['ghcr.io@push'], 'ghcr.io@push'],
      ['ghcr.io/org/app', ['ghcr.io@push', 'ghcr.io/org/app'], 'ghcr.io/org/app'],
      ['ghcr.io/org/app', ['ghcr.io/org/app', 'ghcr.io/org/app@push'], 'ghcr.io/org/app@push'],
      ['ghcr.io/org/app', ['ghcr.io/org/app@delete'], 'usual'],
      ['ghcr.io/org/app', ['ghcr.io/org/other@push', 'ghcr.io/org@push', 'quay.io@push'], 'usual'],
      ['localhost:5000/app', ['localhost:5000/app@push'], 'localhost:5000/app@push'],
      ['org/app', ['registry-1.docker.io/org/app@push'], 'registry-1.docker.io/org/app@push'],
      ['app', ['registry-1.docker.io/library/app@push'], 'registry-1.docker.io/library/app@push'],
      ['org/app', [], 'usual'],
    ])('%s with %j: %s', async (repository, paths, expected) => {
      folders(...paths);
      expect(await found(repository)).toBe(expected);
    });
  });

  describe('with a credential helper', () => {
    const helper = (script: string): void => {
      writeFileSync(join(folder, 'docker-credential-ours'), `#!/bin/sh\n${script}\n`);
      chmodSync(join(folder, 'docker-credential-ours'), 0o755);
      config({ credsStore: 'ours' });
    };
    const path = process.env['PATH'];
    beforeEach(() => void (process.env['PATH'] = `${folder}:${path ?? ''}`));
    afterEach(() => void (process.env['PATH'] = path));

    test('the helper’s login is found, and a missing login is accepted', async () => {
      helper(`[ "$1" = get ] && [ "$(cat)" = ghcr.io ] && echo '{"Username":"me","Secret":"a:b"}' && exit 0
echo "credentials not found in native keychain"; exit 1`);
      expect(await find('ghcr.io')).toEqual(me);
      expect(await find('quay.io')).toBeUndefined();
    });

    test.each([
      ['fails', 'echo hunter2; echo hunter2 >&2; exit 3', 'exited with 3'],
      ['responds with half of its JSON', `echo '{"Username":"me","Secret":"hunter2"'`, 'other than a JSON object'],
      ['responds with a text', 'echo hunter2', 'other than a JSON object'],
      ['is killed', 'echo hunter2; kill -9 $$', 'a signal'],
    ])('the error about a helper that %s doesn’t show the helper’s output', async (_what, script, told) => {
      helper(script);
      const error: unknown = await find('ghcr.io').catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: 'registry-failed', message: expect.stringContaining(told) });
      expect(JSON.stringify(error) + String(error)).not.toContain('hunter2');
    });

    test('a process that a helper leaves behind with its output isn’t waited for', async () => {
      helper(`(sleep 60) & echo $! > ${join(folder, 'pid')}; echo '{"Username":"me","Secret":"a:b"}'`);
      expect(await find('ghcr.io')).toEqual(me);
      process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')));
    });

    test('a helper may print any amount of errors, and leave a process behind that has its errors', async () => {
      helper(`head -c 3000000 /dev/zero >&2 || exit 1
(sleep 60 >/dev/null) & echo $! > ${join(folder, 'pid')}; echo '{"Username":"me","Secret":"a:b"}'`);
      expect(await find('ghcr.io')).toEqual(me);
      process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')));
    });

    test('a helper whose output has no end is refused', async () => {
      helper(`exec head -c 30000000 /dev/zero`);
      await expect(find('ghcr.io')).rejects.toMatchObject({ code: 'registry-failed' });
    });

    test('a helper that never responds ends with the step', async () => {
      helper(`echo $$ > ${join(folder, 'pid')}; sleep 60; echo late`);
      const controller = new AbortController();
      const asked = find('ghcr.io', { signal: controller.signal });
      const watch = setInterval(() => {
        if (existsSync(join(folder, 'pid')) && readFileSync(join(folder, 'pid'), 'utf8').endsWith('\n'))
          controller.abort(new Error('cancelled'));
      }, 10);
      await expect(asked).rejects.toThrow('cancelled');
      clearInterval(watch);
      const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
      expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    });
  });
});
