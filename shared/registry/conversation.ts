import type { Http, HttpRequest } from '../http/client.ts';
import { again, type AgainOptions, isTransient, isTransientStatus } from '../http/retry.ts';
import { asError, systemCodeOf } from '../base/errors.ts';
import { isLoopback } from '../http/proxies.ts';
import { type RegistryAnswer, answerTo, required } from './answers.ts';
import { authorization, type AuthorizationOptions, parseChallenges } from './authorization.ts';

// Requests to one registry, with its login, which no other host gets, and with retries.

export interface Conversation {
  /** Returns the origin of the registry. */
  readonly origin: () => Promise<URL>;
  /** Makes one request, and another with the login if the registry requires it. Calls `request` for each. Throws HttpError, errors of the connection. */
  readonly ask: (scopes: readonly string[], request: () => HttpRequest) => Promise<RegistryAnswer>;
  /** Requests a path of the registry, with retries, until the answer's status is accepted. Throws HttpError. */
  readonly call: (
    what: string,
    scopes: readonly string[],
    path: string,
    request: Omit<HttpRequest, 'url'>,
    isAccepted: (status: number) => boolean,
    isRetryable?: AgainOptions['isRetryable'],
  ) => Promise<RegistryAnswer>;
  /** Ends an upload, even after a cancel. Never fails. */
  readonly endUpload: (scopes: readonly string[], url: URL) => Promise<void>;
}

// The host of Docker Hub's API (moby, registry/config.go).
const apiHosts: Readonly<Record<string, string>> = { 'docker.io': 'registry-1.docker.io' };
// A cancelled step has seconds.
const endMs = 2000;

interface ConversationOptions extends AuthorizationOptions {
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
  const ask: Conversation['ask'] = (scopes, request) => askBy(http, scopes, request);

  return {
    origin,
    ask,
    call: async (what, scopes, path, request, isAccepted, isRetryable = isTransient) => {
      const ends = request.signal ?? signal;
      const attempt = async (): Promise<RegistryAnswer> => {
        const url = new URL(path, await origin()).href;
        return required(await ask(scopes, () => ({ ...request, url })), isAccepted);
      };
      return again('call', attempt, { what: () => what, onRetry, signal: ends, isRetryable });
    },
    endUpload: async (scopes, url) => {
      const ends = { outlivesStep: true, signal: AbortSignal.timeout(endMs) } as const;
      const via: Http = { ...http, send: (request) => http.send({ ...request, ...ends }) };
      const attempt = async (): Promise<void> => {
        const answer = await askBy(via, scopes, () => ({ method: 'DELETE', url: url.href }));
        required(answer, (status) => !isTransientStatus(status));
      };
      const what = (): string => 'The end of an unfinished upload';
      await again('cleanup', attempt, { what, onRetry, signal: ends.signal }).catch(() => undefined);
    },
  };
}

/** Returns the origin: on the loopback interface with or without TLS, elsewhere always with TLS, as for docker. */
async function findOrigin(host: string, http: Http): Promise<URL> {
  const secure = new URL(`https://${apiHosts[host] ?? host}`);
  if (!isLoopback(host)) return secure;
  try {
    const response = await http.send({ method: 'GET', url: new URL('/v2/', secure).href });
    await response.body.dump();
    return secure;
  } catch (error) {
    const [code, plain] = [systemCodeOf(error) ?? '', new URL(`http://${host}`)];
    // The errors of a TLS handshake with a server without TLS.
    if (/^(?:ERR_SSL_|EPROTO)/.test(code)) return plain;
    if (!/^(?:ECONNRESET|UND_ERR_SOCKET)/.test(code)) throw asError(error);
    // Such a server may also hang up. So may a busy one with TLS, which then doesn't answer a plain request, or answers 400.
    const response = await http.send({ method: 'GET', url: new URL('/v2/', plain).href });
    await response.body.dump();
    if (response.statusCode === 400) throw asError(error);
    return plain;
  }
}
