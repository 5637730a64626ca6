import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers';
import { afterAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';

// Tests duplicates of slow requests with a clock that the test moves, so no test waits in real time.

let now = 0;
const pauses = new Set<() => void>();
jest.unstable_mockModule('node:timers/promises', () => ({
  setTimeout: (ms: number, value: unknown, { signal }: { readonly signal: AbortSignal }) =>
    new Promise((resolve, reject) => {
      const due = now + ms;
      const look = (): void => {
        if (now < due) return;
        pauses.delete(look);
        resolve(value);
      };
      const end = (): void => {
        pauses.delete(look);
        reject(new Error('aborted'));
      };
      pauses.add(look);
      signal.addEventListener('abort', end);
      if (signal.aborted) end();
    }),
}));
const clock = jest.spyOn(performance, 'now').mockImplementation(() => now);
const { PartFigures, parts } = await import('../../shared/artifacts/blob/slow-parts.ts');
const { httpClient } = await import('../../shared/http/client.ts');
const { uploadBlob } = await import('../../shared/artifacts/blob/blob-upload.ts');
const { rangedReader } = await import('../../shared/artifacts/blob/ranged-reader.ts');

beforeEach(() => {
  now = 0;
  pauses.clear();
});
afterAll(() => {
  clock.mockRestore();
});

/** Runs everything that doesn't wait for a clock. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function pass(ms: number): Promise<void> {
  for (const end = now + ms; now < end;) {
    now += 50;
    for (const look of [...pauses]) look();
    await settled();
  }
}

/** A part whose two requests end when the test ends them. */
class Part {
  readonly first = Promise.withResolvers<Buffer>();
  readonly again = Promise.withResolvers<Buffer>();
  readonly pause = Promise.withResolvers<undefined>();
  readonly signals: AbortSignal[] = [];
  readonly ask = (signal: AbortSignal): Promise<Buffer> => {
    this.signals.push(signal);
    return this.first.promise;
  };
  readonly askAgain = (signal: AbortSignal): Promise<Buffer> => {
    this.signals.push(signal);
    return this.again.promise;
  };

  get requests(): number {
    return this.signals.length;
  }
}

const bytes = (text: string): Buffer => Buffer.from(text);

const blockBytes = 4 * 1024 * 1024;
/** Returns whether a block is the first of its upload: an id ends with the block's number. */
const isFirstBlock = (id: string): boolean => Buffer.from(id, 'base64').toString().endsWith('000000');

/** Returns parts, some of which arrive immediately, so that a slow one can be recognised. */
async function afterSome(asksAgain: boolean, come = 4, figures = new PartFigures()) {
  const asking = parts({ adapts: asksAgain, figures });
  const open = (part: Part) => asking.request(part.ask, part.askAgain);
  const neighbours = Array.from({ length: come }, () => new Part());
  const asked = neighbours.map(open);
  await pass(100);
  for (const { first } of neighbours) first.resolve(bytes('neighbour'));
  await settled();
  return { asking, open, asked };
}

/** Serves a blob, with a client for it. */
async function serveBlob(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const url = `http://127.0.0.1:${String(typeof address === 'object' ? address?.port : '')}/blob`;
  const { signal } = new AbortController();
  const http = httpClient({ except: '' }, signal);
  const end = async (): Promise<void> => {
    await http.close();
    server.close().closeAllConnections();
  };
  return { url, http, signal, [Symbol.asyncDispose]: end };
}

describe('a part that takes far longer than its neighbours', () => {
  test('is requested again after a second, once, and not earlier', async () => {
    const { asking, open, asked } = await afterSome(true);
    const part = new Part();
    const arriving = asking.firstResponse(open(part), asked);
    await pass(1000);
    expect(part.requests).toBe(1);
    await pass(150);
    expect(part.requests).toBe(2);
    await pass(60_000);
    expect(part.requests).toBe(2);
    part.again.resolve(bytes('again'));
    expect((await arriving).toString()).toBe('again');
    expect(part.signals[0]?.aborted).toBe(true);
  });

  test('is in the figures of the step, with the success of its second request', async () => {
    const figures = new PartFigures();
    const { asking, open, asked } = await afterSome(true, 4, figures);
    expect(figures.describe()).toBeUndefined();
    const [helped, late] = [new Part(), new Part()];
    const first = asking.firstResponse(open(helped), asked);
    await pass(1200);
    helped.again.resolve(bytes('again'));
    await first;
    expect(figures.describe()).toMatch(
      /^Parts of transfers: 5, half within 0\.1 s, 99 % within 1\.\d s; asked twice: 1, 1 of them with success$/,
    );
    const second = asking.firstResponse(open(late), asked);
    await pass(5000);
    late.first.resolve(bytes('first'));
    await second;
    expect(figures.describe()).toContain('6, half within 0.1 s');
    expect(figures.describe()).toContain('asked twice: 2, 1 of them with success');
  });

  test('isn’t requested again when its neighbours are slow as well, because the connection is slow', async () => {
    const { asking, open } = await afterSome(true);
    const part = new Part();
    const asked = open(part);
    const arriving = asking.firstResponse(asked, [open(new Part()), open(new Part())]);
    await pass(60_000);
    expect(part.requests).toBe(1);
    part.first.resolve(bytes('first'));
    expect((await arriving).toString()).toBe('first');
  });

  test('is requested again when only one neighbour is slow as well: the last two parts can both have a slow connection', async () => {
    const { asking, open } = await afterSome(true);
    const [part, last] = [new Part(), new Part()];
    const asked = [part, last].map(open);
    const [first, second] = asked;
    if (first === undefined || second === undefined) throw new Error('no parts');
    const arriving = asking.firstResponse(first, [second]);
    await pass(1150);
    expect(part.requests).toBe(2);
    part.again.resolve(bytes('again'));
    expect((await arriving).toString()).toBe('again');
    const arrivingLast = asking.firstResponse(second, []);
    await pass(150);
    expect(last.requests).toBe(2);
    last.again.resolve(bytes('last'));
    expect((await arrivingLast).toString()).toBe('last');
  });

  test('is requested again while its next request after a failure takes too long, but not during the pause before that', async () => {
    const { asking, asked } = await afterSome(true);
    const part = new Part();
    const waiting = asking.request(
      async (signal, timed) => {
        await timed(() => Promise.reject(new Error('busy'))).catch(() => undefined);
        await part.pause.promise;
        await timed(() => part.ask(signal).then(() => undefined));
        return part.first.promise;
      },
      (signal) => part.askAgain(signal),
    );
    const arriving = asking.firstResponse(waiting, asked);
    await pass(10_000);
    expect(part.requests).toBe(0);
    part.pause.resolve(undefined);
    await pass(1150);
    expect(part.requests).toBe(2);
    part.again.resolve(bytes('again'));
    expect((await arriving).toString()).toBe('again');
    part.first.resolve(bytes('first'));
  });

  test('is never requested again if that is switched off', async () => {
    const { asking, open, asked } = await afterSome(false);
    const part = new Part();
    const arriving = asking.firstResponse(open(part), asked);
    await pass(60_000);
    expect(part.requests).toBe(1);
    part.first.resolve(bytes('first'));
    expect((await arriving).toString()).toBe('first');
  });
});

describe('the number of parts in flight', () => {
  const partBytes = 2 * 1024 * 1024;
  /** Requests eight parts that arrive after `ms` each. */
  async function after(ms: number, adapts = true): Promise<number> {
    const asking = parts({ adapts });
    const eight = Array.from({ length: 8 }, () => new Part());
    for (const part of eight) asking.request(part.ask, part.askAgain);
    await pass(ms);
    for (const { first } of eight) first.resolve(bytes('part'));
    await settled();
    return asking.inFlight(partBytes);
  }

  test.each([
    ['8 while nothing has arrived yet', 0, 8],
    ['8 when a connection has 40 MB/s', 50, 8],
    ['29 when each connection has 2 MB/s', 1000, 29],
    ['32 at most', 10_000, 32],
  ])('is %s', async (_, ms, expected) => {
    expect(ms === 0 ? parts({}).inFlight(partBytes) : await after(ms)).toBe(expected);
  });

  test('stays the same if that is switched off', async () => {
    expect(await after(10_000, false)).toBe(8);
  });

  /** Reads 64 parts; `msOf` is the time that a connection takes for a part. */
  async function readSlowly(msOf: (connection: number) => number) {
    const open = new Map<ServerResponse, number>();
    const connections: Socket[] = [];
    const served: number[] = [];
    let most = 0;
    await using blobs = await serveBlob(({ headers, socket }, response) => {
      const [, start = '', end = ''] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '') ?? [];
      const length = Number(end) - Number(start) + 1;
      const contentRange = `bytes ${start}-${end}/${String(size)}`;
      response.writeHead(206, { 'content-range': contentRange, 'content-length': length }).flushHeaders();
      if (!connections.includes(socket)) connections.push(socket);
      const connection = connections.indexOf(socket);
      open.set(response, now + msOf(connection));
      most = Math.max(most, open.size);
      response.on('close', () => (served[connection] = (served[connection] ?? 0) + 1));
    });
    const [smallBytes, size] = [16 * 1024, 64 * 16 * 1024];
    const { url, http, signal } = blobs;
    const sign = (): Promise<string> => Promise.resolve(url);
    const reader = rangedReader({
      http,
      host: 'GitHub',
      size,
      sign,
      partBytes: smallBytes,
      onRetry: () => undefined,
      signal,
    });
    let [read, hasEnded] = [0, false];
    const reading = (async () => {
      for await (const part of reader.lend(0, size)) read += part.length;
    })().finally(() => (hasEnded = true));
    while (!hasEnded) {
      await pass(100);
      for (const [response, due] of open)
        if (due <= now && open.delete(response)) response.end(Buffer.alloc(smallBytes));
      for (let turn = 0; turn < 20; turn += 1) await settled();
    }
    await reading;
    expect(read).toBe(size);
    return { most, served };
  }

  test('reaches the server: a reader of slow parts has more requests open than eight', async () => {
    const { most, served } = await readSlowly(() => 900);
    expect(most).toBeGreaterThan(8);
    expect(most).toBeLessThanOrEqual(32 + 3); // plus those that are requested again
    expect(served.reduce((all, parts) => all + parts)).toBeGreaterThanOrEqual(64);
  });

  test('if all connections are slow, one that takes far longer than the others has only one part (B.14)', async () => {
    const isSlower = (connection: number): boolean => connection % 3 === 2;
    const { served } = await readSlowly((connection) => (isSlower(connection) ? 3000 : 1000));
    expect(Math.max(...served.filter((_, connection) => !isSlower(connection)))).toBeGreaterThan(1);
    expect(Math.max(...served.filter((_, connection) => isSlower(connection)))).toBe(1);
  });
});

