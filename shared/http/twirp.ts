import { isObject, type JsonObject, parseJson } from '../base/json.ts';
import { readText } from './answer.ts';
import type { Http, HttpRequest } from './client.ts';

// The services behind ACTIONS_RESULTS_URL speak Twirp: each call is a POST with JSON (twirp specification, v7).

/** The service reported success in an unknown form, so it is newer than this client. */
export class UnknownAnswer extends Error {
  override readonly name = 'UnknownAnswer';
}

/**
 * @param origin the address of all services, without a trailing slash
 * @param service the full name of one of them
 * @returns makes one request to a service; throws HttpError for a refusal, and UnknownAnswer unless the answer is a JSON object
 */
export function twirp(
  http: Http,
  { origin, service, token }: Readonly<Record<'origin' | 'service' | 'token', string>>,
): (method: string, body: JsonObject, ends?: Pick<HttpRequest, 'signal' | 'answerMs'>) => Promise<JsonObject> {
  return async (method, body, ends) => {
    const response = await http.send({
      method: 'POST',
      url: `${origin}/twirp/${service}/${method}`,
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      ...ends,
    });
    const value = parseJson(await readText(response));
    if (!isObject(value)) throw new UnknownAnswer(`${method}: the answer is not a JSON object`);
    return value;
  };
}

/** Returns a field of an answer by its name in snake_case. It may also be in camelCase (protobuf's JSON allows both). */
export function field(from: JsonObject, name: string): unknown {
  return from[name] ?? from[name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())];
}

/** Returns the value if it is a signed URL; throws UnknownAnswer otherwise. */
export function signedUrl(value: unknown, method: string): string {
  if (typeof value === 'string' && /^https?:$/.test(URL.parse(value)?.protocol ?? '')) return value;
  throw new UnknownAnswer(`${method}: no signed URL`);
}

/** Masks a URL's signature, both as the URL has it and as `URLSearchParams` writes it, and returns the URL. */
export function maskedUrl(url: string, maskSecret: (secret: string) => void): string {
  const signature = (text: string): string | undefined => /[?&]sig=([^&#]+)/.exec(text)?.[1];
  const { searchParams } = new URL(url);
  for (const form of new Set([signature(url), signature(`?${searchParams.toString()}`)])) {
    if (form !== undefined) maskSecret(form);
  }
  return url;
}
