import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { asError, HandoverError, messageOf, systemCodeOf } from '../base/errors.ts';
import { isObject, type JsonObject, parseJson, stringOr } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { formatBytes, quoteError } from '../base/text.ts';
import { type LentChunks, writeChunks } from '../bytes/chunks.ts';
import type { Deadlines } from './deadlines.ts';
import type { Endpoint } from './endpoint.ts';

// Docker's Engine API over HTTP (https://docs.docker.com/reference/api/engine/): the protocol of `docker`, without a process for each
// request. Each request has its own connection, so none is left open. This is Node's client and not undici's: a tarball's chunks are lent,
// and undici requests the next chunk before it has sent the last one.

interface EngineRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Without a version: `/info`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** A tarball. An error of its chunks ends the request and is rethrown. */
  readonly body?: LentChunks;
  /** Ends this request alone. */
  readonly signal?: AbortSignal;
}

/** A refusal of the engine, or a connection that broke off. */
interface Refusal {
  readonly ok: false;
  readonly message: string;
}

export type EngineAnswer = { readonly ok: true; readonly text: string } | Refusal;

/** An engine's API. Its calls throw `docker-unavailable` if the engine can't be reached. */
export interface EngineApi {
  /** Sends a request with a quick answer. */
  ask(request: EngineRequest): Promise<EngineAnswer>;
  /** Starts long work. The engine reports it in JSON messages. A failure's message becomes the answer. */
  follow(request: EngineRequest, onMessage: (message: JsonObject) => void): Promise<EngineAnswer>;
  /** The same API for cleanup. It works after a cancel, with little time for each request. */
  readonly forCleanUp: EngineApi;
}

// The newest version with known answers: Docker 28.5's. Docker 29.7 serves all from 1.40 on.
const newestVersion = '1.51';

/** @param agreed the version that was negotiated with the engine */
export function engineApi(endpoint: Endpoint, times: Deadlines, agreed: { version?: string } = {}): EngineApi {
  const connect = (request: EngineRequest, path: string, signal: AbortSignal): Exchange =>
    exchange(open(endpoint, request, path), request, endpoint, signal);
  // The newest version of both, as in docker (docker/docker, client, NegotiateAPIVersion).
  const version = async (signal: AbortSignal): Promise<string> => {
    if (endpoint.apiVersion !== undefined) return endpoint.apiVersion;
    if (agreed.version !== undefined) return agreed.version;
    const { response, end } = connect({ method: 'GET', path: '/_ping' }, '/_ping', signal);
    const answered = await response.finally(end);
    if (isLost(answered)) throw noEngine(endpoint, answered.message);
    const { 'api-version': served } = answered.headers;
    if (typeof served !== 'string')
      throw noEngine(endpoint, `HTTP ${String(answered.statusCode)}, which is not an engine’s answer`);
    return (agreed.version = olderOf(served, newestVersion));
  };
  const begin = async (request: EngineRequest, signal: AbortSignal): Promise<Exchange> => {
    const query = new URLSearchParams(request.query).toString();
    const path = `/v${await version(signal)}${request.path}${query === '' ? '' : `?${query}`}`;
    return connect(request, path, signal);
  };
  return {
    ask: async (request) => {
      times.signal.throwIfAborted();
      const own = new AbortController();
      const work = async (): Promise<EngineAnswer> => answerOf(await begin(request, own.signal));
      return times.within(work(), () => own.abort());
    },
    follow: async (request, onMessage) => {
      times.signal.throwIfAborted();
      const signal = request.signal === undefined ? times.signal : AbortSignal.any([times.signal, request.signal]);
      try {
        return await followed(await begin(request, signal), onMessage);
      } finally {
        times.signal.throwIfAborted();
      }
    },
    get forCleanUp() {
      return engineApi(endpoint, times.forCleanUp, agreed);
    },
  };
}

function olderOf(one: string, other: string): string {
  const minor = (version: string): number => Number(version.split('.')[1]);
  return minor(one) < minor(other) ? one : other;
}

/** Encodes a name for a path, with its slashes. */
export function inPath(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/');
}

function open(endpoint: Endpoint, { method, body }: EngineRequest, path: string): ClientRequest {
  const { address, headers } = endpoint;
  const common = { method, path, agent: false as const };
  const type = body === undefined ? {} : { 'content-type': 'application/x-tar' };
  if (address.kind === 'unix') {
    const { socketPath } = address;
    return plainRequest({ ...common, socketPath, headers: { host: 'docker', ...headers, ...type } });
  }
  const { hostname, port, tls } = address;
  const options = { ...common, hostname, port, headers: { ...headers, ...type } };
  if (tls === undefined) return plainRequest(options);
  return tlsRequest({ ...options, ca: tls.ca, cert: tls.cert, key: tls.key, rejectUnauthorized: tls.verify });
}

interface Exchange {
  readonly response: Promise<IncomingMessage | Refusal>;
  /** Settles at the end of the body; rejects with an error of its chunks. */
  readonly sent: Promise<void>;
  /** Ends the connection. */
  readonly end: () => void;
}

function isLost(response: IncomingMessage | Refusal): response is Refusal {
  return 'ok' in response;
}

