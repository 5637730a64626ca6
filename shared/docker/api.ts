import { addAbortListener } from 'node:events';
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

// The newest version with known answers: Docker 28.5's. Docker 29.7 serves all from 1.40 on.
const newestVersion = '1.51';

/** An engine's API. Its calls throw `docker-unavailable` if the engine can't be reached. */
export type EngineApi = Readonly<ReturnType<typeof engineApi>>;

/** @param agreed the version that was negotiated with the engine */
export function engineApi(endpoint: Endpoint, times: Deadlines, agreed: { version?: string }) {
  // The newest version of both, as in docker (docker/docker, client, NegotiateAPIVersion).
  const version = async (signal: AbortSignal): Promise<string> => {
    if (endpoint.apiVersion !== undefined) return endpoint.apiVersion;
    if (agreed.version !== undefined) return agreed.version;
    const ping = { method: 'GET', path: '/_ping', signal } as const;
    const answered = await exchange(endpoint, ping, (response) => Promise.resolve(response));
    if ('ok' in answered) throw noEngine(endpoint, answered.message);
    const { 'api-version': served } = answered.headers;
    if (typeof served !== 'string')
      throw noEngine(endpoint, `HTTP ${String(answered.statusCode)}, which is not an engine’s answer`);
    return (agreed.version = olderOf(served, newestVersion));
  };
  const send = async (
    request: EngineRequest,
    signal: AbortSignal,
    onLine?: (line: string) => void,
  ): Promise<EngineAnswer> => {
    const query = new URLSearchParams(request.query).toString();
    const path = `/v${await version(signal)}${request.path}${query === '' ? '' : `?${query}`}`;
    return exchange(endpoint, { ...request, path, signal }, (response) => answerIn(response, onLine));
  };
  return {
    /** Sends a request with a quick answer. */
    ask: async (request: EngineRequest): Promise<EngineAnswer> => {
      times.signal.throwIfAborted();
      const own = new AbortController();
      return times.within(send(request, own.signal), () => own.abort());
    },
    /** Starts long work. The engine reports it in JSON messages. A failure's message becomes the answer. */
    follow: async (request: EngineRequest, onMessage?: (message: JsonObject) => void): Promise<EngineAnswer> => {
      times.signal.throwIfAborted();
      const signal = request.signal === undefined ? times.signal : AbortSignal.any([times.signal, request.signal]);
      let failure: EngineAnswer | undefined;
      const onLine = (line: string): void => {
        const message = parseJson(line);
        if (!isObject(message)) return;
        onMessage?.(message);
        // A failure in a message of long work (moby, pkg/jsonmessage).
        const { errorDetail: detail, error } = message;
        const said = (isObject(detail) && stringOr(detail['message'], '')) || stringOr(error, '');
        if (said !== '') failure ??= { ok: false, message: quoteError(said) };
      };
      try {
        const answer = await send(request, signal, onLine);
        return failure ?? answer;
      } finally {
        signal.throwIfAborted();
      }
    },
  };
}

function olderOf(one: string, other: string): string {
  const minor = (version: string): number => Number(version.split('.')[1]);
  return minor(one) < minor(other) ? one : other;
}

function open({ address, headers }: Endpoint, { method, path, body }: EngineRequest): ClientRequest {
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

/**
 * Sends a request, and reads its response. Throws `docker-unavailable`, the signal's reason, or an error of the body, which is the cause of
 * the engine's error.
 * @returns a refusal if the connection breaks off
 */
async function exchange<T>(
  endpoint: Endpoint,
  request: EngineRequest & { readonly signal: AbortSignal },
  read: (response: IncomingMessage) => Promise<T>,
): Promise<T | Refusal> {
  const { body, signal } = request;
  const asked = open(endpoint, request);
  const end = (): void => void asked.destroy();
  let connected = false;
  const connection =
    endpoint.address.kind === 'tcp' && endpoint.address.tls !== undefined ? 'secureConnect' : 'connect';
  asked.on('socket', (socket) => socket.once(connection, () => void (connected = true)));
  const answered = new AbortController();
  const listening = addAbortListener(signal, end);
  const responded = new Promise<IncomingMessage | Refusal>((resolve, reject) => {
    asked.once('response', resolve);
    asked.on('error', (error) => {
      if (signal.aborted) reject(asError(signal.reason));
      else if (connected) resolve(brokenOff('connection', error));
      else reject(unreachable(endpoint, error));
    });
    asked.once('close', () => {
      listening[Symbol.dispose]();
      answered.abort();
    });
    asked.once('response', () => answered.abort());
  });
  const sent = sendBody(asked, body, answered.signal);
  sent.catch(() => undefined); // rethrown with the answer
  try {
    const response = await responded;
    return 'ok' in response ? response : await read(response).catch((error: unknown) => brokenOff('answer', error));
  } finally {
    end();
    await sent;
  }
}

/** Sends the body. If its chunks fail, the request is broken off before its end, so that the engine can't accept a part as the whole. */
async function sendBody(asked: ClientRequest, body: LentChunks | undefined, answered: AbortSignal): Promise<void> {
  try {
    if (body !== undefined) await writeChunks(asked, body, answered);
    asked.end();
  } catch (error) {
    asked.destroy();
    throw asError(error);
  }
}

function brokenOff(what: 'connection' | 'answer', error: unknown): Refusal {
  return { ok: false, message: `the ${what} broke off (${systemCodeOf(error) ?? messageOf(error)})` };
}

/** @param onLine called with each line of a good answer, of which no text is kept then */
async function answerIn(response: IncomingMessage, onLine?: (line: string) => void): Promise<EngineAnswer> {
  const { statusCode = 0 } = response;
  const isGood = statusCode >= 200 && statusCode < 300;
  let text = '';
  for await (const part of response.setEncoding('utf8')) {
    text += String(part);
    if (isGood && onLine !== undefined) {
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      lines.forEach(onLine);
    }
    if (text.length > limits.answerBytes) throw new Error(`it is longer than ${formatBytes(limits.answerBytes)}`);
  }
  if (isGood) {
    onLine?.(text);
    return { ok: true, text };
  }
  const body = parseJson(text);
  const message = stringOr(isObject(body) ? body['message'] : undefined, text);
  return { ok: false, message: quoteError(message) || `HTTP ${String(statusCode)}` };
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
