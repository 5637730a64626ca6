import { Readable } from 'node:stream';
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import { type Proxies, type Proxy, proxyUrl } from '../base/proxies.ts';
import { backoff, retry } from '../base/retry.ts';
import { formatDuration } from '../base/text.ts';

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

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
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
 * @param proxies are used as curl and the runner use them: one for http isn't one for https
 * @param signal ends requests under way
 * @throws HandoverError `unsupported-host` when a proxy is none that can be used
 */
export function httpClient(proxies: Proxies, signal: AbortSignal): Http {
  const options = { headersTimeout: silenceMs, bodyTimeout: silenceMs, connect: { timeout: silenceMs }, pipelining: 1 };
  const direct = new Agent(options);
  const through = (proxy: Proxy | undefined): Dispatcher => {
    if (proxy === undefined) return direct;
    const url = proxyUrl(proxy);
    return new EnvHttpProxyAgent({ ...options, httpProxy: url, httpsProxy: url, noProxy: proxies.except });
  };
  const [plain, secure] = [through(proxies.http), through(proxies.https)];
  return {
    send: ({ method, url, headers, body }) => {
      const dispatcher = url.startsWith('https:') ? secure : plain;
      return Buffer.isBuffer(body)
        ? request(url, { dispatcher, method, signal, headers: withLength(headers, body), body: inPieces(body) })
        : request(url, { dispatcher, method, signal, headers: headers ?? {}, ...(body === undefined ? {} : { body }) });
    },
    close: async () => {
      await Promise.all([...new Set([direct, plain, secure])].map((each) => each.destroy()));
    },
  };
}

function withLength(headers: HttpRequest['headers'], body: Buffer): Readonly<Record<string, string>> {
  return { ...headers, 'content-length': String(body.length) };
}

// Node's TLS copies what is written to it beside the headers, and holds it encrypted as well: in pieces that is little.
function inPieces(body: Buffer): Readable {
  const starts = Array.from({ length: Math.ceil(body.length / pieceBytes) }, (_, piece) => piece * pieceBytes);
  return Readable.from(starts.map((start) => body.subarray(start, start + pieceBytes)));
}

/** Reads a whole, small answer. Throws `HttpError` unless the status is a success. */
export async function readText(response: Dispatcher.ResponseData): Promise<string> {
  const text = await response.body.text();
  if (response.statusCode < 300) return text;
  throw httpError(response, text);
}

/** The error for an answer that isn't a success; `text` is its body. */
export function httpError(response: Dispatcher.ResponseData, text: string): HttpError {
  const header = (name: string): string => String(response.headers[name] ?? '');
  const serviceCode = header('x-ms-error-code') || (/"code"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '');
  const message = /"msg"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? serviceCode;
  const seconds = Number(header('retry-after') || NaN);
  const retryAfterMs = Number.isFinite(seconds) ? Math.min(seconds, 60) * 1000 : undefined;
  return new HttpError(
    response.statusCode,
    serviceCode,
    `HTTP ${String(response.statusCode)}${message === '' ? '' : ` (${message})`}`,
    retryAfterMs,
  );
}

const retryableStatus: readonly number[] = [408, 429, 500, 502, 503, 504];

/** Whether the same request may succeed in a moment: a lost connection, a time-out or a busy service. */
export function isTransient(error: unknown): boolean {
  if (error instanceof HttpError) return retryableStatus.includes(error.status);
  const code = systemCodeOf(error);
  return code !== undefined && (code.startsWith('UND_ERR_') || /^(E[A-Z_]+)$/.test(code)) && code !== 'UND_ERR_ABORTED';
}

export interface AgainOptions {
  /** What is asked for, as the log names it. */
  readonly what: () => string;
  /** How often it is asked for in all. */
  readonly attempts: number;
  /** The first pause and the longest one, in ms, where the service asks for none. */
  readonly pauseMs: readonly [number, number];
  /** Told of each request that is made again, in one line. */
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
  /** Whether another request can help; undefined takes `isTransient`. */
  readonly isRetryable?: (error: unknown) => boolean;
  /** Whether it can help at once; told before the pause. */
  readonly isAtOnce?: (error: unknown) => boolean;
}

/** Makes a request until it succeeds, with pauses that double, and never in silence. Throws the last error. */
export function again<T>(request: () => Promise<T>, options: AgainOptions): Promise<T> {
  const { what, attempts, pauseMs, onRetry, signal, isRetryable = isTransient, isAtOnce = () => false } = options;
  const doubling = backoff(...pauseMs);
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
