import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

/** How the fake behaves: like Gitea 1.26, or like Forgejo and earlier versions of Gitea. */
export type Manners = '1.26' | 'older';

/** A stored artifact. A run has at most one with each name. */
interface Stored {
  readonly id: number;
  readonly name: string;
  size: number;
  content: Buffer;
  status: 'pending' | 'confirmed' | 'deleted';
  days: number;
}

/** A fake of the artifact service of Gitea and Forgejo (routers/api/actions/artifactsv4.go, artifacts_chunks.go). */
export interface GiteaArtifacts {
  readonly url: string;
  /** The token of a job of run 7. */
  token(job: number): string;
  readonly artifacts: readonly Stored[];
  /** Ranges of the downloads; an empty string for a whole download. */
  readonly ranges: string[];
  /** Called before each response. `lost` destroys the connection instead, `unknown` changes the response, and `refused` refuses the request. */
  onAnswer: (method: string) => 'lost' | 'unknown' | 'refused' | undefined;
  close(): Promise<void>;
}

type Body = Readonly<Record<string, unknown>>;
class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const run = '7';
const dayMs = 24 * 60 * 60 * 1000;
// The fields that each version knows. For any other field, protojson reports an error.
const known = {
  '1.26': ['name', 'version', 'expires_at', 'mime_type'],
  older: ['name', 'version', 'expires_at'],
} as const;

