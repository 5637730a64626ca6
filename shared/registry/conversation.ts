import type { Http, HttpRequest } from '../http/client.ts';
import { again, type AgainOptions, isFinal, type Retries } from '../http/retry.ts';
import { asError, systemCodeOf } from '../base/errors.ts';
import { isLoopback } from '../http/proxies.ts';
import { answerTo, pathOf, pushes, type RegistryAnswer, required } from './answers.ts';
import { authorization, type AuthorizationOptions, parseChallenges } from './authorization.ts';
import { apiHost } from './logins.ts';

/** Requests about one repository of a registry, with retries. Only the registry itself gets its login. */
export interface Conversation {
  readonly repository: string;
  readonly retries: Retries;
  /** Returns the origin of the registry. */
  readonly origin: () => Promise<URL>;
  /** Returns the URL of a path in the repository, such as `blobs/uploads/`. */
  readonly urlOf: (path: string) => Promise<string>;
  /**
   * Makes one request, and a second with the login if the registry requires it. Calls `request` for each. Throws errors of the connection.
   * @param scopes needed in addition to a push to the repository
   */
  readonly ask: (request: () => HttpRequest, scopes?: readonly string[]) => Promise<RegistryAnswer>;
  /** Requests a path in the repository, with retries, until the answer's status is accepted. Throws HttpError. */
  readonly call: (
    what: string,
    path: string,
    request: Omit<HttpRequest, 'url'>,
    isAccepted: (status: number) => boolean,
    isRetryable?: AgainOptions['isRetryable'],
  ) => Promise<RegistryAnswer>;
  /** Cancels an upload, even after the step is cancelled. Never fails. */
  readonly endUpload: (url: URL) => Promise<void>;
}

// A cancelled step has only seconds.
const endMs = 2000;

export interface ConversationOptions extends AuthorizationOptions, Retries {
  readonly http: Http;
}

/** @returns a function that makes the conversation about a repository */
export function conversation(host: string, options: ConversationOptions): (repository: string) => Conversation {
  const { http } = options;
  const retries = { onRetry: options.onRetry, signal: options.signal };
  const login = authorization(options);
  let found: Promise<URL> | undefined;
  const origin = (): Promise<URL> =>
    (found ??= findOrigin(host, http).catch((error: unknown) => {
      found = undefined;
      throw asError(error);
    }));

  const askBy = async (via: Http, scopes: readonly string[], request: () => HttpRequest): Promise<RegistryAnswer> => {
    const own = await origin();
    const send = (header: string | undefined): Promise<RegistryAnswer> => answerTo(via, request, own, header);
    const header = login.header(scopes);
    const first = await send(header);
    if (first.status !== 401 || first.isElsewhere) return first;
    const challenges = parseChallenges(first.header('www-authenticate'));
    const another = await login.answer(challenges, scopes, header, { own, via });
    return another === undefined ? first : send(another);
  };

  return (repository) => {
    const own = [pushes(repository)];
    const urlOf = async (path: string): Promise<string> =>
      new URL(`/v2/${pathOf(repository)}/${path}`, await origin()).href;
    const ask: Conversation['ask'] = (request, scopes = []) => askBy(http, [...own, ...scopes], request);
    return {
      repository,
      retries,
      origin,
      urlOf,
      ask,
      call: async (what, path, request, isAccepted, isRetryable) => {
        const attempt = async (): Promise<RegistryAnswer> => {
          const url = await urlOf(path);
          return required(await ask(() => ({ ...request, url })), isAccepted);
        };
        const signal = request.signal ?? retries.signal;
        return again('call', attempt, { ...retries, what, signal, isRetryable });
      },
      endUpload: async ({ href: url }) => {
        const ends = { outlivesStep: true, signal: AbortSignal.timeout(endMs) } as const;
        const via: Http = { ...http, send: (request) => http.send({ ...request, ...ends }) };
        const attempt = async (): Promise<RegistryAnswer> =>
          required(await askBy(via, own, () => ({ method: 'DELETE', url })), isFinal);
        const what = 'The end of an unfinished upload';
        await again('cleanup', attempt, { ...retries, what, signal: ends.signal }).catch(() => undefined);
      },
    };
  };
}

/** Returns the origin: with or without TLS on the loopback interface, and always with TLS elsewhere, as for docker. */
async function findOrigin(host: string, http: Http): Promise<URL> {
  const secure = new URL(`https://${apiHost(host)}`);
  if (!isLoopback(host)) return secure;
  const statusOf = async (origin: URL): Promise<number> => {
    const { statusCode, body } = await http.send({ method: 'GET', url: new URL('/v2/', origin).href });
    await body.dump();
    return statusCode;
  };
  try {
    await statusOf(secure);
    return secure;
  } catch (error) {
    const [code, plain] = [systemCodeOf(error) ?? '', new URL(`http://${host}`)];
    // Errors of a TLS handshake with a server that has no TLS.
    if (/^(?:ERR_SSL_|EPROTO)/.test(code)) return plain;
    if (!/^(?:ECONNRESET|UND_ERR_SOCKET)/.test(code)) throw asError(error);
    // Such a server may also hang up. So may a busy server with TLS: it then doesn't answer a plain request, or answers 400.
    if ((await statusOf(plain)) === 400) throw asError(error);
    return plain;
  }
}
