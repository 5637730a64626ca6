import { Readable } from 'node:stream';
import { rootCertificates } from 'node:tls';
import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { isLoopback, type Proxies, type Proxy, proxyUrl } from './proxies.ts';

/** A body in chunks. The request keeps their memory. */
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
  /** Ends only this request. */
  readonly signal?: AbortSignal | undefined;
  /** Whether it is sent even after the step is cancelled. */
  readonly outlivesStep?: true;
  /** How long the answer may take after the request is sent, in ms; 30 s by default. */
  readonly answerMs?: number | undefined;
}

/** An answer whose body is still arriving. */
export type HttpResponse = Dispatcher.ResponseData;

export interface Http {
  /** Sends a request. The body of the answer must be read to its end or destroyed. */
  send(request: HttpRequest): Promise<HttpResponse>;
  /** Ends every open request. */
  close(): Promise<void>;
}

// After this much silence, the connection is closed and the request is retried.
const silenceMs = 30_000;
const pieceBytes = 256 * 1024;

/**
 * @param proxies used as by curl and the runner: http and https have separate proxies, and the loopback interface has none
 *   (actions/toolkit, http-client/src/proxy.ts; Go's net/http, ProxyFromEnvironment)
 * @param signal ends open requests
 * @param authority a certificate to trust in addition to the system CAs, in PEM
 * @throws HandoverError `unsupported-host` for a proxy that can't be used
 */
export function httpClient(proxies: Proxies, signal: AbortSignal, authority?: string): Http {
  const trust = authority === undefined ? {} : { ca: [...rootCertificates, authority] };
  const connect = { timeout: silenceMs, ...trust };
  const options = { headersTimeout: silenceMs, bodyTimeout: silenceMs, connect, pipelining: 1 };
  const direct = new Agent(options);
  const through = (proxy: Proxy | undefined): Dispatcher => {
    if (proxy === undefined) return direct;
    const url = proxyUrl(proxy);
    // undici passes `requestTls` to the agent behind the proxy.
    const to = { httpProxy: url, httpsProxy: url, noProxy: proxies.except, requestTls: trust };
    return new EnvHttpProxyAgent({ ...options, ...to });
  };
  const [plain, secure] = [through(proxies.http), through(proxies.https)];
  return {
    send: async ({ method, url, headers = {}, body, signal: own, outlivesStep = false, answerMs = silenceMs }) => {
      const ends = AbortSignal.any([...(outlivesStep ? [] : [signal]), ...(own === undefined ? [] : [own])]);
      // If it were aborted already, undici would destroy the body with an error that nothing catches.
      ends.throwIfAborted();
      const { protocol, host } = new URL(url);
      const dispatcher = isLoopback(host) ? direct : protocol === 'https:' ? secure : plain;
      const common = { dispatcher, method, signal: ends, headersTimeout: answerMs };
      if (body === undefined || typeof body === 'string')
        return watched(await request(url, { ...common, headers, body: body ?? null }));
      const { size, chunks } = Buffer.isBuffer(body) ? { size: body.length, chunks: inPieces(body) } : body;
      const sized = { ...headers, 'content-length': String(size) };
      return watched(await request(url, { ...common, headers: sized, body: Readable.from(chunks) }));
    },
    close: async () => {
      await Promise.all([...new Set([direct, plain, secure])].map((each) => each.destroy()));
    },
  };
}

// A connection can break before the body has a reader. The reader gets that error later; without this listener, it would end the process.
function watched(response: HttpResponse): HttpResponse {
  response.body.on('error', () => undefined);
  return response;
}

// Node's TLS keeps a plain and an encrypted copy of each write. With small pieces, these copies stay small.
function inPieces(body: Buffer): Readable {
  const starts = Array.from({ length: Math.ceil(body.length / pieceBytes) }, (_, piece) => piece * pieceBytes);
  return Readable.from(starts.map((start) => body.subarray(start, start + pieceBytes)));
}