export async function startGiteaArtifacts(manners: Manners): Promise<GiteaArtifacts> {
  const artifacts: Stored[] = [];
  const blocks = new Map<string, Buffer>();
  const blockLists = new Map<number, readonly string[]>();
  let url = '';
  const service: GiteaArtifacts = {
    get url() {
      return url;
    },
    token: (job) => {
      const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
      return `${part({ alg: 'HS256' })}.${part({ scp: `Actions.Results:${run}:${String(job)}` })}.${randomUUID()}`;
    },
    artifacts,
    ranges: [],
    onAnswer: () => undefined,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  const find = (name: unknown): Stored => {
    const found = artifacts.find((artifact) => artifact.name === name);
    if (found === undefined) throw new Refusal(404, 'Error artifact not found');
    return found;
  };
  const signed = (endpoint: string, { id }: Stored): string =>
    `${url}/twirp/${endpoint}?sig=a&artifactID=${String(id)}`;
  const blockKey = (id: number, length: number, block: string): string =>
    JSON.stringify(manners === 'older' ? [run, length, block] : [run, id, length, block]);
  const calls: Readonly<Record<string, (body: Body) => unknown>> = {
    CreateArtifact: (body) => {
      const fields: readonly string[] = ['workflow_run_backend_id', 'workflow_job_run_backend_id', ...known[manners]];
      if (Object.keys(body).some((field) => !fields.includes(field)))
        throw new Refusal(500, 'Error decode request body');
      const until = body['expires_at'];
      const days = typeof until === 'string' ? Math.trunc((Date.parse(until) - Date.now()) / dayMs) : 90;
      let stored = artifacts.find(({ name }) => name === body['name']);
      if (stored === undefined) {
        const id = artifacts.length + 1;
        stored = { id, name: String(body['name']), size: 0, content: Buffer.alloc(0), status: 'pending', days };
        artifacts.push(stored);
      }
      Object.assign(stored, { days, size: 0 });
      return { ok: true, signedUploadUrl: signed('UploadArtifact', stored) };
    },
    FinalizeArtifact: (body) => {
      const stored = find(body['name']);
      const ids = blockLists.get(stored.id);
      blockLists.delete(stored.id);
      const parts = (ids ?? []).map((id) =>
        [...blocks].find(([key]) => {
          const [, ...rest]: readonly unknown[] = JSON.parse(key);
          return rest.at(-1) === id && (manners === 'older' || rest[0] === stored.id);
        }),
      );
      const content = Buffer.concat(parts.map((part) => part?.[1] ?? Buffer.alloc(0)));
      for (const part of parts) blocks.delete(part?.[0] ?? '');
      if (ids === undefined || String(content.length) !== body['size'] || digestOf(content) !== body['hash'])
        throw new Refusal(500, 'Error merge chunks');
      Object.assign(stored, { content, size: content.length, status: 'confirmed' });
      return { ok: true, artifactId: String(stored.id) };
    },
    ListArtifacts: (body) => {
      if (artifacts.length === 0 && manners === 'older') throw new Refusal(404, 'Not Found');
      const listed = artifacts
        .filter(({ status }) => manners === 'older' || status === 'confirmed')
        .filter(({ name }) => [undefined, name].includes(toText(body['name_filter'])))
        .map(({ id, name, size }) => ({
          workflowRunBackendId: body['workflow_run_backend_id'],
          workflowJobRunBackendId: body['workflow_job_run_backend_id'],
          databaseId: String(id),
          name,
          // Protobuf's JSON leaves out zeros and empty lists.
          ...(size === 0 ? {} : { size: String(size) }),
          createdAt: new Date().toISOString(),
        }));
      return listed.length === 0 ? {} : { artifacts: listed };
    },
    GetSignedArtifactURL: (body) => {
      const stored = find(body['name']);
      if (manners === '1.26' && stored.status !== 'confirmed') throw new Refusal(404, 'Error artifact not found');
      return { signedUrl: signed('DownloadArtifact', stored) };
    },
    DeleteArtifact: (body) => {
      const stored = find(body['name']);
      if (stored.status === 'confirmed') stored.status = 'deleted';
      return { ok: true, artifactId: String(stored.id) };
    },
  };
  const byId = (query: URLSearchParams): Stored => {
    const found = artifacts.find(({ id }) => String(id) === query.get('artifactID'));
    if (found === undefined) throw new Refusal(404, 'Error artifact not found');
    return found;
  };
  const upload = (query: URLSearchParams, bytes: Buffer): void => {
    const { id } = byId(query);
    if (query.get('comp') === 'block') blocks.set(blockKey(id, bytes.length, query.get('blockid') ?? ''), bytes);
    else
      blockLists.set(
        id,
        [...bytes.toString().matchAll(/<Latest>([^<]+)</g)].map(([, block = '']) => block),
      );
  };
  const download = (response: ServerResponse, { content }: Stored, range = ''): void => {
    service.ranges.push(range);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? [];
    if (manners === 'older' || from === undefined || to === undefined) {
      response.writeHead(200).end(content);
      return;
    }
    const part = content.subarray(Number(from), Number(to) + 1);
    const last = String(Number(from) + part.length - 1);
    response.writeHead(206, { 'content-range': `bytes ${from}-${last}/${String(content.length)}` }).end(part);
  };
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://gitea.invalid');
    const method = pathname.split('/').at(-1) ?? '';
    const answer = async (): Promise<void> => {
      const bytes = await buffer(request);
      const change = service.onAnswer(method);
      if (change === 'refused') throw new Refusal(400, 'Bad Request');
      if (method === 'DownloadArtifact') {
        download(response, byId(searchParams), request.headers.range);
        return;
      }
      if (method === 'UploadArtifact') upload(searchParams, bytes);
      const result: unknown = method === 'UploadArtifact' ? 'appended' : calls[method]?.(JSON.parse(bytes.toString()));
      if (change === 'lost') return void request.socket.destroy();
      response.writeHead(method === 'UploadArtifact' ? 201 : 200, { 'content-type': 'application/json;charset=utf-8' });
      response.end(change === 'unknown' ? '<html>' : JSON.stringify(result));
    };
    answer().catch((error: unknown) => {
      if (!(error instanceof Refusal)) return void response.destroy();
      response.writeHead(error.status, { 'content-type': 'text/plain' }).end(error.message);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `http://127.0.0.1:${String(typeof address === 'object' && address !== null ? address.port : 0)}`;
  return service;
}

function toText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