test('the two requests for one part read the same bytes into separate memory', async () => {
  const responses: ServerResponse[] = [];
  const ranges: unknown[] = [];
  await using blobs = await serveBlob(({ headers }, response) => {
    ranges.push(headers.range);
    response.writeHead(206, { 'content-range': 'bytes 100-199/1000', 'content-length': 100 }).flushHeaders();
    responses.push(response);
  });
  const { url, http, signal } = blobs;
  const lines: string[] = [];
  const sign = (): Promise<string> => Promise.resolve(url);
  const reader = rangedReader({ http, host: 'GitHub', size: 1000, sign, onRetry: (line) => lines.push(line), signal });
  const reading = reader.read(100, 200);
  while (responses.length < 1) await settled();
  responses[0]?.write('1'.repeat(10));
  while (responses.length < 2) await pass(100);
  responses[1]?.write('2'.repeat(50));
  for (let turn = 0; turn < 100; turn += 1) await settled();
  responses[0]?.end('1'.repeat(90));
  expect(String(await reading)).toBe('1'.repeat(100));
  expect(ranges).toEqual(['bytes=100-199', 'bytes=100-199']);
  expect(lines).toEqual([
    'Bytes 100-200 of the download take far longer than their neighbours: requesting them again.',
  ]);
});

test('a block of an upload is sent again on another connection, with the same id and bytes, and the slow request is ended (B.14)', async () => {
  const puts: { readonly id: string; readonly body: string; readonly port: number | undefined }[] = [];
  const slowRequest = Promise.withResolvers<undefined>();
  await using blobs = await serveBlob((request, response) => {
    const body = createHash('sha256');
    request.on('data', (chunk: Buffer) => body.update(chunk));
    request.on('end', () => {
      const { searchParams } = new URL(request.url ?? '', 'http://blobs');
      const id = searchParams.get('blockid') ?? 'list';
      const isFirst = isFirstBlock(id) && !puts.some((put) => put.id === id);
      puts.push({ id, body: body.digest('hex'), port: request.socket.remotePort });
      if (isFirst) request.socket.on('close', () => slowRequest.resolve(undefined));
      else response.writeHead(201).end();
    });
  });
  const { url, http, signal } = blobs;
  const lines: string[] = [];
  const blocks = Array.from({ length: 4 }, (_, position) => Buffer.alloc(blockBytes, position + 1));
  let arrived = 0;
  const target = { http, url, onRetry: (line: string) => lines.push(line), signal };
  const uploading = uploadBlob(target, Readable.from(blocks), () => (arrived += 1));
  while (arrived < 3) await settled();
  while (!puts.some(({ id }) => id === 'list')) await pass(100);
  expect((await uploading).size).toBe(4 * blockBytes);
  await slowRequest.promise;
  const [slow, again, ...more] = puts.filter(({ id }) => isFirstBlock(id));
  expect(again?.id).toBe(slow?.id);
  expect(more).toEqual([]);
  expect(again?.body).toBe(slow?.body);
  expect(again?.port).not.toBe(slow?.port);
  expect(lines).toEqual(['Bytes 0-4194304 of the upload take far longer than their neighbours: sending them again.']);
});

