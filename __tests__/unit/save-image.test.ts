import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type DockerCli, dockerCli } from '../../shared/docker/cli.ts';
import { dockerEngine } from '../../shared/docker/engine.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';
import { tarHeader } from '../../shared/tar/header.ts';

const directory = mkdtempSync(join(tmpdir(), 'save-'));
const socketPath = join(directory, 'docker.sock');
const pathBefore = process.env['PATH'] ?? '';
let abort: AbortController;
let cli: DockerCli;
let server: Server | undefined;
beforeEach(() => {
  abort = new AbortController();
  cli = dockerCli(abort.signal);
});
afterEach(async () => {
  process.env['PATH'] = pathBefore;
  if (server !== undefined) await once(server.close(), 'close');
  server = undefined;
});
afterAll(() => rmSync(directory, { recursive: true }));

/** Puts a program called docker in front of all others; its engine listens at `host`. */
function fakeDocker(save: string, host = `unix://${socketPath}`): void {
  writeFileSync(join(directory, 'docker'), `#!/bin/sh\n[ "$1" = context ] && { echo '${host}'; exit; }\n${save}\n`);
  chmodSync(join(directory, 'docker'), 0o755);
  process.env['PATH'] = `${directory}${delimiter}${pathBefore}`;
}

/** An engine's socket; `answer` is told of each request. */
async function fakeEngine(answer: (socket: Socket, request: string) => void): Promise<void> {
  server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      answer(socket, bytes.toString());
    });
  });
  await once(server.listen(socketPath), 'listening');
}

const ok = 'HTTP/1.0 200 OK\r\nContent-Type: application/x-tar\r\n\r\n';
const commandNotWanted = 'echo "the command was asked" >&2; exit 9';
const save = (): AsyncIterable<Buffer> => dockerEngine(cli).save('charon:local');

async function digestOf(chunks: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) {
    hash.update(chunk);
    // Time for more to come, which must not get into this chunk.
    if (chunk.length % 7 === 0) await sleep(1);
  }
  return hash.digest('hex');
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('an image is saved', () => {
  const bytes = Buffer.alloc(5_000_001, 'not all the same ');
  bytes.writeUInt32LE(123456, 2_000_000);

  test.each([
    ['head and first bytes at once', [0]],
    ['the head in pieces', [3, 30, ok.length - 2, ok.length, ok.length + 1]],
    ['pieces of many sizes', Array.from({ length: 70 }, (_, at) => (at + 1) * 70_001)],
  ])('by the engine itself, byte by byte: %s', async (_, cuts) => {
    const requests: string[] = [];
    await fakeEngine((socket, request) => {
      requests.push(request);
      const answer = Buffer.concat([Buffer.from(ok), bytes]);
      void (async () => {
        for (const [at, cut] of cuts.entries()) {
          socket.write(answer.subarray(at === 0 ? 0 : (cuts[at - 1] ?? 0), cut));
          await sleep(1);
        }
        socket.end(answer.subarray(cuts.at(-1)));
      })();
    });
    fakeDocker(commandNotWanted);
    expect(await digestOf(save())).toBe(sha256(bytes));
    expect(requests).toEqual(['GET /images/get?names=charon%3Alocal HTTP/1.0\r\nHost: docker\r\n\r\n']);
  });

  test('into the same memory again and again', async () => {
    await fakeEngine((socket) => socket.end(Buffer.concat([Buffer.from(ok), Buffer.alloc(3_000_000)])));
    fakeDocker(commandNotWanted);
    const memory = new Set<ArrayBufferLike>();
    let count = 0;
    for await (const chunk of save()) {
      memory.add(chunk.buffer);
      count += chunk.length;
    }
    // The head's memory is another.
    expect([memory.size, count]).toEqual([2, 3_000_000]);
  });

  test.each([
    ['no such image', 'HTTP/1.0 404 Not Found\r\n\r\n{"message":"No such image"}'],
    [
      'an answer in chunks, from something in between',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n',
    ],
    ['something else', 'SSH-2.0-OpenSSH\r\n\r\n'],
    ['half a head', 'HTTP/1.0 200 OK\r\nContent-'],
    ['a head without an end', `HTTP/1.0 200 OK\r\n${'x'.repeat(100_000)}`],
    ['nothing', ''],
  ])('by the command where the engine answers with %s', async (_, answer) => {
    const closed: Promise<unknown>[] = [];
    await fakeEngine((socket) => {
      closed.push(once(socket, 'close'));
      if (answer.length > 90_000) socket.write(answer);
      else socket.end(answer);
    });
    writeFileSync(join(directory, 'bytes'), bytes);
    fakeDocker(`cat ${join(directory, 'bytes')}`);
    expect(await digestOf(save())).toBe(sha256(bytes));
    await Promise.all(closed);
    expect(closed).toHaveLength(1);
  });

  test.each([
    ['TCP', 'tcp://127.0.0.1:2375'],
    ['SSH', 'ssh://build'],
    ['a socket where nobody listens', 'unix:///nowhere/docker.sock'],
    ['nothing known', ''],
  ])('by the command where the engine is reached by %s', async (_, host) => {
    fakeDocker('head -c 3000 /dev/zero', host);
    expect(await digestOf(save())).toBe(sha256(Buffer.alloc(3000)));
  });
});

