import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { text } from 'node:stream/consumers';
import type { Certificate } from '../artifact-service/tls.ts';

// A token service for a real registry, like those of ghcr.io and Docker Hub (distribution, "Token Authentication Specification").
// It issues real tokens: the registry checks their signature, audience and scopes.

export interface TokenService {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** All token requests: `<scopes> as the user`, `… anonymously` or `… with a wrong login`. */
  readonly tokenRequests: readonly string[];
  close(): Promise<void>;
}

export interface TokenOptions {
  readonly certificate: Certificate;
  readonly login: { readonly user: string; readonly password: string };
  /** Accepted instead of a user name and password. */
  readonly identityToken: string;
  /** Repositories that this user can't read. */
  readonly hidden?: readonly string[];
}

export async function startTokenService({
  certificate,
  login,
  identityToken,
  hidden = [],
}: TokenOptions): Promise<TokenService> {
  const tokenRequests: string[] = [];
  const [service, issuer] = ['test-registry', 'test-issuer'];
  const server = createServer((request, response) => {
    void answer(request).then(({ status, body }) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  });
  const answer = async (request: IncomingMessage): Promise<{ status: number; body: unknown }> => {
    const url = new URL(request.url ?? '', 'http://localhost');
    const form = request.method === 'POST' ? new URLSearchParams(await text(request)) : url.searchParams;
    const scopes = form.getAll('scope').flatMap((scope) => scope.split(' '));
    const basic = Buffer.from((request.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString();
    const isKnown =
      basic === `${login.user}:${login.password}` ||
      (form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === identityToken);
    tokenRequests.push(
      `${scopes.join(' ')} ${isKnown ? 'as the user' : basic === '' ? 'anonymously' : 'with a wrong login'}`,
    );
    if (form.get('service') !== service) return { status: 400, body: { details: 'no such service' } };
    if (!isKnown && basic !== '') return { status: 401, body: { details: 'incorrect username or password' } };
    if (scopes.some((scope) => hidden.includes(scope.split(':')[1] ?? '')))
      return { status: 403, body: { errors: [{ code: 'DENIED', message: 'requested access is denied' }] } };
    const access = scopes.map((scope) => {
      const [type, name, actions = ''] = scope.split(':');
      return { type, name, actions: isKnown ? actions.split(',') : ['pull'] };
    });
    return { status: 200, body: { token: token(certificate, { service, issuer, access }), expires_in: 300 } };
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    realm: `http://127.0.0.1:${String(port)}/token`,
    service,
    issuer,
    tokenRequests,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

interface Claims {
  readonly service: string;
  readonly issuer: string;
  readonly access: readonly unknown[];
}

function token({ key, cert }: Certificate, { service, issuer, access }: Claims): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const seconds = Math.floor(Date.now() / 1000);
  const x5c = [new X509Certificate(cert).raw.toString('base64')];
  const head = part({ typ: 'JWT', alg: 'ES256', x5c });
  const times = { iat: seconds, nbf: seconds - 10, exp: seconds + 300, jti: randomUUID() };
  const signed = `${head}.${part({ iss: issuer, aud: service, sub: 'tester', ...times, access })}`;
  const options = { key: createPrivateKey(key), dsaEncoding: 'ieee-p1363' } as const;
  return `${signed}.${sign('sha256', Buffer.from(signed), options).toString('base64url')}`;
}
