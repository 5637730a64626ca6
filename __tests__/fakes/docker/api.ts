import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { asError } from '../../../shared/base/errors.ts';
import { type FakeImages, Refusal } from './images.ts';

// The part of Docker's Engine API that the actions use, with the statuses and messages of moby's daemon.
// __tests__/integration/engine-api.test.ts compares its responses with real engines.

const served = { newest: '1.51', oldest: '1.24' };

export function engineApiServer(images: FakeImages): Server {
  return createServer((request, response) => {
    response.setHeader('Api-Version', served.newest);
    void answer(images, request, response).catch((error: unknown) => {
      const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
      // After the headers, a failure is reported in the body (moby, pkg/streamformatter).
      if (response.headersSent) end(response, { errorDetail: { message: refusal.message }, error: refusal.message });
      else json(response, refusal.status, { message: refusal.message });
    });
  });
}

async function answer(images: FakeImages, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = '' } = request;
  const url = new URL(request.url ?? '/', 'http://docker');
  const [, version, path = ''] = /^(?:\/v(\d+\.\d+))?(\/.*)$/.exec(decodeURIComponent(url.pathname)) ?? [];
  images.called([method, path, ...[...url.searchParams].map(([name, value]) => `${name}=${value}`)]);
  if (images.state.fail === 'hang-info') return;
  if (version !== undefined && !requireVersion(response, version)) return;
  const query = (name: string): string => url.searchParams.get(name) ?? '';
  const [, image = '', part = ''] = /^\/images\/(.+?)(?:\/(json|tag))?$/.exec(path) ?? [];
  const route = `${method} ${path}`;
  if (route === 'GET /_ping') response.end('OK');
  else if (route === 'GET /info') json(response, 200, images.info());
  else if (route === 'GET /images/json') json(response, 200, images.list());
  else if (route === 'POST /images/load') await load(images, request, response);
  else if (route === 'POST /images/create') await create(images, request, response, query);
  else if (method === 'GET' && part === 'json')
    json(response, 200, images.inspect(image, false, query('manifests') === '1'));
  else if (method === 'POST' && part === 'tag') {
    images.tag(image, `${query('repo')}:${query('tag')}`);
    response.writeHead(201).end();
  } else if (method === 'DELETE' && image !== '') json(response, 200, images.remove(image));
  else {
    response.removeHeader('Api-Version');
    throw new Refusal(404, 'page not found');
  }
}

/** @returns false if the version is not supported (moby, daemon/server/middleware/version.go) */
function requireVersion(response: ServerResponse, version: string): boolean {
  const minor = (one: string): number => Number(one.split('.')[1]);
  const { newest, oldest } = served;
  if (!version.startsWith('1.') || minor(version) > minor(newest))
    throw new Refusal(400, `client version ${version} is too new. Maximum supported API version is ${newest}`);
  if (minor(version) >= minor(oldest)) return true;
  response.writeHead(400, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(
    `client version ${version} is too old. Minimum supported API version is ${oldest}, please upgrade your client to a newer version\n`,
  );
  return false;
}

async function load(images: FakeImages, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const lines: string[] = [];
  const print = (line: string): void => void lines.push(`${JSON.stringify({ stream: `${line}\n` })}\r\n`);
  const loaded = images.load(request, false, print);
  const failure = await loaded.catch((error: unknown) => error);
  response.writeHead(200, { 'content-type': 'application/json' });
  for (const line of lines) response.write(line);
  // Errors in a tarball are reported in the body.
  response.flushHeaders();
  if (failure !== undefined) throw asError(failure);
  response.end();
}

async function create(
  images: FakeImages,
  request: IncomingMessage,
  response: ServerResponse,
  query: (name: string) => string,
): Promise<void> {
  const begin = (): void => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
  };
  if (query('fromSrc') === '-') {
    await buffer(request);
    const imageId = images.importEmpty(query('repo'));
    begin();
    end(response, { status: imageId });
    return;
  }
  const name = `${query('fromImage')}${query('tag').includes(':') ? '@' : ':'}${query('tag')}`;
  if (name.startsWith('127.0.0.1:')) await images.fetch(name, begin);
  else images.pull(name);
  if (!response.headersSent) begin();
  end(response, { status: `Status: Downloaded newer image for ${name}` });
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

function end(response: ServerResponse, message: object): void {
  response.end(`${JSON.stringify(message)}\r\n`);
}
