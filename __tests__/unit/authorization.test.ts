import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { type Http, httpClient } from '../../shared/http/client.ts';
import type { Credentials } from '../../shared/registry/logins.ts';
import { authorization, type parseChallenges } from '../../shared/registry/authorization.ts';

// The token service of a registry without TLS, on the loopback interface.

interface Asked {
  readonly method: string | undefined;
  readonly url: URL;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

type Authorization = ReturnType<typeof authorization>;
type Challenge = ReturnType<typeof parseChallenges>[number];

let server: Server;
let http: Http;
let origin: string;
let asked: Asked[];
let reply: { status: number; body: string };
let masked: string[];
let time: number;

beforeEach(async () => {
  asked = [];
  masked = [];
  reply = { status: 200, body: '{"token":"t1"}' };
  server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const { method, headers } = request;
      asked.push({ method, url: new URL(request.url ?? '', origin), headers, body });
      response.writeHead(reply.status).end(reply.body);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  origin = `http://127.0.0.1:${String(typeof address === 'object' ? address?.port : '')}`;
  http = httpClient({ except: '' }, new AbortController().signal);
  time = 1_000_000;
  jest.spyOn(Date, 'now').mockImplementation(() => time);
});
afterEach(async () => {
  jest.restoreAllMocks();
  await http.close();
  server.close();
});

const password: Credentials = { kind: 'password', username: 'me', password: 'a:b' };
const basic = `Basic ${Buffer.from('me:a:b').toString('base64')}`;
const scope = 'repository:org/app:pull,push';

const login = (credentials?: Credentials): Authorization =>
  authorization({ credentials, maskSecret: (secret) => void masked.push(secret) });
const bearer = (parameters: Record<string, string> = {}): Challenge => ({
  scheme: 'bearer',
  parameters: { realm: `${origin}/token`, ...parameters },
});
const answer = (
  to: Authorization,
  challenges: readonly Challenge[],
  refused?: string,
  own = 'http://127.0.0.1:5000',
  scopes: readonly string[] = [scope],
): Promise<string | undefined> => to.answer(challenges, scopes, refused, { own: new URL(own), via: http });

describe('a registry token', () => {
  test('a registry token is requested with name and password, for the scopes of the request and the service of the challenge', async () => {
    const own = login(password);
    expect(own.header([scope])).toBeUndefined();
    expect(await answer(own, [bearer({ service: 'registry' })])).toBe('Bearer t1');
    expect(asked).toMatchObject([{ method: 'GET', headers: { authorization: basic }, body: '' }]);
    expect([...(asked[0]?.url.searchParams ?? [])]).toEqual([
      ['service', 'registry'],
      ['scope', scope],
      ['account', 'me'],
    ]);
    expect(asked[0]?.url.pathname).toBe('/token');
    expect(own.header([scope])).toBe('Bearer t1');
    expect(own.header(['repository:other:pull'])).toBeUndefined();
    expect(masked).toEqual([basic.slice('Basic '.length), 't1']);
  });

  test('a registry token is requested without a login if there is none', async () => {
    expect(await answer(login(), [bearer()])).toBe('Bearer t1');
    expect(asked[0]?.headers.authorization).toBeUndefined();
    expect([...(asked[0]?.url.searchParams ?? [])]).toEqual([['scope', scope]]);
    expect(masked).toEqual(['t1']);
  });

  test('a registry token is requested with an identity token in a form', async () => {
    const own = login({ kind: 'identity-token', token: 'refresh' });
    expect(await answer(own, [bearer({ service: 'registry', scope: 'registry:catalog:*' })])).toBe('Bearer t1');
    expect(asked).toMatchObject([
      { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, url: { search: '' } },
    ]);
    expect(asked[0]?.headers.authorization).toBeUndefined();
    expect([...new URLSearchParams(asked[0]?.body)]).toEqual([
      ['grant_type', 'refresh_token'],
      ['client_id', 'image-handover'],
      ['refresh_token', 'refresh'],
      ['service', 'registry'],
      ['scope', `${scope} registry:catalog:*`],
    ]);
    await answer(own, [bearer()], 'Bearer t1');
    expect(new URLSearchParams(asked[1]?.body).has('service')).toBe(false);
  });

  test.each([
    ['repository:org/app:pull', []],
    ['repository:org/app:push,pull', []],
    ['repository:org/app:delete', ['repository:org/app:delete']],
    ['repository:org/app:pull,delete', ['repository:org/app:pull,delete']],
    ['repository:mirror/org/app:pull  repository:org/app:pull', ['repository:mirror/org/app:pull']],
    ['', []],
    ['odd', ['odd']],
  ])(
    'a registry token for the challenge %j also has the scopes that the request does not cover: %j',
    async (named, more) => {
      await answer(login(), [bearer({ scope: named })]);
      expect(asked[0]?.url.searchParams.getAll('scope')).toEqual([scope, ...more]);
    },
  );

  test.each([
    [{}, 50],
    [{ expires_in: 300 }, 290],
    [{ expires_in: 10 }, 5],
    [{ expires_in: 20 }, 10],
    [{ expires_in: 0 }, 50],
    [{ expires_in: -5 }, 50],
    [{ expires_in: '300' }, 50],
  ])('a registry token with %j is used for %d s', async (expiry, seconds) => {
    reply.body = JSON.stringify({ access_token: 't2', ...expiry });
    const own = login();
    await answer(own, [bearer()]);
    time += seconds * 1000 - 1;
    expect(own.header([scope])).toBe('Bearer t2');
    time += 1;
    expect(own.header([scope])).toBeUndefined();
  });

  test('a registry token is requested once for requests that are refused at the same time, and requested again after it is refused', async () => {
    const own = login();
    expect(await Promise.all([answer(own, [bearer()]), answer(own, [bearer()])])).toEqual(['Bearer t1', 'Bearer t1']);
    expect(asked).toHaveLength(1);
    // This request was refused without a token. A token has arrived since then.
    expect(await answer(own, [bearer()])).toBe('Bearer t1');
    expect(asked).toHaveLength(1);
    reply.body = '{"token":"t2"}';
    expect(await answer(own, [bearer()], 'Bearer t1')).toBe('Bearer t2');
    expect(asked).toHaveLength(2);
    expect(await answer(own, [bearer()], 'Bearer t2')).toBeUndefined();
  });

  test('a registry token is used instead of a password, in any order of the challenges', async () => {
    const challenge = { scheme: 'basic', parameters: {} };
    expect(await answer(login(password), [challenge, bearer()])).toBe('Bearer t1');
  });

  test.each([
    ['', 'http://127.0.0.1:5000', ''],
    ['/token', 'http://127.0.0.1:5000', '/token'],
    ['http://registry.invalid/token?password=x', 'http://127.0.0.1:5000', 'http://registry.invalid/token'],
    ['http://127.0.0.1:1/token', 'https://127.0.0.1:5000', 'http://127.0.0.1:1/token'],
    ['ftp://127.0.0.1:1/token', 'http://127.0.0.1:5000', 'ftp://127.0.0.1:1/token'],
  ])('a registry token is not requested from "%s" for the registry %s', async (realm, own, shown) => {
    await expect(answer(login(password), [bearer({ realm })], undefined, own)).rejects.toMatchObject({
      code: 'registry-failed',
      message: expect.stringContaining(`The registry requires a token from "${shown}`),
      hint: expect.stringContaining('No password was sent there.'),
    });
    expect(asked).toEqual([]);
  });

  test.each(['{}', '[]', 'no JSON', '{"token":""}', '{"token":5}', '{"token":"a b"}', '{"token":"a\\nb"}'])(
    'a registry token is missing in the response %s',
    async (body) => {
      reply.body = body;
      const own = login();
      await expect(answer(own, [bearer()])).rejects.toMatchObject({
        code: 'registry-failed',
        message: `The token service ${new URL(origin).host} answered without a token.`,
        hint: expect.stringContaining('Check the login'),
      });
      expect(own.header([scope])).toBeUndefined();
    },
  );

  test('a registry token that the service refuses to issue causes an error, and the next request tries again', async () => {
    reply.status = 403;
    const own = login(password);
    await expect(answer(own, [bearer()])).rejects.toMatchObject({ name: 'HttpError', status: 403 });
    reply.status = 200;
    expect(await answer(own, [bearer()])).toBe('Bearer t1');
  });
});

describe('a registry login with name and password', () => {
  const challenge = { scheme: 'basic', parameters: { realm: 'x' } };

  test('a registry login is sent once to a registry with a basic challenge', async () => {
    const own = login(password);
    expect(await answer(own, [challenge])).toBe(basic);
    expect(own.header([])).toBe(basic);
    expect(await answer(own, [challenge], basic)).toBeUndefined();
    expect(asked).toEqual([]);
  });

  test('a registry login is not sent when there is no login or when the challenge has another scheme', async () => {
    expect(await answer(login(), [challenge])).toBeUndefined();
    expect(await answer(login({ kind: 'identity-token', token: 't' }), [challenge])).toBeUndefined();
    expect(await answer(login(password), [{ scheme: 'negotiate', parameters: {} }])).toBeUndefined();
    expect(await answer(login(password), [])).toBeUndefined();
  });
});
