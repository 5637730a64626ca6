import { once } from 'node:events';
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';

/** A request to the proxy. */
export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly authorization: string | undefined;
  /** Number of requests with that method and path, including this one. */
  readonly count: number;
}

/** A response from the proxy itself instead of the registry. */
export type Misbehaviour =
  | { readonly kind: 'cut'; readonly afterBytes: number }
  | { readonly kind: 'silence' }
  /** It is passed on, and the answer comes back changed. */
  | {
      readonly kind: 'change';
      readonly status?: number;
      readonly location?: (location: string) => string;
      /** Headers that are removed from the response. */
      readonly without?: readonly string[];
    }
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string | Buffer;
    };

/** A proxy in front of a real registry that misbehaves on demand. */
export interface RegistryFront {
  readonly address: string;
  readonly seen: readonly SeenRequest[];
  /** Called with each request. Returns undefined to forward it. */
  misbehave: (request: SeenRequest) => Misbehaviour | undefined;
  close(): Promise<void>;
}

/** @param tls certificate and key in PEM; without them it uses plain HTTP */
export async function startRegistryFront(
  behind: string,
  tls?: { readonly cert: Buffer | string; readonly key: Buffer | string },
): Promise<RegistryFront> {
  const seen: SeenRequest[] = [];
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const { method = '', url: path = '' } = request;
    const count =
      seen.filter((one) => one.method === method && one.path.split('?')[0] === path.split('?')[0]).length + 1;
    const one = { method, path, authorization: request.headers.authorization, count };
    seen.push(one);
    const misbehaviour = front.misbehave(one);
    if (misbehaviour === undefined || misbehaviour.kind === 'change') forward(behind, request, response, misbehaviour);
    else if (misbehaviour.kind === 'silence') request.resume();
    else if (misbehaviour.kind === 'cut') cutAfter(request, misbehaviour.afterBytes);
    else {
      request.resume();
      response.writeHead(misbehaviour.status, misbehaviour.headers).end(misbehaviour.body ?? '');
    }
  };
  const server = tls === undefined ? createServer(handle) : createSecureServer(tls, handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const front: RegistryFront = {
    address: `127.0.0.1:${String(port)}`,
    seen,
    misbehave: () => undefined,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return front;
}

function forward(
  behind: string,
  request: IncomingMessage,
  response: ServerResponse,
  change: Extract<Misbehaviour, { kind: 'change' }> | undefined,
): void {
  const { method, url, headers } = request;
  const [host, port] = behind.split(':');
  const requested = httpRequest({ host, port: Number(port), method, path: url, headers }, (answer) => {
    const { location = '' } = answer.headers;
    const moved = change?.location === undefined ? {} : { location: change.location(location) };
    const status = change?.status ?? answer.statusCode ?? 500;
    // RFC 9110, section 15.3.5: no content.
    const framed = status === 204 ? { ...answer.headers, 'transfer-encoding': undefined } : answer.headers;
    response.writeHead(status, {
      ...Object.fromEntries(
        Object.entries(framed).filter(
          ([name, value]) => value !== undefined && change?.without?.includes(name) !== true,
        ),
      ),
      ...moved,
    });
    answer.pipe(response);
  });
  requested.on('error', () => response.destroy());
  request.pipe(requested);
}

function cutAfter(request: IncomingMessage, bytes: number): void {
  let read = 0;
  const cut = (): void => void request.socket.destroy();
  if (bytes === 0) cut();
  request.on('data', (chunk: Buffer) => {
    read += chunk.length;
    if (read >= bytes) cut();
  });
  request.on('end', cut);
}
