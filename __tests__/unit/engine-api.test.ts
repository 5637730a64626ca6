import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { makeCertificate } from '../fakes/artifact-service/tls.ts';
import { inReusedMemory } from '../fixtures/reused-memory.ts';
import { containerEngine } from '../../shared/docker/container-engine.ts';
import type { Engine } from '../../shared/docker/engine.ts';

let folder: string;
let servers: { close(): unknown }[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'engine-api-'));
  servers = [];
});
afterEach(() => {
  for (const server of servers) server.close();
  rmSync(folder, { recursive: true });
});

const socketPath = (): string => join(folder, 'docker.sock');

/** Starts a fake engine at a socket. */
async function engineAt(listener: RequestListener, version = '1.51'): Promise<readonly string[]> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
    response.setHeader('Api-Version', version);
    if (request.url === '/_ping') response.end('OK');
    else listener(request, response);
  });
  servers.push({ close: () => (server.closeAllConnections(), server.close()) });
  await once(server.listen(socketPath()), 'listening');
  return asked;
}

/** Returns the engine at the socket, or at the address in these variables of docker. */
function engine(
  variables: Readonly<Record<string, string>> = {},
  signal = new AbortController().signal,
): Promise<Engine> {
  const dockerVariables = { DOCKER_HOST: `unix://${socketPath()}`, ...variables };
  const settings = { dockerConfigFolder: folder, dockerVariables, proxies: { except: '' }, tempRoot: folder };
  return containerEngine('docker', settings, signal);
}

/** Runs a test in which time-outs end only when the test moves the clock. */
async function withStoppedClock(work: () => Promise<void>): Promise<void> {
  jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate', 'performance', 'Date'] });
  try {
    await work();
  } finally {
    jest.useRealTimers();
  }
}

const json =
  (status: number, body: unknown): RequestListener =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };

describe('a request to the engine', () => {
  test.each([
    ['1.44', undefined, '1.44'],
    ['1.60', undefined, '1.51'],
    ['1.60', '1.43', '1.43'],
  ])(
    'a request to an engine that serves %s with DOCKER_API_VERSION %s uses version %s',
    async (served, apiVersion, used) => {
      const asked = await engineAt(json(200, []), served);
      const { images } = await engine(apiVersion === undefined ? {} : { DOCKER_API_VERSION: apiVersion });
      await images();
      await images();
      const question = `GET /v${used}/images/json?all=1&digests=1`;
      expect(asked).toEqual([...(apiVersion === undefined ? ['GET /_ping'] : []), question, question]);
    },
  );

  test('a request has the registry, port and digest of a name in its path, and the headers of the configuration', async () => {
    let headers: IncomingMessage['headers'] = {};
    const asked = await engineAt((request, response) => {
      ({ headers } = request);
      json(200, { Id: 'sha256:1' })(request, response);
    });
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ HttpHeaders: { 'X-Team': 'a' } }));
    const { inspect, tag, untag } = await engine();
    await inspect(`ghcr.io:5000/a/b@sha256:${'d'.repeat(64)}`);
    await tag('a:1', 'localhost:5000/b:2');
    await untag('localhost:5000/b:2');
    expect(asked.slice(1)).toEqual([
      `GET /v1.51/images/ghcr.io%3A5000/a/b%40sha256%3A${'d'.repeat(64)}/json?manifests=1`,
      'POST /v1.51/images/a%3A1/tag?repo=localhost%3A5000%2Fb&tag=2',
      'DELETE /v1.51/images/localhost%3A5000/b%3A2',
    ]);
    expect(headers).toMatchObject({ 'x-team': 'a', host: 'docker' });
  });

  test.each([
    ['the right certificate authority', true, true],
    ['another certificate authority', false, true],
    ['no certificate check', false, false],
  ])('a request can use TLS, with %s', async (_, knows, verify) => {
    const { key, cert } = makeCertificate(folder);
    const listener: RequestListener = (request, response) => {
      response.setHeader('Api-Version', '1.51');
      json(200, [])(request, response);
    };
    const server = createTlsServer({ key, cert }, listener);
    servers.push(server);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    makeCertificate(folder);
    const ca = knows ? cert.toString() : readFileSync(join(folder, 'cert.pem'), 'utf8');
    const certificates = mkdtempSync(join(folder, 'certificates-'));
    writeFileSync(join(certificates, 'ca.pem'), ca);
    const { images } = await engine({
      DOCKER_HOST: `tcp://127.0.0.1:${String(port)}`,
      DOCKER_CERT_PATH: certificates,
      [verify ? 'DOCKER_TLS_VERIFY' : 'DOCKER_TLS']: '1',
    });
    const list = images();
    if (knows || !verify) expect(await list).toEqual([]);
    else await expect(list).rejects.toMatchObject({ code: 'docker-unavailable' });
  });
});

