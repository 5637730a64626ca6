import { isObject, type JsonObject, parseJson, stringOr } from '../../base/json.ts';
import { quoteForeign } from '../../base/text.ts';
import { type Answer, HttpError, readAnswer, refusal } from '../../http/answer.ts';
import type { Http, HttpResponse } from '../../http/client.ts';
import { again, isTransient, longestRetryAfterMs } from '../../http/retry.ts';

interface RestPage {
  readonly body: JsonObject;
  /** Address of the next page; undefined on the last one. */
  readonly next: string | undefined;
}

/** Reads GitHub's REST API, or the part of it that Gitea has. Its methods throw `HttpError` unless the answer is a success. */
export interface RestClient {
  /** Whether it is Gitea's or Forgejo's (routers/api/v1 of Gitea): with fewer paths and fields, and no links to the next page. */
  readonly isGitea: boolean;
  get(path: string): Promise<JsonObject>;
  /** Reads the pages of a list, each when the previous one has been used. */
  pages(path: string): AsyncIterable<JsonObject>;
  /** Returns the target of a redirect. It contains its own authorization, and must not get the token. */
  redirect(path: string): Promise<string>;
}

export interface RestClientOptions {
  readonly http: Http;
  /** Without a slash at its end: `https://api.github.com`, `https://host/api/v3` on GitHub Enterprise, or `https://host/api/v1` on Gitea. */
  readonly apiUrl: string;
  /** Needs `actions: read` in the repository. */
  readonly token: string;
  /** Called with one log line before each retry. */
  readonly onRetry: (message: string) => void;
  readonly signal: AbortSignal;
}

export const rateLimited = 'rate-limited';

export function restClient(options: RestClientOptions): RestClient {
  const { apiUrl } = options;
  const get = async (url: string): Promise<RestPage> => {
    const response = await send(options, url);
    const answer = await readAnswer(response);
    const body = parseJson(answer.text);
    if (!isObject(body)) throw new HttpError(answer.status, 'malformed', 'the answer is not a JSON object');
    return { body, next: nextPage(answer.header('link'), apiUrl) };
  };
  return {
    isGitea: apiUrl.endsWith('/api/v1'),
    get: async (path) => (await get(`${apiUrl}${path}`)).body,
    pages: async function* (path) {
      let url: string | undefined = `${apiUrl}${path}`;
      while (url !== undefined) {
        const page: RestPage = await get(url);
        yield page.body;
        url = page.next;
      }
    },
    redirect: async (path) => {
      const response = await send(options, `${apiUrl}${path}`);
      await response.body.dump();
      const location = response.headers['location'];
      if (response.statusCode < 300 || typeof location !== 'string' || !URL.canParse(location)) {
        throw new HttpError(response.statusCode, 'malformed', 'the answer is not a redirect');
      }
      return location;
    },
  };
}

/** Returns a success or a redirect, after retries. */
function send(options: RestClientOptions, url: string): Promise<HttpResponse> {
  const attempt = async (): Promise<HttpResponse> => {
    const response = await sendOnce(options, url);
    if (response.statusCode < 400) return response;
    throw restError(await readAnswer(response));
  };
  return again('call', attempt, {
    what: () => 'The REST API',
    onRetry: options.onRetry,
    signal: options.signal,
    // Whether a longer wait is worth it is the user's decision.
    isRetryable: (error) =>
      error instanceof HttpError && error.serviceCode === rateLimited
        ? (error.retryAfterMs ?? 0) <= longestRetryAfterMs
        : isTransient(error),
  });
}

// A renamed repository answers 301 or 307 with its new address in the same API. The target of a 302 doesn't get the token: the caller
// uses it.
async function sendOnce(options: RestClientOptions, url: string, hops = 3): Promise<HttpResponse> {
  const response = await options.http.send({ method: 'GET', url, headers: headers(options.token) });
  const location = String(response.headers['location'] ?? '');
  const moved = [301, 307, 308].includes(response.statusCode) && URL.canParse(location, url);
  if (!moved || hops === 0 || new URL(location, url).origin !== new URL(url).origin) return response;
  await response.body.dump();
  return sendOnce(options, new URL(location, url).href, hops - 1);
}

// docs.github.com/rest: "Getting started with the REST API", headers.
function headers(token: string): Readonly<Record<string, string>> {
  return {
    accept: 'application/vnd.github+json',
    authorization: `Bearer ${token}`,
    'user-agent': 'image-handover',
    'x-github-api-version': '2022-11-28',
  };
}

function restError(answer: Answer): HttpError {
  const { status, text } = answer;
  const body = parseJson(text);
  const words = quoteForeign(isObject(body) ? stringOr(body['message'], '') : '', 200);
  const message = `HTTP ${String(status)}${words === '' ? '' : ` (${words})`}`;
  const error = refusal(answer, '', message);
  const waitMs = status === 403 || status === 429 ? (error.retryAfterMs ?? rateLimitMs(answer, words)) : undefined;
  if (waitMs === undefined) return error;
  const seconds = (waitMs / 1000).toFixed(0);
  return new HttpError(status, rateLimited, `${message}: a rate limit, for another ${seconds} s`, waitMs);
}

/**
 * Returns how long a rate limit without `Retry-After` holds, in ms; undefined when the answer is about something else. The primary
 * limit has `x-ratelimit-remaining: 0`. A secondary one is named in words, and holds for at least a minute (docs.github.com/rest:
 * "Rate limits for the REST API").
 */
function rateLimitMs({ status, header }: Answer, words: string): number | undefined {
  const reset = Number(header('x-ratelimit-reset'));
  if (header('x-ratelimit-remaining') === '0' && reset > 0) return Math.max(1000, reset * 1000 - Date.now());
  return status === 429 || /rate limit/i.test(words) ? 60_000 : undefined;
}

/**
 * Returns the `next` of a Link header (RFC 8288) on the API's own host: no other host may get the token, and a server behind a proxy
 * may use another name for itself.
 */
function nextPage(header: string, apiUrl: string): string | undefined {
  const link = /<([^>]*)>\s*;\s*rel="next"/.exec(header)?.[1];
  if (link === undefined || !URL.canParse(link, apiUrl)) return undefined;
  const { pathname, search } = new URL(link, apiUrl);
  return `${new URL(apiUrl).origin}${pathname}${search}`;
}
