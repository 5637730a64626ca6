import type { Dispatcher } from 'undici';
import {
  again,
  type AgainOptions,
  type Http,
  HttpError,
  type HttpRequest,
  isTransient,
  parseRetryAfter,
  textOf,
} from '../artifacts/http.ts';
import { asError, systemCodeOf } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { isLoopback } from '../base/proxies.ts';
import { quoteForeign } from '../base/text.ts';
import { authorization, type AuthorizationOptions, parseChallenges } from './authorization.ts';
import { mayReadFrom, resolveLocation } from './locations.ts';

// Requests to one registry and their answers: with its login, which no other host gets or may ask for, over redirects, and repeated in
// one place.

/** What a registry answered, read to its end. */
export interface Answer {
  readonly status: number;
  /** Empty when there is none. */
  readonly header: (name: string) => string;
  readonly text: string;
  /** Whether another host answered, to which the registry had sent us. */
  readonly isElsewhere: boolean;
}

export interface Conversation {
  /** Origin of the registry. */
  readonly origin: () => Promise<URL>;
  /** Makes one request, and a second one where the registry asks for its login; `request` is called for each. Throws HttpError, errors of the connection. */
  readonly ask: (scopes: readonly string[], request: () => HttpRequest) => Promise<Answer>;
  /** Asks for a path of the registry until the answer's status is accepted, or another attempt can't help. Throws HttpError. */
  readonly call: (
    what: string,
    scopes: readonly string[],
    path: string,
    request: Omit<HttpRequest, 'url'>,
    isAccepted: (status: number) => boolean,
    isRetryable?: AgainOptions['isRetryable'],
  ) => Promise<Answer>;
  /** Ends an upload, even after a cancel; whatever comes of it. */
  readonly endUpload: (scopes: readonly string[], url: URL) => Promise<void>;
}

// moby registry/config.go: where Docker Hub's API is.
const apiHosts: Readonly<Record<string, string>> = { 'docker.io': 'registry-1.docker.io' };
// A cancelled step has seconds.
const endMs = 2000;

export interface ConversationOptions extends AuthorizationOptions {
  readonly http: Http;
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
}

export function conversation(host: string, options: ConversationOptions): Conversation {
  const { http, onRetry, signal } = options;
  const login = authorization(options);
  let found: Promise<URL> | undefined;
  const origin = (): Promise<URL> =>
    (found ??= findOrigin(host, http).catch((error: unknown) => {
      found = undefined;
      throw asError(error);
    }));

  const askBy = async (via: Http, scopes: readonly string[], request: () => HttpRequest): Promise<Answer> => {
    const own = await origin();
    const send = (header: string | undefined): Promise<Answer> => answerTo(via, request(), own, header);
    const header = login.header(scopes);
    const first = await send(header);
    if (first.status !== 401 || first.isElsewhere) return first;
    const challenges = parseChallenges(first.header('www-authenticate'));
    const another = await login.answer(challenges, scopes, header, { own, via });
    return another === undefined ? first : send(another);
  };
  const ask: Conversation['ask'] = (scopes, request) => askBy(http, scopes, request);

  return {
    origin,
    ask,
    call: async (what, scopes, path, request, isAccepted, isRetryable = isTransient) => {
      const ends = request.signal ?? signal;
      const attempt = async (): Promise<Answer> => {
        const url = new URL(path, await origin()).href;
        return required(await ask(scopes, () => ({ ...request, url })), isAccepted);
      };
      return again('call', attempt, { what: () => what, onRetry, signal: ends, isRetryable });
    },
    endUpload: async (scopes, url) => {
      const ends = { outlivesStep: true, signal: AbortSignal.timeout(endMs) } as const;
      const via: Http = { ...http, send: (request) => http.send({ ...request, ...ends }) };
      await askBy(via, scopes, () => ({ method: 'DELETE', url: url.href })).catch(() => undefined);
    },
  };
}

