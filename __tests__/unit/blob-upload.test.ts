import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { uploadBlob } from '../../shared/artifacts/blob/blob-upload.ts';
import { type Http, httpClient } from '../../shared/http/client.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';

const blockBytes = 4 * 1024 * 1024;

interface Put {
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

let server: Server;
let http: Http;
let url: string;
let puts: Put[];
/** Responds to a request; `created` unless a test sets another function. */
let answer: (response: ServerResponse, put: Put) => void;
let retries: string[];
let arrived: number[];
const stop = new AbortController();

const created = (response: ServerResponse): void => void response.writeHead(201).end();

beforeEach(async () => {
  puts = [];
  retries = [];
  arrived = [];
  answer = created;
  server = createServer((request, response) => {
    const body: Buffer[] = [];
    request.on('data', (chunk: Buffer) => body.push(chunk));
    request.on('end', () => {
      const put = {
        query: new URL(request.url ?? '', 'http://blobs').searchParams,
        headers: request.headers,
        body: Buffer.concat(body),
      };
      puts.push(put);
      answer(response, put);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `http://127.0.0.1:${String(typeof address === 'object' ? address?.port : '')}/container/blob?sig=a%2Bb`;
  http = httpClient({ except: '' }, stop.signal);
});
afterEach(async () => {
  await http.close();
  server.close();
});

const upload = (chunks: AsyncIterable<Buffer>, adapts = true): ReturnType<typeof uploadBlob> => {
  const target = { http, url, onRetry: (line: string) => void retries.push(line), signal: stop.signal, adapts };
  return uploadBlob(target, chunks, (bytes) => void arrived.push(bytes));
};
const blocks = (): readonly Put[] => puts.filter(({ query }) => query.get('comp') === 'block');
const lists = (): readonly Put[] => puts.filter(({ query }) => query.get('comp') === 'blocklist');
const busy = (response: ServerResponse): void => void response.writeHead(503, { 'retry-after': '0' }).end();

describe('an upload in blocks', () => {
  test('an upload sends all bytes in blocks of 4 MiB for any chunk size, and returns digest and size (S0.2)', async () => {
    const bytes = randomBytes(2 * blockBytes + 12_345);
    const blob = await upload(inReusedMemory(bytes, 300_001));
    expect(blob).toEqual({ size: bytes.length, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` });
    const [list, ...others] = lists();
    expect(others).toEqual([]);
    expect(puts.at(-1)).toBe(list);
    expect(list?.headers).toMatchObject({
      'content-type': 'application/xml',
      'x-ms-blob-content-type': 'application/zip',
      'x-ms-version': '2024-11-04',
    });
    const listed = /^<\?xml version="1.0" encoding="utf-8"\?><BlockList>(.*)<\/BlockList>$/.exec(
      list?.body.toString() ?? '',
    );
    const ids = [...(listed?.[1] ?? '').matchAll(/<Latest>([^<]+)<\/Latest>/g)].map(([, id]) => id);
    expect(new Set(ids.map((id) => id?.length)).size).toBe(1);
    const stored = new Map(blocks().map(({ query, body }) => [query.get('blockid'), body]));
    expect(ids.map((id) => stored.get(id ?? '')?.length)).toEqual([blockBytes, blockBytes, 12_345]);
    expect(Buffer.concat(ids.map((id) => stored.get(id ?? '') ?? Buffer.alloc(0))).equals(bytes)).toBe(true);
    expect(arrived.toSorted((a, b) => a - b)).toEqual([12_345, blockBytes, blockBytes]);
    expect(puts.every(({ query }) => query.get('sig') === 'a+b')).toBe(true);
    expect(puts.every(({ headers }) => headers['x-ms-version'] === '2024-11-04')).toBe(true);
    expect(retries).toEqual([]);
  });

  test('no two uploads share a block ID: Forgejo and older Gitea versions store the blocks of a run together (B.15)', async () => {
    for (let uploads = 0; uploads < 3; uploads += 1)
      await upload(inReusedMemory(randomBytes(blockBytes + 1), blockBytes));
    expect(new Set(blocks().map(({ query }) => query.get('blockid'))).size).toBe(6);
  });

  test('an upload sends no empty block, neither after full blocks nor for an empty input', async () => {
    await upload(inReusedMemory(randomBytes(blockBytes), blockBytes));
    expect(blocks()).toHaveLength(1);
    puts = [];
    expect((await upload(inReusedMemory(Buffer.alloc(0), 1))).size).toBe(0);
    expect(puts.map(({ query, body }) => [query.get('comp'), body.toString()])).toEqual([
      ['blocklist', '<?xml version="1.0" encoding="utf-8"?><BlockList></BlockList>'],
    ]);
  });

  test('an upload keeps at most eight blocks in flight', async () => {
    const held: ServerResponse[] = [];
    const answered = { blocks: 0 };
    const one = (response: ServerResponse): void => {
      answered.blocks += 1;
      created(response);
    };
    answer = (response, { query }) => {
      if (query.get('comp') !== 'block') {
        created(response);
        return;
      }
      held.push(response);
      // Responds to one block while eight are waiting, and to all of them at the end.
      if (held.length === 8) held.splice(0, 1).forEach(one);
      if (blocks().length === 10) held.splice(0).forEach(one);
    };
    const unanswered: number[] = [];
    const chunks = async function* (): AsyncGenerator<Buffer> {
      for (let made = 0; made < 10; made += 1) {
        unanswered.push(made - answered.blocks);
        yield await Promise.resolve(Buffer.alloc(blockBytes));
      }
    };
    // On a busy machine, a block may take so long that it is sent again.
    await upload(chunks(), false);
    expect(Math.max(...unanswered)).toBe(7);
    expect(blocks()).toHaveLength(10);
  });

  test('an upload sends a block again after HTTP 503, with one log line that names its bytes', async () => {
    const refused = new Set<string>();
    answer = (response, { query }) => {
      const id = query.get('blockid') ?? 'list';
      const isFirst = !refused.has(id);
      refused.add(id);
      (isFirst ? busy : created)(response);
    };
    const bytes = randomBytes(blockBytes + 5);
    await upload(inReusedMemory(bytes, blockBytes));
    expect(retries.toSorted()).toEqual([
      'Bytes 0-4194304 of the upload: HTTP 503; attempt 1 of 6, the next at once.',
      'Bytes 4194304-4194309 of the upload: HTTP 503; attempt 1 of 6, the next at once.',
      'The end of the upload: HTTP 503; attempt 1 of 6, the next at once.',
    ]);
    expect(arrived.toSorted((a, b) => a - b)).toEqual([5, blockBytes]);
  });

  test('an upload commits nothing after a refused block, and reads no further chunks', async () => {
    const held: ServerResponse[] = [];
    answer = (response, { query }) => {
      const id = Buffer.from(query.get('blockid') ?? '', 'base64').toString();
      if (id.endsWith('000001')) response.writeHead(403).end();
      else held.push(response);
    };
    let made = 0;
    const chunks = async function* (): AsyncGenerator<Buffer> {
      try {
        for (; made < 40; made += 1) yield await Promise.resolve(Buffer.alloc(blockBytes));
      } finally {
        // The upload reads no further chunks. Only now does the server respond to the other blocks.
        answer = created;
        held.forEach(created);
      }
    };
    await expect(upload(chunks())).rejects.toMatchObject({ name: 'HttpError', status: 403 });
    expect(lists()).toEqual([]);
    expect(made).toBeLessThan(10);
  });

  test('an upload rejects with the error of its chunks, and commits nothing', async () => {
    const chunks = async function* (): AsyncGenerator<Buffer> {
      yield await Promise.resolve(Buffer.alloc(blockBytes));
      throw new RangeError('the build failed');
    };
    await expect(upload(chunks())).rejects.toThrow(new RangeError('the build failed'));
    expect(lists()).toEqual([]);
  });
});