describe('an engine that can’t be reached', () => {
  test('the error for an engine without a socket names the missing socket', async () => {
    await expect((await engine()).images()).rejects.toMatchObject({
      code: 'docker-unavailable',
      message: `No Docker engine answers at unix://${socketPath()}: there is no such socket.`,
      hint: expect.stringContaining('DOCKER_HOST'),
    });
  });

  test('the error for a socket without a listener shows that nothing listens', async () => {
    // A killed process leaves the file behind.
    writeFileSync(socketPath(), '');
    await expect((await engine()).images()).rejects.toMatchObject({
      code: 'docker-unavailable',
      message: expect.stringContaining('nothing listens there'),
    });
  });

  test('the error for a socket that this user may not open explains this and how to get access', async () => {
    await engineAt(json(200, []));
    chmodSync(socketPath(), 0o600);
    chmodSync(folder, 0o755);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65_534);
    else chmodSync(socketPath(), 0);
    try {
      await expect((await engine()).images()).rejects.toMatchObject({
        code: 'docker-unavailable',
        message: expect.stringContaining('this user has no permission for the socket'),
        hint: expect.stringMatching(/group .*rootless engine/s),
      });
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  test('the error for a server that is not an engine shows its response', async () => {
    const server: Server = createServer((_, response) => void response.writeHead(404).end());
    servers.push(server);
    await once(server.listen(socketPath()), 'listening');
    await expect((await engine()).images()).rejects.toMatchObject({
      code: 'docker-unavailable',
      message: expect.stringContaining('HTTP 404, which is not an engine’s answer'),
    });
  });

  test('the error for an engine that closes the connection in the middle of its response shows that', async () => {
    await engineAt((_, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('[{"Id":');
      setTimeout(() => response.destroy(), 20);
    });
    await expect((await engine()).images()).rejects.toMatchObject({
      code: 'image-missing',
      message: expect.stringMatching(/^docker image ls failed: the answer broke off/),
    });
  });

  test('the error for a refused request contains the message of the engine', async () => {
    await engineAt(json(500, { message: 'the daemon\nis out of luck' }));
    await expect((await engine()).tag('a:1', 'b:1')).rejects.toMatchObject({
      code: 'load-failed',
      message: 'docker image tag a:1 b:1 failed: the daemon is out of luck',
    });
  });

  test.each([
    [404, 'No such image: a:1', undefined],
    [404, 'content digest sha256:1: not found', 'image-missing'],
    [500, 'No such luck', 'image-missing'],
  ])('a response with HTTP %i "%s" for an image has the error code %s', async (status, message, code) => {
    await engineAt(json(status, { message }));
    const found = (await engine()).inspect('a:1');
    if (code === undefined) expect(await found).toBeUndefined();
    else await expect(found).rejects.toMatchObject({ code });
  });
});

describe('an engine that hangs', () => {
  test('a cancelled request to a hanging engine ends after a second with its reason, and a clean-up request has its own timeout', async () => {
    await engineAt(() => undefined);
    const cancel = new AbortController();
    const asked = await engine({}, cancel.signal);
    const reason = new Error('cancelled');
    const question = asked.images();
    await sleep(100);
    cancel.abort(reason);
    await expect(question).rejects.toBe(reason);
    await expect(asked.images()).rejects.toBe(reason);
    await expect(asked.forCleanUp.images()).rejects.toMatchObject({
      code: 'docker-unavailable',
      message: 'docker gave no answer within 5.5 s.',
    });
  }, 20_000);

  test('a cancelled request completes when the engine responds again within the grace period', async () => {
    const asked = Promise.withResolvers<() => void>();
    await engineAt((request, response) => {
      asked.resolve(() => {
        json(200, [])(request, response);
      });
    });
    await withStoppedClock(async () => {
      const cancel = new AbortController();
      const question = (await engine({}, cancel.signal)).images();
      const respond = await asked.promise;
      cancel.abort(new Error('cancelled'));
      respond();
      expect(await question).toEqual([]);
    });
  });

  test('a running load ends immediately when it is cancelled, even if the engine hangs', async () => {
    let broken = false;
    await engineAt((request) => {
      request.on('error', () => void (broken = true)).resume();
    });
    const cancel = new AbortController();
    const reason = new Error('cancelled');
    const chunks = async function* (): AsyncGenerator<Buffer> {
      yield Buffer.alloc(100_000);
      cancel.abort(reason);
      await sleep(50);
      yield Buffer.alloc(100_000);
    };
    await expect((await engine({}, cancel.signal)).load(chunks())).rejects.toBe(reason);
    await sleep(50);
    expect(broken).toBe(true);
  });
});

describe('a load', () => {
  const load = async (chunks: AsyncIterable<Buffer>): Promise<unknown> => (await engine()).load(chunks);
  const answer =
    (...messages: readonly object[]): RequestListener =>
    (request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200);
        for (const message of messages) response.write(`${JSON.stringify(message)}\r\n`);
        response.end();
      });
    };
  const one = async function* (): AsyncGenerator<Buffer> {
    await Promise.resolve();
    yield Buffer.from('a tarball');
  };

  test.each([1000, 70_000, 300_000])(
    'a load in chunks of %i bytes with reused memory arrives unchanged at an engine that reads slowly',
    async (size) => {
      let received: Buffer | undefined;
      await engineAt((request, response) => {
        void (async () => {
          const parts: Buffer[] = [];
          for await (const part of request) {
            parts.push(part);
            if (parts.length % 20 === 0) await sleep(1);
          }
          received = Buffer.concat(parts);
          response.end(JSON.stringify({ stream: 'Loaded image: a:1\n' }));
        })();
      });
      const bytes = randomBytes(3_000_001);
      expect(await load(inReusedMemory(bytes, size))).toEqual(['a:1']);
      expect(received?.equals(bytes)).toBe(true);
    },
  );

  test('a load that fails after some images throws the error of the engine', async () => {
    await engineAt(
      answer(
        { status: 'Loading layer', progressDetail: { current: 1 } },
        { stream: 'Loaded image: a:1\n' },
        { errorDetail: { message: 'max depth exceeded' }, error: 'max depth exceeded' },
      ),
    );
    await expect(load(one())).rejects.toMatchObject({
      code: 'load-failed',
      message: 'docker load failed: max depth exceeded',
      hint: expect.stringContaining('125 layers'),
    });
  });

  test('a load with a failed unpack is a failure, although the engine only prints it', async () => {
    await engineAt(
      answer({ stream: 'Loaded image: a:1\n' }, { stream: 'Error unpacking image a:1: no space left on device\n' }),
    );
    await expect(load(one())).rejects.toMatchObject({
      code: 'load-failed',
      message: 'docker load failed: Error unpacking image a:1: no space left on device',
    });
  });

  test('a load that the engine refuses early throws the error of the engine, and sends no more bytes', async () => {
    await engineAt((request, response) => {
      request.once('data', () => {
        request.pause();
        json(500, { message: 'no space left on device' })(request, response);
      });
    });
    let asked = 0;
    const endless = async function* (): AsyncGenerator<Buffer> {
      for (; asked < 10_000; asked += 1) {
        await Promise.resolve();
        yield Buffer.alloc(100_000);
      }
    };
    await expect(load(endless())).rejects.toMatchObject({ message: 'docker load failed: no space left on device' });
    expect(asked).toBeLessThan(10_000);
  });

  test('a load rethrows an error of the tarball, and the engine can’t mistake the received part for the whole', async () => {
    const ended: string[] = [];
    await engineAt((request) => {
      request.resume().on('end', () => ended.push('whole'));
      request.on('error', () => ended.push('cut'));
    });
    const broken = async function* (): AsyncGenerator<Buffer> {
      yield Buffer.alloc(200_000);
      await sleep(20);
      throw new Error('the artifact is corrupt');
    };
    await expect(load(broken())).rejects.toThrow('the artifact is corrupt');
    await sleep(50);
    expect(ended).toEqual(['cut']);
  });

  test('a load fails when the engine closes the connection in the middle', async () => {
    await engineAt((request) => {
      request.once('data', () => request.destroy());
    });
    await expect(load(inReusedMemory(Buffer.alloc(1_000_000), 100_000))).rejects.toMatchObject({
      code: 'load-failed',
      message: expect.stringMatching(/^docker load failed: the connection broke off \(E/),
    });
  });
});

