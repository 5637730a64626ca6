import { HandoverError } from '../base/errors.ts';
import { isObject, parseJson, stringOr } from '../base/json.ts';
import { isLoopback } from '../http/proxies.ts';
import { quoteForeign } from '../base/text.ts';
import type { Http, HttpRequest } from '../http/client.ts';
import type { Credentials } from './logins.ts';
import { answerTo, required, withoutSecrets } from './answers.ts';

// Authentication with a registry. The registry answers 401 with a challenge. It then gets a name and password, or a token that its token
// service returns for these (distribution, "Token Authentication Specification" and "Oauth2 Token Authentication").

interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

// RFC 9110, section 5.6.2.
const tchar = "[\\w!#$%&'*+.^`|~-]";
const piece = new RegExp(
  `[\\s,]*(?:(${tchar}+)\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|([^\\s,"=][^\\s,"]*))|(${tchar}+)(?:\\s+[\\w.~+/-]+=*(?=\\s*(?:,|$)))?)`,
  'y',
);

/** Reads the challenges in `WWW-Authenticate` (RFC 9110, section 11.6.1), and stops at anything that isn't one. */
export function parseChallenges(header: string): readonly Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = [];
  piece.lastIndex = 0;
  for (let match = piece.exec(header); match !== null; match = piece.exec(header)) {
    const [, name, quoted, bare = '', scheme] = match;
    if (scheme !== undefined) found.push({ scheme: scheme.toLowerCase(), parameters: {} });
    const current = found.at(-1);
    if (name !== undefined && current !== undefined)
      current.parameters[name.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, '$1');
  }
  return found;
}

export interface AuthorizationOptions {
  readonly credentials: Credentials | undefined;
  readonly maskSecret: (secret: string) => void;
}

interface Authorization {
  /** Returns the header for a request with these scopes, if it is already known. */
  header(scopes: readonly string[]): string | undefined;
  /**
   * Answers a challenge from the registry itself, never from another host.
   * @param refused the header that was refused; one answer serves all requests that are refused at the same time
   * @param place origin of the registry, and the client for a token
   * @returns the header to try next; undefined when there is no other
   * @throws HttpError, HandoverError `registry-failed` for a token service that can't be trusted
   */
  answer(
    challenges: readonly Challenge[],
    scopes: readonly string[],
    refused: string | undefined,
    place: TokenPlace,
  ): Promise<string | undefined>;
}

interface TokenPlace {
  readonly own: URL;
  readonly via: Http;
}

// A token is renewed this long before it expires, or after half of its lifetime if that is later.
const marginMs = 10_000;
// Token specification: a token without `expires_in` lasts for a minute.
const usualSeconds = 60;

export function authorization(options: AuthorizationOptions): Authorization {
  const { credentials, maskSecret } = options;
  const password = credentials?.kind === 'password' ? basicHeader(credentials) : undefined;
  let basic: string | undefined;
  const tokens = new Map<string, { readonly header: string; readonly until: number }>();
  const asking = new Map<string, Promise<string>>();
  // An answer may repeat the encoded form that was sent.
  if (password !== undefined) maskSecret(password.replace('Basic ', ''));
  const header = (scopes: readonly string[]): string | undefined => {
    const held = tokens.get(scopes.join(' '));
    return held !== undefined && held.until > Date.now() ? held.header : basic;
  };
  const fetchToken = async (bearer: Challenge, scopes: readonly string[], place: TokenPlace): Promise<string> => {
    const { token, seconds } = await askForToken(credentials, bearer, scopes, place);
    maskSecret(token);
    const lifeMs = seconds * 1000;
    const held = { header: `Bearer ${token}`, until: Date.now() + lifeMs - Math.min(marginMs, lifeMs / 2) };
    tokens.set(scopes.join(' '), held);
    return held.header;
  };
  return {
    header,
    answer: async (challenges, scopes, refused, place) => {
      const meanwhile = header(scopes);
      if (meanwhile !== undefined && meanwhile !== refused) return meanwhile;
      const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
      if (bearer === undefined) {
        if (challenges.some(({ scheme }) => scheme === 'basic')) basic = password;
        return basic === refused ? undefined : basic;
      }
      const key = scopes.join(' ');
      const asked = asking.get(key) ?? fetchToken(bearer, scopes, place).finally(() => asking.delete(key));
      asking.set(key, asked);
      const found = await asked;
      return found === refused ? undefined : found;
    },
  };
}

async function askForToken(
  credentials: Credentials | undefined,
  { parameters }: Challenge,
  ownScopes: readonly string[],
  { own, via }: TokenPlace,
): Promise<{ readonly token: string; readonly seconds: number }> {
  const { realm = '', service } = parameters;
  const url = URL.parse(realm);
  // A token service without TLS is accepted only on this machine, and only for a registry without TLS.
  const isPlain = url?.protocol === 'http:' && own.protocol === 'http:' && isLoopback(url.host);
  const isSafe = url?.protocol === 'https:' || isPlain;
  if (url === null || !isSafe)
    throw new HandoverError(
      'registry-failed',
      `The registry requires a token from "${quoteForeign(withoutSecrets(realm))}"; an address with https:// was expected.`,
      'No password was sent there. Check the host in `tags`, and the registry’s `realm`.',
    );
  const named = (parameters['scope'] ?? '').split(' ').filter(Boolean);
  const scopes = [...ownScopes, ...named.filter((scope) => !ownScopes.some((held) => covers(held, scope)))];
  const { header, ...request } = tokenRequest(url, service, scopes, credentials);
  // Another host gets neither the header nor the form.
  const answered = await answerTo(
    via,
    () => request,
    url,
    header,
    (target) => target.origin === url.origin,
  );
  const answer = parseJson(required(answered, (status) => status < 300).text);
  const said = isObject(answer) ? answer : {};
  const token = stringOr(said['token'], '') || stringOr(said['access_token'], '');
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new HandoverError(
      'registry-failed',
      `The token service ${url.host} answered without a token.`,
      'Check the login (`docker/login-action` before this step, or `username` and `password`).',
    );
  const { expires_in: expires } = said;
  return { token, seconds: typeof expires === 'number' && expires > 0 ? expires : usualSeconds };
}

/** Whether a scope, `repository:<name>:<actions>`, includes another. Behind a proxy, a repository may have another name. */
function covers(held: string, scope: string): boolean {
  const [, of, actions = ''] = /^(.*):([^:]*)$/.exec(scope) ?? [];
  const [, heldOf, heldActions = ''] = /^(.*):([^:]*)$/.exec(held) ?? [];
  return of === heldOf && actions.split(',').every((action) => heldActions.split(',').includes(action));
}

interface TokenRequest extends HttpRequest {
  readonly header?: string;
}

function tokenRequest(
  url: URL,
  service: string | undefined,
  scopes: readonly string[],
  credentials: Credentials | undefined,
): TokenRequest {
  if (credentials?.kind === 'identity-token') {
    const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'image-handover' });
    form.set('refresh_token', credentials.token);
    if (service !== undefined) form.set('service', service);
    form.set('scope', scopes.join(' '));
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url: url.href, headers, body: form.toString() };
  }
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  if (credentials === undefined) return { method: 'GET', url: url.href };
  url.searchParams.set('account', credentials.username);
  return { method: 'GET', url: url.href, header: basicHeader(credentials) };
}

function basicHeader({ username, password }: Extract<Credentials, { kind: 'password' }>): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