describe('what goes wrong while an image is saved', () => {
  test.each([
    ['nothing at all', 'echo "No such image" >&2; exit 1'],
    ['half of it', 'head -c 300000 /dev/zero; echo "No such image" >&2; exit 1'],
  ])('%s from the command, and a failure: the failure counts', async (_, script) => {
    fakeDocker(script, 'tcp://127.0.0.1:2375');
    await expect(digestOf(save())).rejects.toMatchObject({
      code: 'image-not-found',
      message: 'docker save charon:local failed with exit code 1: No such image',
    });
  });

  test('an engine that goes away between two entries is noticed', async () => {
    await fakeEngine((socket) => socket.end(Buffer.concat([Buffer.from(ok), tarHeader('index.json', 0)])));
    fakeDocker(commandNotWanted);
    const layout = join(directory, 'layout');
    await expect(writeOciLayout(save(), layout, { format: 'zstd', level: undefined })).rejects.toMatchObject({
      code: 'tarball-invalid',
      message: 'The tarball is not a whole tar archive: its end is missing.',
    });
  });

  test('an engine that goes away in the middle of an entry is noticed', async () => {
    await fakeEngine((socket) => {
      socket.write(Buffer.concat([Buffer.from(ok), tarHeader('blobs/sha256/x', 400_000), Buffer.alloc(300_000)]));
      setTimeout(() => socket.destroy(), 50);
    });
    fakeDocker(commandNotWanted);
    // A Unix socket doesn't tell this from an end: the tar isn't whole.
    await expect(
      writeOciLayout(save(), join(directory, 'lost'), { format: 'zstd', level: undefined }),
    ).rejects.toMatchObject({ code: 'tarball-invalid' });
  });

  test('no more is read than is asked for, and the engine is left when nobody wants more', async () => {
    const state = { written: 0, closed: false };
    await fakeEngine((socket) => {
      socket.on('close', () => (state.closed = true));
      socket.write(ok);
      const more = (): void => {
        while (!socket.destroyed && socket.write(Buffer.alloc(100_000), () => (state.written += 100_000)));
        socket.once('drain', more);
      };
      more();
    });
    fakeDocker(commandNotWanted);
    for await (const chunk of save()) {
      await sleep(200);
      expect(chunk.length).toBeGreaterThan(0);
      expect(state.written).toBeLessThan(5_000_000);
      break;
    }
    await sleep(50);
    expect(state.closed).toBe(true);
  });

  test('no more is read from the command than is asked for, and it is ended when nobody wants more', async () => {
    const ended = join(directory, 'ended');
    // Touched only when all has been taken: head dies with its reader.
    fakeDocker(`head -c 20000000 /dev/zero && touch ${ended}`, '');
    for await (const chunk of save()) {
      await sleep(200);
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(existsSync(ended)).toBe(false);
  });

  test.each([
    ['before the answer', ''],
    ['in the middle', ok],
  ])('a cancelled job leaves the engine %s, and the command isn’t asked', async (_, answer) => {
    const asked = join(directory, 'asked');
    const closed = Promise.withResolvers<undefined>();
    await fakeEngine((socket) => {
      socket.on('close', () => {
        closed.resolve(undefined);
      });
      socket.write(`${answer} `);
      setTimeout(() => {
        abort.abort();
      }, 50);
    });
    fakeDocker(`touch ${asked}`);
    await expect(digestOf(save())).rejects.toThrow('abort');
    await closed.promise;
    expect(existsSync(asked)).toBe(false);
  });

  test('a job that is cancelled before the engine is asked asks neither', async () => {
    const asked = join(directory, 'asked');
    await fakeEngine((socket) => socket.end(`${ok}the image`));
    // Cancelled while the command tells where the engine is.
    fakeDocker('');
    writeFileSync(
      join(directory, 'docker'),
      `#!/bin/sh\n[ "$1" = context ] && { sleep 0.3; echo 'unix://${socketPath}'; exit; }\ntouch ${asked}\n`,
    );
    setTimeout(() => {
      abort.abort();
    }, 100);
    await expect(digestOf(save())).rejects.toThrow('abort');
    expect(existsSync(asked)).toBe(false);
  });

  test('a cancelled job ends the command', async () => {
    fakeDocker('head -c 1000 /dev/zero; exec sleep 60', '');
    setTimeout(() => {
      abort.abort();
    }, 100);
    await expect(digestOf(save())).rejects.toMatchObject({ code: 'image-not-found' });
  });

  test('without docker the error says so', async () => {
    const empty = join(directory, 'empty');
    mkdirSync(empty);
    process.env['PATH'] = empty;
    await expect(digestOf(save())).rejects.toMatchObject({ code: 'docker-unavailable' });
  });
});