test.each([
  [20, 3],
  [40, 4],
])('after %d parts at most %d are requested again', async (come, most) => {
  const { asking, open, asked } = await afterSome(true, come);
  const slow = Array.from({ length: 8 }, () => new Part());
  for (const part of slow) void asking.firstResponse(open(part), asked);
  await pass(60_000);
  expect(slow.filter(({ requests }) => requests === 2)).toHaveLength(most);
});

test('property: the part has bytes unless both requests fail, and the request that loses is ended', () =>
  fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.boolean(), fc.boolean(), async (turns, firstFails, againFails) => {
      const { asking, open, asked } = await afterSome(true);
      const part = new Part();
      const arriving = asking.firstResponse(open(part), asked).then(String, (error: unknown) => String(error));
      await pass(1200);
      expect(part.requests).toBe(2);
      const ends: string[] = [];
      const end = async (way: 'first' | 'again', fails: boolean): Promise<void> => {
        await turns.schedule(Promise.resolve(), way);
        if (!fails) ends.push(way);
        if (fails) part[way].reject(new Error(`${way} failed`));
        else part[way].resolve(bytes(way));
        await settled();
      };
      await turns.waitFor(Promise.all([end('first', firstFails), end('again', againFails)]));
      const [winner] = ends;
      expect(await arriving).toBe(winner ?? 'Error: first failed');
      if (winner !== undefined && !firstFails && !againFails)
        expect(part.signals[winner === 'first' ? 1 : 0]?.aborted).toBe(true);
    }),
    { numRuns: 50 },
  ));
