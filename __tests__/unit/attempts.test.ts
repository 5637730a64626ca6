import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { uploadBlob } from '../../shared/artifacts/blob/blob-upload.ts';
import { rangedReader } from '../../shared/artifacts/blob/ranged-reader.ts';
import { resultsService } from '../../shared/artifacts/service/results-service.ts';
import { workflowRuns } from '../../shared/artifacts/service/workflow-runs.ts';
import { openBlob } from '../../shared/artifacts/blob/open-blob.ts';
import { copiedBytes } from '../../shared/bytes/chunks.ts';
import { tempDirs } from '../../shared/bytes/files.ts';
import { type Http, httpClient } from '../../shared/http/client.ts';
import { digestOf } from '../../shared/image/digest.ts';
import { registryClient, type RegistryClient } from '../../shared/registry/registry-client.ts';

// Counts the requests to a server that is always busy. The number depends only on the policy for the kind of request.

interface Given {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

let server: Server;
let origin: string;
let http: Http;
let busy: number;
/** The server's response to a request when it isn't busy. */
let answer: (request: IncomingMessage) => Given | undefined;
let seen: string[];
let lines: string[];
const { signal } = new AbortController();
const onRetry = (line: string): void => void lines.push(line);

beforeEach(async () => {
  [answer, seen, lines] = [() => undefined, [], []];
  server = createServer((request, response) => {
    request.resume().on('end', () => {
      const path = (request.url ?? '').replace(/sha256[:%].*|\?.*/, '');
      if (path !== '/v2/') seen.push(`${request.method ?? ''} ${path}`);
      const { status, headers, body = '' } = answer(request) ?? { status: busy, headers: { 'retry-after': '0' } };
      response.writeHead(status, headers).end(body);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === 'object' ? String(address?.port) : ''}`;
  http = httpClient({ except: '' }, signal);
});
afterEach(async () => {
  await http.close();
  server.close();
});

const counts = (): Readonly<Record<string, number>> =>
  Object.fromEntries([...new Set(seen)].map((one) => [one, seen.filter((other) => other === one).length]));
const failing = async (work: Promise<unknown>): Promise<Readonly<Record<string, number>>> => {
  await expect(work).rejects.toThrow();
  return counts();
};
async function* bytes(size: number): AsyncGenerator<Buffer> {
  yield await Promise.resolve(Buffer.alloc(size));
}

describe.each([503, 429])('a service that always responds with %i', (status) => {
  beforeEach(() => void (busy = status));

  test('a busy artifact service receives 5 attempts of a call', async () => {
    const credentials = { token: 't', origin, runBackendId: 'r', jobBackendId: 'j', isGitea: false };
    const service = resultsService(http, credentials, onRetry, signal);
    expect(Object.values(await failing(service.list()))).toEqual([5]);
    expect(lines).toHaveLength(4);
  });

  test('a busy REST API receives 5 attempts of a request', async () => {
    const runs = workflowRuns({ http, apiUrl: origin, repository: 'org/app', token: 't', onRetry, signal });
    const actions = 'GET /repos/org/app/actions';
    expect(await failing(runs.get(1))).toEqual({ [`${actions}/runs/1`]: 5 });
    expect(await failing(runs.signDownload(1))).toMatchObject({ [`${actions}/artifacts/1/zip`]: 5 });
  });

  test('a busy service receives 6 attempts for a block of an upload, and 6 attempts to finish the upload', async () => {
    const target = { http, url: `${origin}/blob?sig=x`, onRetry, signal };
    const upload = (): Promise<unknown> => uploadBlob(target, bytes(10), () => undefined);
    expect(await failing(upload())).toEqual({ 'PUT /blob': 6 });
    seen = [];
    answer = ({ url }) => (url?.includes('comp=block&') === true ? { status: 201 } : undefined);
    expect(await failing(upload())).toEqual({ 'PUT /blob': 7 });
  });

  const sign = (): Promise<string> => Promise.resolve(`${origin}/blob`);
  const readerOptions = () => ({ http, host: 'GitHub' as const, size: 10, sign, onRetry, signal });

  test('a busy service receives 6 attempts for a part of a download', async () => {
    expect(await failing(rangedReader(readerOptions()).read(0, 10))).toEqual({ 'GET /blob': 6 });
  });

  test('a busy service receives 5 attempts for a signed URL, and the parts of the download do not request it again', async () => {
    const credentials = { token: 't', origin, runBackendId: 'r', jobBackendId: 'j', isGitea: false };
    const service = resultsService(http, credentials, onRetry, signal);
    const listed = { id: 1, name: 'a', size: 1, runBackendId: 'r', jobBackendId: 'j' };
    const sign = (): Promise<string> => service.signDownload(listed);
    const reader = rangedReader({ ...readerOptions(), size: 50_000_000, sign });
    expect(Object.values(await failing(copiedBytes(reader.stream(0, reader.size))))).toEqual([5]);
  });

  test('a busy service receives 6 attempts for a whole blob, after one attempt for a part', async () => {
    const root = mkdtempSync(join(tmpdir(), 'attempts-'));
    await using folders = tempDirs(root);
    answer = ({ headers }) => (headers.range === undefined ? undefined : { status: 200, body: 'whole' });
    const progress = <T>(_verb: string, _size: unknown, work: (onBytes: (count: number) => void) => Promise<T>) =>
      work(() => undefined);
    const log = { info: onRetry, progress };
    const opening = openBlob({ ...readerOptions(), artifact: { id: 1, name: 'a', size: 10 }, folders, log });
    expect(await failing(opening)).toEqual({ 'GET /blob': 7 });
    rmSync(root, { recursive: true });
  });

  describe('acting as a registry', () => {
    let client: RegistryClient;
    let repository: string;
    beforeEach(() => {
      const host = new URL(origin).host;
      repository = `${host}/app`;
      client = registryClient(host, {
        ...{ credentials: undefined, proxies: { except: '' }, authority: undefined },
        ...{ onRetry, maskSecret: () => undefined, signal },
      });
    });
    afterEach(async () => {
      await client[Symbol.asyncDispose]();
    });
    const digest = digestOf(Buffer.alloc(10));
    const push = (anyway = false): Promise<unknown> =>
      client.pushBlob(
        repository,
        { digest, size: 10, open: () => bytes(10) },
        { mountFrom: [], anyway, onBytes: () => undefined, signal },
      );
    const [blob, uploads] = ['/v2/app/blobs/', '/v2/app/blobs/uploads/'];
    const begun = { status: 202, headers: { location: '/upload' } };

    test('a busy registry receives 5 attempts to check for a manifest', async () => {
      expect(await failing(client.manifestDigest(repository, '1'))).toEqual({ 'HEAD /v2/app/manifests/1': 5 });
    });

    test('a busy registry receives 5 attempts to upload a manifest, followed by one check whether the manifest exists', async () => {
      const manifest = { digest, mediaType: 'text/plain', bytes: Buffer.alloc(10) };
      expect(await failing(client.pushManifest(repository, manifest, '1'))).toEqual({
        'PUT /v2/app/manifests/1': 5,
        'GET /v2/app/manifests/1': 1,
      });
    });

    test('a busy registry receives 5 attempts to check for a blob', async () => {
      expect(await failing(push())).toEqual({ [`HEAD ${blob}`]: 5 });
    });

    test('a busy registry receives 6 attempts to start an upload', async () => {
      expect(await failing(push(true))).toEqual({ [`POST ${uploads}`]: 6 });
    });

    test('a busy registry receives 6 attempts to upload a blob, and 3 attempts to end each unfinished upload', async () => {
      answer = ({ method }) => (method === 'POST' ? begun : undefined);
      expect(await failing(push(true))).toEqual({ [`POST ${uploads}`]: 6, 'PUT /upload': 6, 'DELETE /upload': 18 });
    });

    test('a busy registry receives one check for the blob per attempt when it reports that no upload is needed', async () => {
      answer = ({ method }) => (method === 'POST' ? { status: 201 } : undefined);
      expect(await failing(push(true))).toEqual({ [`POST ${uploads}`]: 6, [`HEAD ${blob}`]: 6 });
    });

    test('a busy registry receives as many token requests as attempts of the request that needs the token', async () => {
      const challenge = { 'www-authenticate': `Bearer realm="${origin}/token"` };
      answer = ({ url }) => (url?.startsWith('/v2/') === true ? { status: 401, headers: challenge } : undefined);
      expect(await failing(push())).toEqual({ [`HEAD ${blob}`]: 5, 'GET /token': 5 });
    });
  });
});
