import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { arrayOf, isObject, type JsonObject, objectsOf, stringOr } from '../../../shared/base/json.ts';

// A registry in this process that implements distribution-spec 1.1 ("Push", "Pull"). It starts quickly and its state can be read.
// For the quirks of other registries, put a proxy in front (front.ts).

export interface PlainRegistry {
  readonly address: string;
  /** Keyed by `<repository>@<digest>`. */
  readonly blobs: Map<string, Buffer>;
  /** Keyed by `<repository>@<digest>` and `<repository>:<tag>`. */
  readonly manifests: Map<string, { readonly type: string; readonly bytes: Buffer }>;
  /** Paths of open upload sessions. */
  readonly sessions: ReadonlySet<string>;
  close(): Promise<void>;
}

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

function refusal(status: number, code: string, detail: unknown = null): Reply {
  const message = code.toLowerCase().replaceAll('_', ' ');
  return { status, body: Buffer.from(JSON.stringify({ errors: [{ code, message, detail }] })) };
}

export async function startPlainRegistry(): Promise<PlainRegistry> {
  const blobs: PlainRegistry['blobs'] = new Map();
  const manifests: PlainRegistry['manifests'] = new Map();
  const sessions = new Set<string>();

  const blob = (method: string, key: string): Reply => {
    const bytes = blobs.get(key);
    if (bytes === undefined) return refusal(404, 'BLOB_UNKNOWN');
    return {
      status: 200,
      headers: { 'content-length': String(bytes.length) },
      ...(method === 'GET' && { body: bytes }),
    };
  };

  const startUpload = (repository: string, query: URLSearchParams): Reply => {
    const digest = query.get('mount') ?? '';
    const mounted = blobs.get(`${query.get('from') ?? ''}@${digest}`);
    if (mounted !== undefined) {
      blobs.set(`${repository}@${digest}`, mounted);
      return { status: 201, headers: { location: `/v2/${repository}/blobs/${digest}` } };
    }
    const path = `/v2/${repository}/blobs/uploads/${randomUUID()}`;
    sessions.add(path);
    return { status: 202, headers: { location: path } };
  };

  const upload = (method: string, repository: string, url: URL, bytes: Buffer): Reply => {
    if (!sessions.has(url.pathname)) return refusal(404, 'BLOB_UPLOAD_UNKNOWN');
    if (method === 'DELETE') {
      sessions.delete(url.pathname);
      return { status: 204 };
    }
    const digest = url.searchParams.get('digest') ?? '';
    if (digestOf(bytes) !== digest) return refusal(400, 'DIGEST_INVALID', { digest });
    sessions.delete(url.pathname);
    blobs.set(`${repository}@${digest}`, bytes);
    return { status: 201, headers: { location: `/v2/${repository}/blobs/${digest}` } };
  };

  const missingOf = (repository: string, bytes: Buffer): string | undefined => {
    const content: unknown = JSON.parse(bytes.toString());
    const { config, layers, manifests: children } = isObject(content) ? content : {};
    const isMissing =
      (where: ReadonlyMap<string, unknown>) =>
      ({ digest }: JsonObject): boolean =>
        !where.has(`${repository}@${String(digest)}`);
    const missing = [
      ...objectsOf([config, ...arrayOf(layers)]).filter(isMissing(blobs)),
      ...objectsOf(children).filter(isMissing(manifests)),
    ];
    return stringOr(missing[0]?.['digest'], undefined);
  };

  const manifest = (method: string, repository: string, name: string, type: string, bytes: Buffer): Reply => {
    const key = `${repository}${name.startsWith('sha256:') ? '@' : ':'}${name}`;
    if (method === 'PUT') {
      const missing = missingOf(repository, bytes);
      if (missing !== undefined) return refusal(400, 'MANIFEST_BLOB_UNKNOWN', { digest: missing });
      const digest = digestOf(bytes);
      for (const each of [key, `${repository}@${digest}`]) manifests.set(each, { type, bytes });
      return { status: 201, headers: { 'docker-content-digest': digest } };
    }
    const found = manifests.get(key);
    if (found === undefined) return refusal(404, 'MANIFEST_UNKNOWN');
    const headers = { 'content-type': found.type, 'docker-content-digest': digestOf(found.bytes) };
    return { status: 200, headers, ...(method === 'GET' && { body: found.bytes }) };
  };

  const reply = async (request: IncomingMessage): Promise<Reply> => {
    const { method = '' } = request;
    const url = new URL(request.url ?? '', 'http://localhost');
    const bytes = await buffer(request);
    if (url.pathname === '/v2/') return { status: 200 };
    const [, repository = '', kind, name = ''] =
      /^\/v2\/(.+)\/(manifests|blobs|blobs\/uploads)\/([^/]*)$/.exec(url.pathname) ?? [];
    if (kind === 'manifests') return manifest(method, repository, name, request.headers['content-type'] ?? '', bytes);
    if (kind === 'blobs') return blob(method, `${repository}@${name}`);
    if (kind === 'blobs/uploads')
      return method === 'POST' ? startUpload(repository, url.searchParams) : upload(method, repository, url, bytes);
    return refusal(404, 'NAME_UNKNOWN');
  };

  const server = createServer((request, response: ServerResponse) => {
    reply(request).then(
      ({ status, headers, body }) => response.writeHead(status, headers).end(body),
      () => response.destroy(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    address: `127.0.0.1:${String(port)}`,
    blobs,
    manifests,
    sessions,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
