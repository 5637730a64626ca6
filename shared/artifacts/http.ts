import { Readable } from 'node:stream';
import { rootCertificates } from 'node:tls';
import { gunzipSync } from 'node:zlib';
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { isLoopback, type Proxies, type Proxy, proxyUrl } from '../base/proxies.ts';
import { backoff, retry } from '../base/retry.ts';
import { formatBytes, formatDuration } from '../base/text.ts';

/** A request to the artifact service or its blob store that was answered with something other than success. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly status: number;
  /** The service's own error code: twirp's `code` or Azure's `x-ms-error-code`. */
  readonly serviceCode: string;
  /** How long the service asked to wait, in ms, if it did. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, serviceCode: string, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.serviceCode = serviceCode;
    this.retryAfterMs = retryAfterMs;
  }
}

/** A body that comes in chunks, which the request takes for good. */
interface StreamedBody {
  /** Bytes of all chunks. */
  readonly size: number;
  readonly chunks: AsyncIterable<Buffer>;
}

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string | StreamedBody;
  /** Ends this request alone. */
  readonly signal?: AbortSignal;
  /** Whether it is sent even after the step was cancelled. */
  readonly outlivesStep?: true;
  /** How long the answer may take once all is sent, in ms, where that is longer than usual. */
  readonly answerMs?: number;
}

export interface Http {
  /** Sends a request. The body of the answer must be read to its end or destroyed. */
  send(request: HttpRequest): Promise<Dispatcher.ResponseData>;
  /** Ends whatever is still under way. */
  close(): Promise<void>;
}

// A connection that says nothing for this long is given up; the request is then tried again.
const silenceMs = 30_000;
const pieceBytes = 256 * 1024;

/**
 * @param proxies are used as curl and the runner use them: one for http isn't one for https, and none is used for the loopback
 *   interface (actions/toolkit, http-client/src/proxy.ts; Go's net/http, ProxyFromEnvironment)
 * @param signal ends requests under way
 * @param authority a certificate to trust beside the usual ones, in PEM
 * @throws HandoverError `unsupported-host` when a proxy is none that can be used
 */
export function httpClient(proxies: Proxies, signal: AbortSignal, authority?: string): Http {
  const trust = authority === undefined ? {} : { ca: [...rootCertificates, authority] };
  const connect = { timeout: silenceMs, ...trust };
  const options = { headersTimeout: silenceMs, bodyTimeout: silenceMs, connect, pipelining: 1 };
  const direct = new Agent(options);
  const through = (proxy: Proxy | undefined): Dispatcher => {
    if (proxy === undefined) return direct;
    const url = proxyUrl(proxy);
    // It passes `requestTls` on to the agent that goes through the proxy.
    const to = { httpProxy: url, httpsProxy: url, noProxy: proxies.except, requestTls: trust };
    return new EnvHttpProxyAgent({ ...options, ...to });
  };
  const [plain, secure] = [through(proxies.http), through(proxies.https)];
  return {
    send: async ({ method, url, headers = {}, body, signal: own, outlivesStep = false, answerMs = silenceMs }) => {
      const ends = AbortSignal.any([...(outlivesStep ? [] : [signal]), ...(own === undefined ? [] : [own])]);
      // Otherwise undici destroys the body with an error that nothing catches.
      ends.throwIfAborted();
      const { protocol, host } = new URL(url);
      const dispatcher = isLoopback(host) ? direct : protocol === 'https:' ? secure : plain;
      const common = { dispatcher, method, signal: ends, headersTimeout: answerMs };
      if (body === undefined || typeof body === 'string')
        return request(url, { ...common, headers, ...(body === undefined ? {} : { body }) });
      const streamed = Buffer.isBuffer(body) ? { size: body.length, chunks: inPieces(body) } : body;
      const length = { 'content-length': String(streamed.size) };
      return request(url, { ...common, headers: { ...headers, ...length }, body: Readable.from(streamed.chunks) });
    },
    close: async () => {
      await Promise.all([...new Set([direct, plain, secure])].map((each) => each.destroy()));
    },
  };
}

// Node's TLS copies what is written to it beside the headers, and holds it encrypted as well: in pieces that is little.
function inPieces(body: Buffer): Readable {
  const starts = Array.from({ length: Math.ceil(body.length / pieceBytes) }, (_, piece) => piece * pieceBytes);
  return Readable.from(starts.map((start) => body.subarray(start, start + pieceBytes)));
}

