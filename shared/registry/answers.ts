import { type Answer, readAnswer, refusal } from '../http/answer.ts';
import type { Http, HttpRequest, HttpResponse } from '../http/client.ts';
import { isTransient } from '../http/retry.ts';
import { asError } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';
import { mayReadFrom, mayUploadTo, resolveLocation, withoutSecrets } from './locations.ts';

// Answers of a registry or its token service: over redirects, read to their end, and in their own words where they refuse.

/** A whole answer, after redirects. */
export interface RegistryAnswer extends Answer {
  /** Address that answered. */
  readonly url: string;
  /** Whether that is another host, to which the registry redirected. */
  readonly isElsewhere: boolean;
}

// RFC 9110, section 15.4: those that lead to the same thing elsewhere.
const redirects: readonly number[] = [301, 302, 303, 307, 308];
// Those that leave method and body as they are.
const sameMethod: readonly number[] = [307, 308];
// Go's net/http, and so docker's and crane's.
const mostRedirects = 10;

/** Whether a request with a body may be sent on to another place. */
type MaySend = (target: URL, own: URL) => boolean;

/**
 * Sends a request, and follows redirects as Go's net/http does, and so containerd and crane: those of GET and HEAD, and of others where
 * method and body stay. The login goes to the server's own origin alone. Where a redirect can't be followed, the answer is the redirect.
 * @param request called for each hop: a body can be sent once
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
    // Without this header any coding would do (RFC 9110, section 12.5.3).
    const headers = { 'accept-encoding': 'identity', ...one.headers, ...(isOwn ? { authorization: authorized } : {}) };
    return http.send({ ...one, url, headers });
  };
  let { url } = asked;
  let response = await send(asked, url);
  for (let hop = 0; hop < mostRedirects && redirects.includes(response.statusCode); hop += 1) {
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
  // No login would help: that host gets none.
  const why = isElsewhere && (status === 401 || status === 403) ? 'refused by another host' : words;
  throw refusal(answer, why, parts.join(''));
}

/** What the registry said, in its own words (distribution-spec, "Error Codes"). */
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