/** Sends a request. The response rejects with `docker-unavailable`, or with the signal's reason. */
function exchange(asked: ClientRequest, { body }: EngineRequest, endpoint: Endpoint, signal: AbortSignal): Exchange {
  let connected = false;
  const answered = new AbortController();
  const end = (): void => void asked.destroy();
  asked.on('socket', (socket) => {
    socket.once(
      endpoint.address.kind === 'tcp' && endpoint.address.tls !== undefined ? 'secureConnect' : 'connect',
      () => {
        connected = true;
      },
    );
  });
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  const response = new Promise<IncomingMessage | Refusal>((resolve, reject) => {
    asked.once('response', resolve);
    asked.on('error', (error) => {
      if (signal.aborted) reject(asError(signal.reason));
      else if (connected)
        resolve({ ok: false, message: `the connection broke off (${systemCodeOf(error) ?? messageOf(error)})` });
      else reject(unreachable(endpoint, error));
    });
    asked.once('close', () => {
      signal.removeEventListener('abort', end);
      answered.abort();
    });
    asked.once('response', () => answered.abort());
  });
  const sent = writeChunks(asked, body ?? none(), answered.signal).then(
    () => void asked.end(),
    (error: unknown) => {
      // Broken off before its end, so that the engine can't accept a part as the whole.
      end();
      throw asError(error);
    },
  );
  sent.catch(() => undefined); // rethrown with the answer
  return { response, sent, end };
}

async function* none(): AsyncGenerator<Buffer> {
  yield* await Promise.resolve([]);
}

async function answerOf({ response, end }: Exchange): Promise<EngineAnswer> {
  const answered = await response;
  if (isLost(answered)) return answered;
  try {
    return toAnswer(answered, await textOf(answered));
  } catch (error) {
    return { ok: false, message: `the answer broke off (${systemCodeOf(error) ?? messageOf(error)})` };
  } finally {
    end();
  }
}

function toAnswer({ statusCode = 0 }: IncomingMessage, text: string): EngineAnswer {
  if (statusCode >= 200 && statusCode < 300) return { ok: true, text };
  const body = parseJson(text);
  const message = stringOr(isObject(body) ? body['message'] : undefined, text);
  return { ok: false, message: quoteError(message) || `HTTP ${String(statusCode)}` };
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of response.setEncoding('utf8')) {
    text += String(part);
    if (text.length > limits.answerBytes) throw new Error(`it is longer than ${formatBytes(limits.answerBytes)}`);
  }
  return text;
}

async function followed(begun: Exchange, onMessage: (message: JsonObject) => void): Promise<EngineAnswer> {
  try {
    return await messagesOf(begun, onMessage);
  } finally {
    // An error of the body comes first. It is the cause of the engine's error.
    await begun.sent;
  }
}

async function messagesOf(begun: Exchange, onMessage: (message: JsonObject) => void): Promise<EngineAnswer> {
  const answered = await begun.response;
  if (isLost(answered)) return answered;
  if (answered.statusCode !== 200) return answerOf(begun);
  let failure: Refusal | undefined;
  const take = (line: string): void => {
    const message = parseJson(line);
    if (!isObject(message)) return;
    onMessage(message);
    const said = failureIn(message);
    if (said !== undefined) failure ??= { ok: false, message: quoteError(said) };
  };
  let rest = '';
  try {
    for await (const part of answered.setEncoding('utf8')) {
      const lines = `${rest}${String(part)}`.split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > limits.answerBytes) throw new Error(`it is longer than ${formatBytes(limits.answerBytes)}`);
      lines.forEach(take);
    }
    take(rest);
  } catch (error) {
    failure ??= { ok: false, message: `the answer broke off (${systemCodeOf(error) ?? messageOf(error)})` };
  } finally {
    begun.end();
  }
  return failure ?? { ok: true, text: '' };
}

/** Returns the failure in a message of long work (moby, pkg/jsonmessage). */
function failureIn(message: JsonObject): string | undefined {
  const { errorDetail: detail, error } = message;
  const said = isObject(detail) ? stringOr(detail['message'], '') : '';
  return said || stringOr(error, '') || undefined;
}

const start =
  'Start the engine, or set its address: DOCKER_HOST or `docker context use`. ubuntu-slim and macOS runners have no engine.';

// Of the system (connect(2), getaddrinfo(3)).
const causes: Readonly<Record<string, readonly [string, string]>> = {
  ENOENT: ['there is no such socket', start],
  ECONNREFUSED: ['nothing listens there', `${start} If it has stopped, \`journalctl -u docker\` shows the cause.`],
  EACCES: [
    'this user has no permission for the socket',
    'Add the runner’s user to the group that owns the socket (usermod -aG docker USER) and restart the runner, or run the ' +
      'job as root. A rootless engine has its own socket: set DOCKER_HOST, or use `docker context use rootless`.',
  ],
};

function unreachable(endpoint: Endpoint, error: unknown): HandoverError {
  const [what, hint] = causes[systemCodeOf(error) ?? ''] ?? [messageOf(error), start];
  return noEngine(endpoint, what, hint, error);
}

function noEngine({ host }: Endpoint, what: string, hint = start, cause?: unknown): HandoverError {
  return new HandoverError('docker-unavailable', `No Docker engine answers at ${host}: ${what}.`, hint, cause);
}