/** The body of an answer as text. Throws `HttpError` when there is more of it than an honest service has to say. */
export async function textOf(response: Dispatcher.ResponseData): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  const body: AsyncIterable<Buffer> = response.body;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limits.answerBytes)
      throw new HttpError(
        response.statusCode,
        'too-large',
        `an answer of more than ${formatBytes(limits.answerBytes)}`,
      );
    chunks.push(chunk);
  }
  const whole = Buffer.concat(chunks);
  const coding = String(response.headers['content-encoding'] ?? '');
  if (size === 0 || !/^(?:x-)?gzip$/i.test(coding)) return whole.toString();
  try {
    return gunzipSync(whole, { maxOutputLength: limits.answerBytes }).toString();
  } catch (error) {
    throw new HttpError(response.statusCode, 'not-gzip', `an answer that can't be unpacked: ${messageOf(error)}`);
  }
}

/** Reads a whole, small answer. Throws `HttpError` unless the status is a success. */
export async function readText(response: Dispatcher.ResponseData): Promise<string> {
  const text = await textOf(response);
  if (response.statusCode < 300) return text;
  throw httpError(response, text);
}

/** The error for an answer that isn't a success; `text` is its body. */
export function httpError(response: Dispatcher.ResponseData, text: string): HttpError {
  const header = (name: string): string => String(response.headers[name] ?? '');
  const serviceCode = header('x-ms-error-code') || (/"code"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '');
  const message = /"msg"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? serviceCode;
  return new HttpError(
    response.statusCode,
    serviceCode,
    `HTTP ${String(response.statusCode)}${message === '' ? '' : ` (${message})`}`,
    parseRetryAfter(header('retry-after')),
  );
}

const longestRetryAfterMs = 60_000;

/**
 * Returns how long a `Retry-After` header asks to wait, in ms, at most a minute; undefined when it is neither a number of seconds nor
 * a date (RFC 9110, section 10.2.3).
 */
export function parseRetryAfter(header: string, now = Date.now()): number | undefined {
  const text = header.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : /^[a-z]+,? /i.test(text) ? Date.parse(text) - now : NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), longestRetryAfterMs);
}

const transientStatus: readonly number[] = [408, 429, 500, 502, 503, 504];

/** Whether a service that answers with this status may give another answer in a moment. */
export function isTransientStatus(status: number): boolean {
  return transientStatus.includes(status);
}

// Of the system (errno(3), getaddrinfo(3)), of undici and of Node's HTTP parser: what says that the connection is at fault, not the
// request, the certificate or this machine.
const transientCodes: readonly string[] = [
  ...['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETUNREACH', 'ENETDOWN', 'EHOSTUNREACH'],
  ...['EAI_AGAIN', 'ENOTFOUND', 'UND_ERR_SOCKET', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
  ...['UND_ERR_BODY_TIMEOUT', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'HPE_INVALID_EOF_STATE', 'CUT_SHORT'],
];

/** Whether the same request may succeed in a moment: a lost connection, a time-out or a busy service. */
export function isTransient(error: unknown): boolean {
  if (error instanceof HttpError) return isTransientStatus(error.status);
  return transientCodes.includes(systemCodeOf(error) ?? '');
}

/** How often a request is made in all, and the first and the longest pause, in ms, where the service asks for none. */
const policies = {
  /** A question to a service. */
  call: { attempts: 5, firstMs: 1000, longestMs: 15_000 },
  /** A part of a blob, up or down: there are many, and each starts anew. */
  part: { attempts: 6, firstMs: 500, longestMs: 10_000 },
} as const;

export interface AgainOptions {
  /** What is asked for, as the log names it. */
  readonly what: () => string;
  /** Told of each request that is made again, in one line. */
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
  /** Whether another request can help; undefined takes `isTransient`. */
  readonly isRetryable?: (error: unknown) => boolean;
  /** Whether it can help at once; told before the pause. */
  readonly isAtOnce?: (error: unknown) => boolean;
}

/**
 * Makes a request until it succeeds, with pauses that double, and never in silence. All requests of a step stand under one
 * deadline, the signal's. Throws the last error.
 */
export function again<T>(
  policy: keyof typeof policies,
  request: () => Promise<T>,
  { what, onRetry, signal, isRetryable = isTransient, isAtOnce = () => false }: AgainOptions,
): Promise<T> {
  const { attempts, firstMs, longestMs } = policies[policy];
  const doubling = backoff(firstMs, longestMs);
  return retry(request, {
    attempts,
    delayMs: (attempt, error) => (isAtOnce(error) ? 0 : (retryAfter(error) ?? doubling(attempt))),
    isRetryable: (error) => isAtOnce(error) || isRetryable(error),
    onRetry: (error, attempt, delayMs) => {
      const next = delayMs === 0 ? 'at once' : `in ${formatDuration(delayMs)}`;
      onRetry(`${what()}: ${messageOf(error)}; attempt ${String(attempt)} of ${String(attempts)}, the next ${next}.`);
    },
    signal,
  });
}

function retryAfter(error: unknown): number | undefined {
  return error instanceof HttpError ? error.retryAfterMs : undefined;
}