/** How a registry on the loopback interface is spoken to; elsewhere it is always TLS, as with docker. */
async function findOrigin(host: string, http: Http): Promise<URL> {
  const secure = new URL(`https://${apiHosts[host] ?? host}`);
  if (!isLoopback(host)) return secure;
  try {
    const response = await http.send({ method: 'GET', url: new URL('/v2/', secure).href });
    await response.body.dump();
    return secure;
  } catch (error) {
    // What a server without TLS does with a handshake.
    if (/^(?:ERR_SSL_|EPROTO|ECONNRESET|UND_ERR_SOCKET)/.test(systemCodeOf(error) ?? ''))
      return new URL(`http://${host}`);
    throw asError(error);
  }
}

// RFC 9110, section 15.4: those that lead to the same thing elsewhere.
const redirects: readonly number[] = [301, 302, 303, 307, 308];
// Go's net/http, and so docker's and crane's.
const mostRedirects = 10;

/**
 * Sends a request, and follows the redirects of GET and HEAD (as containerd and crane do). The login goes to the registry's own origin
 * alone. Where a redirect can't be followed, the answer is the redirect.
 */
async function answerTo(http: Http, asked: HttpRequest, own: URL, authorized: string | undefined): Promise<Answer> {
  const send = (url: string): Promise<Dispatcher.ResponseData> => {
    const isOwn = authorized !== undefined && new URL(url).origin === own.origin;
    const headers = { ...asked.headers, ...(isOwn ? { authorization: authorized } : {}) };
    return http.send({ ...asked, url, headers });
  };
  let { url } = asked;
  let response = await send(url);
  for (let hop = 0; hop < mostRedirects && redirects.includes(response.statusCode); hop += 1) {
    const target = resolveLocation(headerOf(response, 'location'), url, own);
    if (!['GET', 'HEAD'].includes(asked.method) || target === undefined || !mayReadFrom(target, own)) break;
    const next = await send(target.href).catch((error: unknown) => {
      asked.signal?.throwIfAborted();
      if (isTransient(error)) return undefined;
      throw asError(error);
    });
    if (next === undefined) break;
    await response.body.dump();
    [url, response] = [target.href, next];
  }
  const isElsewhere = new URL(url).origin !== own.origin;
  const answered = response;
  return {
    status: answered.statusCode,
    header: (name) => headerOf(answered, name),
    text: await textOf(answered),
    isElsewhere,
  };
}

function headerOf(response: Dispatcher.ResponseData, name: string): string {
  return [response.headers[name] ?? ''].flat().join(', ');
}

/** @throws HttpError unless the status is accepted */
export function required(answer: Answer, isAccepted: (status: number) => boolean): Answer {
  const { status, header } = answer;
  if (isAccepted(status)) return answer;
  const { words, details } = wordsOf(answer);
  const parts = [
    `HTTP ${String(status)}`,
    ...(redirects.includes(status) ? [` to "${quoteForeign(header('location'))}"`] : []),
    ...(words === '' ? [] : [` (${quoteForeign(words, 300)})`]),
    ...(details === '' ? [] : [`; detail: ${quoteForeign(details, 300)}`]),
  ];
  throw new HttpError(status, words, parts.join(''), parseRetryAfter(header('retry-after')));
}

/** What the registry said, in its own words (distribution-spec, "Error Codes"). */
function wordsOf({ text }: Answer): { readonly words: string; readonly details: string } {
  const body = parseJson(text);
  const errors = isObject(body) ? objectsOf(body['errors']) : [];
  const said = errors.map(({ code, message }) =>
    [stringOr(code, ''), stringOr(message, '')].filter(Boolean).join(': '),
  );
  const details = errors.map(({ detail = null }) => (typeof detail === 'string' ? detail : JSON.stringify(detail)));
  const empty: readonly string[] = ['null', '{}', '[]', ''];
  return {
    words: said.length > 0 ? said.join('; ') : text.trim(),
    details: details.filter((one) => !empty.includes(one)).join('; '),
  };
}
