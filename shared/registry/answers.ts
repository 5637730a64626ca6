import { type Answer, readAnswer, refusal } from '../http/answer.ts';
import type { Http, HttpRequest, HttpResponse } from '../http/client.ts';
import { isTransient } from '../http/retry.ts';
import { asError } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';
import { mayReadFrom, mayUploadTo, resolveLocation, withoutSecrets } from './locations.ts';

// Whole answers of a registry or its token service, after redirects.

export interface RegistryAnswer extends Answer {
  /** Address that answered. */
  readonly url: string;
  /** Whether that is another host, to which the registry redirected. */
  readonly isElsewhere: boolean;
}

// RFC 9110, section 15.4: the redirects to the same resource elsewhere.
const redirects: readonly number[] = [301, 302, 303, 307, 308];
// The redirects that keep method and body.
const sameMethod: readonly number[] = [307, 308];
// As many as Go's net/http, docker and crane follow.
const maxRedirects = 10;

/** Whether a request with a body may be redirected to a target. */
type MaySend = (target: URL, own: URL) => boolean;

/**
 * Sends a request, and follows redirects as Go's net/http, containerd and crane do: of GET and HEAD, and of others if method and body
 * are kept. Only the server's own origin gets the login. Returns a redirect that can't be followed.
 * @param request called for each hop, because a body can be sent once
 * @param own origin of the server
 */
export async function answerTo(
  http: Http,
  request: () => HttpRequest,
  own: URL,
  authorized: string | undefined,
  maySend: MaySend = mayUploadTo,
): Promise<RegistryAnswer> {
  const asked = request();
  const isRead = asked.method === 'GET' || asked.method === 'HEAD';
  const send = (one: HttpRequest, url: string): Promise<HttpResponse> => {
    const isOwn = authorized !== undefined && new URL(url).origin === own.origin;
    // Without this header, any coding is allowed (RFC 9110, section 12.5.3).
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

/** @throws HttpError unless the status is accepted */
export function required(answer: RegistryAnswer, isAccepted: (status: number) => boolean): RegistryAnswer {
  const { status, header, url, isElsewhere } = answer;
  if (isAccepted(status)) return answer;
  const { words, details } = wordsOf(answer);
  const parts = [
    `HTTP ${String(status)}`,
    ...(isElsewhere ? [` from another host, ${new URL(url).host}`] : []),
    ...(redirects.includes(status) ? [` to "${quoteForeign(withoutSecrets(header('location')))}"`] : []),
    ...(words === '' ? [] : [` (${quoteForeign(words, 300)})`]),
    ...(details === '' ? [] : [`; detail: ${quoteForeign(details, 300)}`]),
  ];
  // A login wouldn't help: that host gets none.
  const why = isElsewhere && (status === 401 || status === 403) ? 'refused by another host' : words;
  throw refusal(answer, why, parts.join(''));
}

/** Reads the registry's error messages (distribution-spec, "Error Codes"). */
function wordsOf({ text }: RegistryAnswer): { readonly words: string; readonly details: string } {
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