describe('a pull from this step', () => {
  const never = new Promise<never>(() => undefined);
  const pull = async (registry: Parameters<NonNullable<Engine['pull']>>[1]): Promise<void> =>
    (await engine()).pull?.(`127.0.0.1:5/a@sha256:${'d'.repeat(64)}`, registry);

  test('a pull is requested by digest, and throws an error that the engine reports in its stream', async () => {
    const asked = await engineAt((_, response) => {
      response.write('{"status":"Pulling from a"}\r\n{"status":"x","progressDetail":{}}\r\n');
      response.end('{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}\r\n');
    });
    await expect(pull({ reached: Promise.resolve(), failed: never })).rejects.toMatchObject({
      code: 'load-failed',
      message: "The engine can't fetch layers from this step: unexpected EOF.",
    });
    expect(asked.at(-1)).toBe(`POST /v1.51/images/create?fromImage=127.0.0.1%3A5%2Fa&tag=sha256%3A${'d'.repeat(64)}`);
  });

  test('a pull ends with the failure of the registry, which it rethrows', async () => {
    await engineAt(() => undefined);
    const failure = new Error('the artifact is gone');
    const failed = sleep(50).then(() => failure);
    await expect(pull({ reached: Promise.resolve(), failed })).rejects.toBe(failure);
  });

  test('a pull gives up after ten seconds when the engine requests nothing', async () => {
    // The clock moves while the engine has the request.
    await engineAt(() => {
      jest.advanceTimersByTime(10_000);
    });
    await withStoppedClock(() =>
      expect(pull({ reached: never, failed: never })).rejects.toMatchObject({
        message: "The engine can't fetch layers from this step: it did not ask.",
      }),
    );
  });
});
