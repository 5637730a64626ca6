import { type Answer, readAnswer, refusal } from '../http/answer.ts';
import type { Http, HttpRequest, HttpResponse } from '../http/client.ts';
import { isTransient } from '../http/retry.ts';
import { asError } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr, stringsOf } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';
import { isLoopback } from '../http/proxies.ts';
import { canonicalReference } from '../image/reference.ts';

// Complete answers of a registry or its token service, after redirects, and the addresses in them.

export interface RegistryAnswer extends Answer {
  /** The address that answered. */
  readonly url: string;
  /** Whether that is another host, to which the registry redirected. */
  readonly isElsewhere: boolean;
}

// The redirects to the same resource elsewhere (RFC 9110, section 15.4).
const redirects: readonly number[] = [301, 302, 303, 307, 308];
// The redirects that keep the method and the body.
const sameMethod: readonly number[] = [307, 308];
// Go's net/http, docker and crane follow as many.
const maxRedirects = 10;

/**
 * Sends a request, and follows redirects as Go's net/http, containerd and crane do: for GET and HEAD, and for other methods if
 * the method and body are kept. Only the server's own origin gets the login. A redirect that can't be followed is returned.
 * @param request called for each hop, because a body can be sent once
 * @param own origin of the server
 * @param maySend whether a request with a body may be redirected to a target
 */
export async function answerTo(
  http: Http,
  request: () => HttpRequest,
  own: URL,
  authorized: string | undefined,
  maySend: typeof mayUploadTo = mayUploadTo,
): Promise<RegistryAnswer> {
  const asked = request();
  const isRead = asked.method === 'GET' || asked.method === 'HEAD';
  const send = (one: HttpRequest, url: string): Promise<HttpResponse> => {
    const isOwn = authorized !== undefined && new URL(url).origin === own.origin;
    // Without this header, the server may use any coding (RFC 9110, section 12.5.3).
    const headers = { 'accept-encoding': 'identity', ...one.headers, ...(isOwn ? { authorization: authorized } : {}) };
    return http.send({ ...one, url, headers });
  };
  let { url } = asked;
  let response = await send(asked, url);
  for (let hop = 0; hop < maxRedirects && redirects.includes(response.statusCode); hop += 1) {
    const target = resolveLocation([response.headers['location'] ?? ''].flat().join(', '), url, own);
    if (target === undefined || !(isRead ? mayReadFrom : maySend)(target, own)) break;
    if (!isRead && !sameMethod.includes(response.statusCode)) break;
    const next = await send(isRead ? asked : request(), target.href).catch((error: unknown) => {
      asked.signal?.throwIfAborted();
      if (isRead && isTransient(error)) return undefined;
      throw asError(error);
    });
    if (next === undefined) break;
    await response.body.dump();
    [url, response] = [target.href, next];
  }
  return { ...(await readAnswer(response)), url, isElsewhere: new URL(url).origin !== own.origin };
}

/** @throws HttpError with the registry's messages (distribution-spec, "Error Codes") unless the status is accepted */
export function required(answer: RegistryAnswer, isAccepted: (status: number) => boolean): RegistryAnswer {
  const { status, header, text, url, isElsewhere } = answer;
  if (isAccepted(status)) return answer;
  const body = parseJson(text);
  const errors = isObject(body) ? objectsOf(body['errors']) : [];
  const said = errors.map(({ code, message }) => stringsOf([code, message]).filter(Boolean).join(': '));
  const words = errors.length > 0 ? said.join('; ') : text.trim();
  const empty: readonly string[] = ['null', '{}', '[]', ''];
  const details = errors
    .map(({ detail = null }) => stringOr(detail, JSON.stringify(detail)))
    .filter((detail) => !empty.includes(detail))
    .join('; ');
  const parts = [
    `HTTP ${String(status)}`,
    isElsewhere ? ` from another host, ${new URL(url).host}` : '',
    redirects.includes(status) ? ` to "${quoteForeign(withoutSecrets(header('location')))}"` : '',
    words === '' ? '' : ` (${quoteForeign(words, 300)})`,
    details === '' ? '' : `; detail: ${quoteForeign(details, 300)}`,
  ];
  // A login wouldn't help, because that host gets none.
  const why = isElsewhere && (status === 401 || status === 403) ? 'refused by another host' : words;
  throw refusal(answer, why, parts.join(''));
}

/** Returns a repository's path in its registry, with `library/` for Docker Hub. */
export function pathOf(repository: string): string {
  const whole = canonicalReference({ repository });
  return whole.slice(whole.indexOf('/') + 1);
}

// The specification requires 201 for a push. Some registries and proxies answer with the others, which containerd also accepts.
export const isTaken = (status: number): boolean => [200, 201, 202, 204].includes(status);

// Scopes (distribution, "Token Scope Documentation").
export const pulls = (repository: string): string => `repository:${pathOf(repository)}:pull`;
export const pushes = (repository: string): string => `repository:${pathOf(repository)}:pull,push`;

// Targets of redirects and uploads (`Location`; distribution-spec 1.1, "Pushing a blob monolithically"; RFC 9110, section 10.2.2).

/**
 * Resolves a `Location`. An address of the registry itself gets the registry's own origin: behind a proxy that ends TLS, the registry may
 * not know that it has TLS, and the loopback interface has three names.
 * @param asked URL of the request
 * @param own origin of the registry
 * @returns undefined unless it is an HTTP or HTTPS address
 */
function resolveLocation(location: string, asked: string, own: URL): URL | undefined {
  const url = location === '' ? null : URL.parse(location, asked);
  if (url === null) return undefined;
  url.hash = '';
  if (url.host === own.host || isSameLoopback(url, own)) return new URL(url.pathname + url.search, own);
  return url.protocol === 'https:' || url.protocol === 'http:' ? url : undefined;
}

const loopbackNames: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

function isSameLoopback(url: URL, own: URL): boolean {
  return url.port === own.port && [url, own].every(({ hostname }) => loopbackNames.includes(hostname));
}

/** Whether a layer may be sent there: over TLS, to the registry itself, or to this machine if the registry has no TLS. */
function mayUploadTo(url: URL, own: URL): boolean {
  return url.protocol === 'https:' || url.origin === own.origin || (own.protocol === 'http:' && isLoopback(url.host));
}

/** Whether a GET or HEAD follows a redirect to there: never from TLS to an address without TLS. */
function mayReadFrom(url: URL, own: URL): boolean {
  return url.protocol === 'https:' || own.protocol === 'http:';
}

/** Returns the address that an answer gives for an upload; undefined unless a layer may be sent there. */
export function uploadPlace({ header, url }: RegistryAnswer, own: URL): URL | undefined {
  const place = resolveLocation(header('location'), url, own);
  return place !== undefined && mayUploadTo(place, own) ? place : undefined;
}

/** Returns an address for a message, without its query (it may be a signature) and user (it may be a login). */
export function withoutSecrets(location: string): string {
  return location.replace(/[?#].*$/s, '').replace(/\/\/[^/]*@/, '//');
}
