import { once } from 'node:events';
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';

/** A request that came to the front. */
export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly authorization: string | undefined;
  /** How many requests of that method and path have come, this one included. */
  readonly count: number;
}

/** What the front does with a request, instead of passing it on. */
export type Misbehaviour =
  | { readonly kind: 'cut'; readonly afterBytes: number }
  | { readonly kind: 'silence' }
  /** It is passed on, and the answer comes back changed. */
  | {
      readonly kind: 'change';
      readonly status?: number;
      readonly location?: (location: string) => string;
      /** Headers of the answer that don't come back. */
      readonly without?: readonly string[];
    }
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string | Buffer;
    };

/** What stands before a real registry, and misbehaves where it is told to. */
export interface RegistryFront {
  readonly address: string;
  readonly seen: readonly SeenRequest[];
  /** Asked for each request; undefined passes it on. */
  misbehave: (request: SeenRequest) => Misbehaviour | undefined;
  close(): Promise<void>;
}

/** @param tls certificate and key, in PEM; without them it speaks plain HTTP */
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
    const wrong = front.misbehave(one);
    if (wrong === undefined || wrong.kind === 'change') passOn(behind, request, response, wrong);
    else if (wrong.kind === 'silence') request.resume();
    else if (wrong.kind === 'cut') cutAfter(request, wrong.afterBytes);
    else {
      request.resume();
      response.writeHead(wrong.status, wrong.headers).end(wrong.body ?? '');
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

function passOn(
  behind: string,
  request: IncomingMessage,
  response: ServerResponse,
  change: Extract<Misbehaviour, { kind: 'change' }> | undefined,
): void {
  const { method, url, headers } = request;
  const [host, port] = behind.split(':');
  const asked = httpRequest({ host, port: Number(port), method, path: url, headers }, (answer) => {
    const { location = '' } = answer.headers;
    const moved = change?.location === undefined ? {} : { location: change.location(location) };
    const status = change?.status ?? answer.statusCode ?? 500;
    // RFC 9110, section 15.3.5: it has no content.
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
  asked.on('error', () => response.destroy());
  request.pipe(asked);
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
