import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect as connectTcp, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { refusal } from '../../shared/http/answer.ts';
import { RegistryFailure } from '../../shared/base/errors.ts';
import type { Credentials } from '../../shared/registry/logins.ts';
import { type Digest, digestOf } from '../../shared/image/digest.ts';
import { registryClient, type RegistryClient } from '../../shared/registry/registry-client.ts';
import { type Certificate, makeCertificate } from '../fakes/artifact-service/tls.ts';
import {
  type Misbehaviour,
  type RegistryFront,
  type SeenRequest,
  startRegistryFront,
} from '../fakes/registry/front.ts';
import { type PlainRegistry, startPlainRegistry } from '../fakes/registry/plain-registry.ts';

// Runs the client against a registry in this process. A proxy in front of the registry behaves like other registries, one kind per row.

let directory: string;
let certificate: Certificate;
let registry: PlainRegistry;
let front: RegistryFront;
let client: RegistryClient;
let retries: string[];
let masked: string[];
const bytes = Buffer.from('a layer');
const digest = digestOf(bytes);
const config = Buffer.from('{}');

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'registry-client-'));
  certificate = makeCertificate(directory);
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  registry = await startPlainRegistry();
  front = await startRegistryFront(registry.address);
  retries = [];
  masked = [];
  client = connect(front.address);
});
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await front.close();
  await registry.close();
});

const password: Credentials = { kind: 'password', username: 'me', password: 'opensesame' };

function connect(host: string, credentials?: Credentials, signal = new AbortController().signal): RegistryClient {
  return registryClient(host, {
    credentials,
    proxies: { except: '' },
    authority: certificate.cert.toString(),
    onRetry: (line) => retries.push(line),
    maskSecret: (secret) => masked.push(secret),
    signal,
  });
}

const push = (
  host = front.address,
  of = bytes,
  mountFrom: readonly string[] = [],
  signal = new AbortController().signal,
): Promise<string> =>
  client.pushBlob(
    `${host}/org/app`,
    {
      digest: digestOf(of),
      size: of.length,
      open: async function* () {
        yield await Promise.resolve(of);
      },
    },
    { mountFrom, anyway: false, onBytes: () => undefined, signal },
  );

const manifestBytes = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: bytes.length }],
  }),
);
const manifest = {
  digest: digestOf(manifestBytes),
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  bytes: manifestBytes,
};
const pushAll = async (): Promise<void> => {
  for (const each of [bytes, config]) await push(front.address, each);
  await client.pushManifest(`${front.address}/org/app`, manifest, '1.0');
};
const failureOf = async (work: Promise<unknown>): Promise<RegistryFailure> => {
  const error: unknown = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (error instanceof RegistryFailure) return error;
  throw new Error(`no RegistryFailure: ${String(error)}`);
};
const isStored = (of: Digest = digest): boolean => registry.blobs.has(`org/app@${of}`);
const isPost = ({ method, path }: SeenRequest): boolean => method === 'POST' && path.includes('/blobs/uploads/');
const isUpload = ({ method, path }: SeenRequest): boolean => method === 'PUT' && path.includes('/blobs/uploads/');
const isManifest = ({ path }: SeenRequest): boolean => path.includes('/manifests/');
const answer = (
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body: string | Buffer = '',
): Misbehaviour => ({
  kind: 'answer',
  status,
  headers,
  body,
});
const counted = (what: (request: SeenRequest) => boolean): number => front.seen.filter(what).length;

describe('a login', () => {
  const challenge = (realm: string): Misbehaviour =>
    answer(401, { 'www-authenticate': `Bearer realm="${realm}",service="x"` });

  /** A token service and an upload host that may belong to a third party. */
  const elsewhere = async (): Promise<RegistryFront & { realm: string }> => {
    const other = await startRegistryFront(registry.address);
    return Object.assign(other, { realm: `http://${other.address}/token` });
  };

  test('isn’t sent to a token service that an upload host names', async () => {
    await using other = Object.assign(await elsewhere(), {
      [Symbol.asyncDispose]: async (): Promise<void> => other.close(),
    });
    client = connect(front.address, password);
    other.misbehave = ({ path }) =>
      path.startsWith('/token') ? answer(200, {}, '{"token":"t"}') : challenge(other.realm);
    front.misbehave = (request) =>
      isPost(request)
        ? { kind: 'change', location: (location) => `http://${other.address}${location}` }
        : request.authorization === undefined
          ? answer(401, { 'www-authenticate': 'Basic realm="x"' })
          : undefined;
    const { message, hint } = await failureOf(push());
    expect(message).toContain(`HTTP 401 from another host, ${other.address}`);
    expect(hint).not.toContain('Log in');
    expect(other.seen.map(({ path }) => path.split('?')[0])).not.toContain('/token');
    expect(other.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
  });

  test('isn’t given to a token service without TLS by a registry with TLS', async () => {
    await using other = Object.assign(await elsewhere(), {
      [Symbol.asyncDispose]: async (): Promise<void> => other.close(),
    });
    const secure = await startRegistryFront(registry.address, certificate);
    try {
      client = connect(secure.address, password);
      other.misbehave = () => answer(200, {}, '{"token":"t"}');
      secure.misbehave = () => challenge(other.realm);
      await expect(push(secure.address)).rejects.toMatchObject({ code: 'registry-failed' });
      expect(other.seen).toEqual([]);
    } finally {
      await secure.close();
    }
  });

  test('doesn’t follow a redirect, and the redirect’s target can’t request a login', async () => {
    await using other = Object.assign(await elsewhere(), {
      [Symbol.asyncDispose]: async (): Promise<void> => other.close(),
    });
    client = connect(front.address, password);
    other.misbehave = () => challenge(other.realm);
    front.misbehave = (request) => {
      if (request.authorization === undefined) return answer(401, { 'www-authenticate': 'Basic realm="x"' });
      return request.method === 'HEAD' ? answer(307, { location: `http://${other.address}/blob` }) : undefined;
    };
    expect(await push()).toBe('pushed');
    expect(other.seen.map(({ path, authorization }) => [path, authorization])).toEqual([['/blob', undefined]]);
  });

  test.each([10, 1])('works with tokens that are valid for %i s', async (lifetime) => {
    let given = 0;
    client = connect(front.address, password);
    front.misbehave = ({ path, authorization }) => {
      if (path.startsWith('/token')) {
        given += 1;
        return answer(200, {}, JSON.stringify({ token: `t${String(given)}`, expires_in: lifetime }));
      }
      return authorization?.startsWith('Bearer ') === true ? undefined : challenge(`http://${front.address}/token`);
    };
    await pushAll();
    expect(registry.manifests.has('org/app:1.0')).toBe(true);
  });

  test('gets a new token to end a cancelled upload whose token has expired', async () => {
    const controller = new AbortController();
    client = connect(front.address, password, controller.signal);
    let given = 0;
    let isOver = false;
    front.misbehave = (request) => {
      if (request.path.startsWith('/token')) {
        given += 1;
        return answer(200, {}, JSON.stringify({ token: `t${String(given)}`, expires_in: 300 }));
      }
      if (request.authorization !== (isOver ? 'Bearer t2' : 'Bearer t1'))
        return challenge(`http://${front.address}/token`);
      if (!isUpload(request)) return undefined;
      isOver = true;
      setTimeout(() => {
        controller.abort(new Error('cancelled'));
      }, 20);
      return { kind: 'silence' };
    };
    await expect(push()).rejects.toThrow();
    expect([given, [...registry.sessions]]).toEqual([2, []]);
  });

  const me = `Basic ${Buffer.from('me:opensesame').toString('base64')}`;
  const basic = answer(401, { 'www-authenticate': 'Basic realm="x"' });

  test('is also masked in the log in its encoded form', async () => {
    client = connect(front.address, password);
    front.misbehave = ({ authorization }) =>
      authorization === undefined ? answer(401, { 'www-authenticate': 'Basic' }) : undefined;
    expect(await push()).toBe('pushed');
    expect(masked).toContain(me.replace('Basic ', ''));
  });

  describe('with a token service', () => {
    const given = (request: SeenRequest, otherwise?: Misbehaviour): Misbehaviour | undefined =>
      request.authorization === 'Bearer good' ? otherwise : challenge(`http://${front.address}/token`);
    beforeEach(() => void (client = connect(front.address, password)));

    test.each([
      '{"access_token":"good"}',
      '{"token":"","access_token":"good","expires_in":0}',
      '{"token":"good","access_token":"good","expires_in":"300","refresh_token":"other"}',
      '{"token":"good","expires_in":-5,"issued_at":"soon"}',
    ])('that responds with %s is accepted', async (body) => {
      front.misbehave = (request) => (request.path.startsWith('/token') ? answer(200, {}, body) : given(request));
      await pushAll();
      expect(masked).toContain('good');
    });

    test('that redirects within itself is sent to the redirect’s target', async () => {
      front.misbehave = (request) => {
        if (request.path.startsWith('/token?'))
          return answer(307, { location: request.path.replace('token', 'token/v2') });
        if (request.path.startsWith('/token/v2'))
          return request.authorization === me ? answer(200, {}, '{"token":"good"}') : answer(401);
        return given(request);
      };
      await pushAll();
    });

    test.each([password, { kind: 'identity-token', token: 'opensesame' }] as const)(
      'that redirects to another host isn’t sent there: $kind',
      async (credentials) => {
        await using other = Object.assign(await elsewhere(), {
          [Symbol.asyncDispose]: async (): Promise<void> => other.close(),
        });
        client = connect(front.address, credentials);
        other.misbehave = () => answer(401);
        front.misbehave = (request) =>
          request.path.startsWith('/token')
            ? answer(307, { location: `http://${other.address}/token` })
            : given(request);
        await failureOf(push());
        expect(other.seen.map(({ method, authorization }) => [method, authorization])).toEqual(
          credentials.kind === 'password' ? [['GET', undefined]] : [],
        );
      },
    );

    test('also requests the scope that the registry’s challenge names (containerd, crane)', async () => {
      const asked: (readonly string[])[] = [];
      front.misbehave = (request) => {
        if (request.path.startsWith('/token')) {
          asked.push(new URL(request.path, 'http://x').searchParams.getAll('scope'));
          return answer(200, {}, `{"token":"t${String(asked.length)}"}`);
        }
        const isPush = !['GET', 'HEAD'].includes(request.method);
        const scope = `repository:org/app:pull${isPush ? ' repository:inner/org/app:push,pull' : ''}`;
        const realm = `Bearer realm="http://${front.address}/token",scope="${scope}"`;
        const isGood = request.authorization === 'Bearer t2' || (!isPush && request.authorization !== undefined);
        return isGood ? undefined : answer(401, { 'www-authenticate': realm });
      };
      await pushAll();
      const ours = 'repository:org/app:pull,push';
      expect(asked).toEqual([[ours], [ours, 'repository:inner/org/app:push,pull']]);
    });

    test('that refuses it is an error that shows the service’s message', async () => {
      front.misbehave = (request) =>
        request.path.startsWith('/token')
          ? answer(401, {}, '{"details":"incorrect username or password"}')
          : given(request);
      const { message, hint } = await failureOf(push());
      expect(message).toContain('incorrect username or password');
      expect(hint).toContain('Log in');
    });
  });

  test('follows a redirect of a POST or PUT only within the registry', async () => {
    await using other = Object.assign(await elsewhere(), {
      [Symbol.asyncDispose]: async (): Promise<void> => other.close(),
    });
    for (const host of [front.address, other.address]) {
      client = connect(front.address, password);
      registry.blobs.clear();
      registry.manifests.clear();
      front.misbehave = ({ method, path, authorization }) => {
        if (authorization === undefined) return basic;
        if (!['POST', 'PUT'].includes(method) || path.includes('moved')) return undefined;
        return answer(method === 'PUT' ? 308 : 307, {
          location: `http://${host}${path}${path.includes('?') ? '&' : '?'}moved`,
        });
      };
      await pushAll();
      expect(isStored()).toBe(true);
      expect(registry.manifests.has('org/app:1.0')).toBe(true);
    }
    expect(other.seen.length).toBeGreaterThan(4);
    expect(other.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
  });

  test('whose token is refused during an upload gets a new token', async () => {
    let given = 0;
    client = connect(front.address, password);
    front.misbehave = (request) => {
      if (request.path.startsWith('/token')) {
        given += 1;
        return answer(200, {}, JSON.stringify({ token: `t${String(given)}`, expires_in: 300 }));
      }
      const isCurrent = request.authorization === `Bearer t${String(given)}`;
      const isRefused = isUpload(request) && given === 1;
      return isCurrent && !isRefused ? undefined : challenge(`http://${front.address}/token`);
    };
    expect(await push()).toBe('pushed');
    expect([given, counted(isUpload), isStored()]).toEqual([2, 2, true]);
  });
});

describe('a blob', () => {
  test('whose HEAD is redirected exists only if the redirect’s target has it', async () => {
    const target = createServer((_, response) => response.writeHead(404).end());
    target.listen(0, '127.0.0.1');
    await once(target, 'listening');
    const address = target.address();
    const port = typeof address === 'object' ? String(address?.port) : '';
    try {
      front.misbehave = ({ method }) =>
        method === 'HEAD' ? answer(307, { location: `http://127.0.0.1:${port}/blob` }) : undefined;
      expect(await push()).toBe('pushed');
      expect(isStored()).toBe(true);
    } finally {
      target.close();
    }
  });

  test('whose HEAD is redirected to existing content isn’t sent again', async () => {
    await push();
    front.misbehave = ({ method, path }) =>
      method === 'HEAD' ? answer(307, { location: `http://${registry.address}${path}` }) : undefined;
    expect(await push()).toBe('there');
  });

  test.each([
    ['nowhere', 'http://127.0.0.1:9/blob'],
    ['no address', 'http://['],
    ['no location', ''],
    ['itself', '/v2/org/app/blobs/again'],
  ])('whose HEAD is redirected to %s is sent', async (_what, location) => {
    front.misbehave = ({ method }) =>
      method === 'HEAD' ? answer(307, location === '' ? {} : { location }) : undefined;
    expect(await push()).toBe('pushed');
    expect(isStored()).toBe(true);
  });

  test('whose HEAD shows another size is sent', async () => {
    front.misbehave = ({ method }) => (method === 'HEAD' ? answer(200, { 'content-length': '3' }) : undefined);
    expect(await push()).toBe('pushed');
    expect(isStored()).toBe(true);
  });

  test('that gets one 503 takes one more request', async () => {
    front.misbehave = (request) =>
      isPost(request) && request.count === 1 ? answer(503, { 'retry-after': '0' }) : undefined;
    await push();
    expect(counted(isPost)).toBe(2);
  });

  test('that gets only 503 takes six requests, not thirty', async () => {
    front.misbehave = (request) => (isPost(request) ? answer(503, { 'retry-after': '0' }) : undefined);
    await failureOf(push());
    expect(counted(isPost)).toBe(6);
    expect(retries).toHaveLength(5);
  });

  test.each([200, 202, 204])('whose upload gets the status %i is stored', async (status) => {
    front.misbehave = (request) => (isUpload(request) ? { kind: 'change', status } : undefined);
    expect(await push()).toBe('pushed');
    expect(isStored()).toBe(true);
  });

  test('whose upload gets the status 202, and is missing a moment later, is not a success', async () => {
    front.misbehave = (request) =>
      isUpload(request) ? answer(202) : request.method === 'HEAD' ? answer(404, { 'retry-after': '0' }) : undefined;
    await failureOf(push());
  });

  const moved: readonly (readonly [string, (location: string, port: string) => string])[] = [
    ['ends in a question mark', (location) => `${location}?`],
    ['is relative', (location) => location.replace(/.*\/uploads\//, '')],
    ['has a query of its own', (location) => `${location}?_state=a%2Fb%3D%3D&x`],
    ['has a fragment', (location) => `${location}#here`],
    ['calls this machine localhost', (location, port) => `http://localhost:${port}${location}`],
    ['calls this machine 127.0.0.1', (location, port) => `http://127.0.0.1:${port}${location}`],
    ['calls this machine [::1]', (location, port) => `http://[::1]:${port}${location}`],
  ];
  describe.each(['127.0.0.1', 'localhost'])('of a registry at %s', (name) => {
    test.each(moved)('whose upload location %s is stored', async (_what, location) => {
      const port = front.address.split(':')[1] ?? '';
      client = connect(`${name}:${port}`, password);
      front.misbehave = (request) => {
        if (request.authorization === undefined) return answer(401, { 'www-authenticate': 'Basic realm="x"' });
        return isPost(request) ? { kind: 'change', location: (from) => location(from, port) } : undefined;
      };
      expect(await push(`${name}:${port}`)).toBe('pushed');
      expect(isStored()).toBe(true);
      const { path = '' } = front.seen.find(isUpload) ?? {};
      expect(path).toMatch(/^[^?]*\?(?:_state=a%2Fb%3D%3D&x&)?digest=sha256%3A[0-9a-f]{64}$/);
    });
  });

  test.each([200, 204])('whose upload starts with the status %i is stored', async (status) => {
    front.misbehave = (request) => (isPost(request) ? { kind: 'change', status } : undefined);
    expect(await push()).toBe('pushed');
    expect(isStored()).toBe(true);
  });

  test('whose upload starts with 201 is accepted if the registry has it (containerd, crane)', async () => {
    front.misbehave = (request) => {
      if (!isPost(request)) return undefined;
      registry.blobs.set(`org/app@${digest}`, bytes);
      return answer(201, { location: `/v2/org/app/blobs/${digest}` });
    };
    expect(await push()).toBe('there');
    registry.blobs.clear();
    front.misbehave = (request) => (isPost(request) ? answer(201) : undefined);
    await expect(push()).rejects.toMatchObject({ code: 'registry-failed', message: expect.stringContaining('201') });
  });

  test('whose upload gets 202 from a registry without HEAD is accepted', async () => {
    front.misbehave = (request) =>
      request.method === 'HEAD' ? answer(405) : isUpload(request) ? { kind: 'change', status: 202 } : undefined;
    expect(await push()).toBe('pushed');
  });

  test('that is cancelled at the start of its upload leaves no session', async () => {
    for (const mountFrom of [[], [`${front.address}/org/a`]]) {
      const controller = new AbortController();
      client = connect(front.address, undefined, controller.signal);
      front.misbehave = (request) => {
        if (isPost(request)) controller.abort(new Error('cancelled'));
        return undefined;
      };
      await expect(push(front.address, bytes, mountFrom)).rejects.toThrow('cancelled');
      expect([...registry.sessions]).toEqual([]);
      expect(counted(({ method }) => method === 'DELETE')).toBeGreaterThan(0);
    }
  });

  test.each([{ kind: 'cut', afterBytes: 0 }, answer(503)] as const)(
    'whose upload fails leaves no session, even if ending the session fails once: %j',
    async (failure) => {
      front.misbehave = (request) => {
        if (request.method === 'DELETE' && request.count === 1) return failure;
        return isUpload(request) ? answer(400) : undefined;
      };
      await failureOf(push());
      expect([...registry.sessions]).toEqual([]);
    },
  );

  test('has no complete address in an error, because the address may be signed', async () => {
    front.misbehave = (request) =>
      isPost(request) ? answer(301, { location: 'https://elsewhere.invalid/x?X-Amz-Signature=hunter2' }) : undefined;
    const { message } = await failureOf(push());
    expect(message).toContain('https://elsewhere.invalid/x');
    expect(message).not.toContain('hunter2');
    front.misbehave = (request) =>
      isPost(request) ? answer(202, { location: 'http://me:hunter2@elsewhere.invalid/x?sig=hunter2' }) : undefined;
    await expect(push()).rejects.toMatchObject({ message: expect.not.stringContaining('hunter2') });
  });

  test('is sent in the session that a refused mount opened', async () => {
    expect(await push(front.address, bytes, [`${front.address}/org/a`, `${front.address}/org/b`])).toBe('pushed');
    expect(counted(isPost)).toBe(2);
    expect([...registry.sessions]).toEqual([]);
  });

  test('that is finally mounted leaves no session of the refused mounts', async () => {
    registry.blobs.set(`org/b@${digest}`, bytes);
    expect(await push(front.address, bytes, [`${front.address}/org/a`, `${front.address}/org/b`])).toBe('mounted');
    expect([...registry.sessions]).toEqual([]);
  });

  test('that can’t be mounted is tried once', async () => {
    front.misbehave = ({ path }) => (path.includes('mount=') ? answer(503, { 'retry-after': '0' }) : undefined);
    expect(await push(front.address, bytes, [`${front.address}/org/a`])).toBe('pushed');
    expect(counted(({ path }) => path.includes('mount='))).toBe(1);
  });

  test('whose upload fails or is cancelled leaves no session', async () => {
    front.misbehave = (request) => (isUpload(request) ? answer(503, { 'retry-after': '0' }) : undefined);
    await failureOf(push());
    expect([...registry.sessions]).toEqual([]);
    const controller = new AbortController();
    client = connect(front.address, undefined, controller.signal);
    front.misbehave = (request) => {
      if (!isUpload(request)) return undefined;
      setTimeout(() => {
        controller.abort(new Error('cancelled'));
      }, 20);
      return { kind: 'silence' };
    };
    await expect(push()).rejects.toThrow();
    expect([...registry.sessions]).toEqual([]);
  });
});

test('an upload is abandoned when the step is cancelled in the pause before another attempt', async () => {
  const controller = new AbortController();
  client = connect(front.address, undefined, controller.signal);
  front.misbehave = (request) => {
    if (!isUpload(request)) return undefined;
    setTimeout(() => {
      controller.abort(new Error('cancelled'));
    }, 20);
    return answer(503, { 'retry-after': '60' });
  };
  await expect(push()).rejects.toThrow();
  expect([...registry.sessions]).toEqual([]);
}, 30_000);

describe('a manifest', () => {
  test('that can’t be read back for a moment is published', async () => {
    front.misbehave = (request) =>
      isManifest(request) && request.method === 'GET' && request.count < 3
        ? answer(404, { 'retry-after': '0' })
        : undefined;
    await pushAll();
    expect(counted((request) => isManifest(request) && request.method === 'GET')).toBe(3);
  });

  test('that can never be read back is not a success, and the error doesn’t suggest a login', async () => {
    front.misbehave = (request) =>
      isManifest(request) && request.method === 'GET' ? answer(404, { 'retry-after': '0' }) : undefined;
    const { hint } = await failureOf(pushAll());
    expect(hint).not.toContain('Log in');
  });

  test.each([200, 202, 204])('whose PUT gets the status %i is published', async (status) => {
    front.misbehave = (request) =>
      isManifest(request) && request.method === 'PUT' ? { kind: 'change', status } : undefined;
    await pushAll();
    expect(registry.manifests.has('org/app:1.0')).toBe(true);
  });

  test('whose GET and HEAD are redirected is read from the redirect’s target, without the login', async () => {
    client = connect(front.address, password);
    const other = await startRegistryFront(registry.address);
    try {
      front.misbehave = (request) => {
        if (request.authorization === undefined) return answer(401, { 'www-authenticate': 'Basic realm="x"' });
        return isManifest(request) && request.method !== 'PUT'
          ? answer(302, { location: `http://${other.address}${request.path}` })
          : undefined;
      };
      await pushAll();
      expect(await client.manifestDigest(`${front.address}/org/app`, '1.0')).toBe(manifest.digest);
      expect(other.seen).toHaveLength(2);
      expect(other.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
    } finally {
      await other.close();
    }
  });

  test('that this login can’t read is published, even if the registry sends no digest', async () => {
    client = connect(front.address, password);
    front.misbehave = (request) => {
      if (!isManifest(request)) return undefined;
      return request.method === 'PUT' ? { kind: 'change', without: ['docker-content-digest'] } : answer(403);
    };
    await pushAll();
    expect(registry.manifests.has('org/app:1.0')).toBe(true);
  });

  test('that the registry compresses without a request for it is read', async () => {
    front.misbehave = (request) =>
      isManifest(request) && request.method === 'GET'
        ? answer(200, { 'content-encoding': 'gzip' }, gzipSync(manifestBytes))
        : undefined;
    await pushAll();
    front.misbehave = (request) =>
      isManifest(request) && request.method === 'GET'
        ? answer(200, { 'content-encoding': 'gzip' }, gzipSync(manifestBytes).subarray(0, 30))
        : undefined;
    await failureOf(client.pushManifest(`${front.address}/org/app`, manifest, '1.0'));
  });

  test.each([405, 501])('is found if HEAD gets the status %i', async (status) => {
    await pushAll();
    front.misbehave = ({ method }) => (method === 'HEAD' ? answer(status) : undefined);
    expect(await client.manifestDigest(`${front.address}/org/app`, '1.0')).toBe(manifest.digest);
  });

  test('that HEAD reports as existing exists only if it can be read', async () => {
    const claim = answer(200, { 'docker-content-digest': manifest.digest });
    front.misbehave = ({ method }) => (method === 'HEAD' ? claim : undefined);
    const look = (): Promise<Digest | undefined> =>
      client.manifestDigest(`${front.address}/org/app`, '1.0', manifest.digest);
    expect(await look()).toBeUndefined();
    registry.manifests.set('org/app:1.0', { type: manifest.mediaType, bytes: config });
    expect(await look()).toBe(digestOf(config));
    // This login may check for manifests, but not read them.
    front.misbehave = ({ method }) => (method === 'HEAD' ? claim : answer(403));
    expect(await look()).toBe(manifest.digest);
  });

  test('whose PUT succeeds without a response, under a tag that can’t be moved, is published', async () => {
    front.misbehave = (request) => {
      if (!isManifest(request) || request.method !== 'PUT') return undefined;
      return request.count === 1
        ? { kind: 'change', status: 503 }
        : answer(
            400,
            {},
            '{"errors":[{"code":"TAG_INVALID","message":"The image tag already exists and is immutable"}]}',
          );
    };
    await pushAll();
    registry.manifests.set('org/app:1.0', { type: manifest.mediaType, bytes: config });
    const { hint } = await failureOf(client.pushManifest(`${front.address}/org/app`, manifest, '1.0'));
    expect(hint).toContain('This tag was set before and can’t be moved');
  });

  test('that lacks a blob is refused with a message that names the blob', async () => {
    const { message } = await failureOf(client.pushManifest(`${front.address}/org/app`, manifest, '1.0'));
    expect(message).toContain('MANIFEST_BLOB_UNKNOWN');
    expect(message).toContain(digestOf(config));
  });
});

test.each(['hangs up', 'answers 400'])(
  'a registry on this machine isn’t treated as one without TLS after one broken TLS connection; to plain HTTP it %s',
  async (how) => {
    const secure = await startRegistryFront(registry.address, certificate);
    let connections = 0;
    const gate = createTcpServer((socket) => {
      connections += 1;
      socket.on('error', () => undefined);
      if (connections === 1) return void socket.destroy();
      socket.once('data', (first: Buffer) => {
        // 22 is the first byte of a TLS handshake.
        if (first[0] !== 22)
          return void socket.end(how === 'hangs up' ? '' : 'HTTP/1.1 400 no\r\ncontent-length: 0\r\n\r\n');
        const through = connectTcp(Number(secure.address.split(':')[1]), '127.0.0.1');
        through.on('error', () => undefined).write(first);
        socket.pipe(through).pipe(socket);
      });
    });
    gate.listen(0, '127.0.0.1');
    await once(gate, 'listening');
    const address = gate.address();
    const host = `127.0.0.1:${typeof address === 'object' ? String(address?.port) : ''}`;
    try {
      client = connect(host);
      expect(await push(host)).toBe('pushed');
    } finally {
      await client[Symbol.asyncDispose]();
      gate.close();
      await secure.close();
    }
  },
);

test('requests to a registry on this machine don’t use a proxy', async () => {
  const seen: string[] = [];
  const proxy = createServer((request, response) => {
    seen.push(request.url ?? '');
    response.writeHead(502).end();
  });
  proxy.on('connect', ({ url }, socket) => {
    seen.push(url ?? '');
    socket.on('error', () => undefined).end('HTTP/1.1 502 no\r\n\r\n');
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const address = proxy.address();
  const value = `http://127.0.0.1:${typeof address === 'object' ? String(address?.port) : ''}`;
  try {
    client = registryClient(front.address, {
      credentials: undefined,
      proxies: { http: { variable: 'http_proxy', value }, https: { variable: 'https_proxy', value }, except: '' },
      authority: undefined,
      onRetry: (line) => retries.push(line),
      maskSecret: () => undefined,
      signal: new AbortController().signal,
    });
    expect(await push()).toBe('pushed');
    expect(seen).toEqual([]);
  } finally {
    proxy.close();
  }
});

test('a `Retry-After` with a date is respected', async () => {
  const soon = new Date(Date.now() + 500).toUTCString();
  front.misbehave = (request) =>
    isPost(request) && request.count === 1 ? answer(503, { 'retry-after': soon }) : undefined;
  expect(await push()).toBe('pushed');
  // A date is in whole seconds.
  expect(retries).toEqual([expect.stringMatching(/the next (?:at once|in \d+ ms|in 0\.\d s)\.$/)]);
});

test.each([
  ['3', 3000],
  ['0', 0],
  ['3600', 3_600_000],
  ['Sun, 06 Nov 1994 08:49:40 GMT', 3000],
  ['Sunday, 06-Nov-94 08:49:40 GMT', 3000],
  ['Sun, 06 Nov 1994 08:49:00 GMT', 0],
  ['-3', undefined],
  ['1e3', undefined],
  ['soon', undefined],
  ['', undefined],
])('a `Retry-After` of "%s" means a pause of %s ms', (header, ms) => {
  const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.parse('1994-11-06T08:49:37Z'));
  const { retryAfterMs } = refusal({ status: 503, header: () => header }, '', '');
  clock.mockRestore();
  expect(retryAfterMs).toBe(ms);
});

describe('a failure’s hint fits its cause, and only a refused login suggests a login (S1.5)', () => {
  const login = 'docker/login-action';
  test.each([
    ['unauthorized: authentication required', login],
    ['unexpected status from HEAD request to https://ghcr.io/v2/a/b/blobs/x: 403 Forbidden', login],
    ['denied: installation not allowed to Write organization package', login],
    ['push access denied, repository does not exist or may require authorization', login],
    ['dial tcp 127.0.0.1:9: connect: connection refused', 'no usable registry'],
    ['Get "https://nowhere.invalid/v2/": dial tcp: lookup nowhere.invalid: no such host', 'no usable registry'],
    [
      'failed to do request: Head "https://x/v2/": tls: failed to verify certificate: x509: unknown authority',
      'authority',
    ],
    ['name unknown: The repository with name app does not exist in the registry', 'created before the first push'],
    ['manifest unknown: manifest unknown', 'spelling'],
    ['no matching manifest for linux/arm64/v8 in the manifest list entries', 'platform'],
    ["tag invalid: The image tag '1' already exists in the 'a' repository and cannot be overwritten", 'tag of its own'],
    ['precondition failed: Failed to process request due to a:1 configured as immutable.', 'tag of its own'],
    ['unexpected status from PUT request to https://x/v2/a/manifests/1: 400 Bad Request', 'doesn’t accept the name'],
    ["ImageTagAlreadyExistsException: The image tag '1' already exists in the 'a' repository", 'tag of its own'],
    ['unauthorized: The operation is disallowed on this registry, repository or image.', 'locked'],
    [
      'denied: adding 1.2 MiB of storage resource, which when updated to current usage of 10.0 MiB will exceed the configured upper limit of 10.0 MiB.',
      'no room left',
    ],
    ['Parse Error: Expected HTTP/, RTSP/ or ICE/ HPE_INVALID_CONSTANT', 'no usable registry'],
    ['error parsing HTTP 413 response body: invalid character', 'client_max_body_size'],
    ['unexpected status from PUT request to https://x/v2/a/manifests/1: 415 Unsupported Media Type', 'compression'],
    ['manifest blob unknown: blob unknown to registry', 'lost a part'],
    ['toomanyrequests: You have reached your pull rate limit', 'rate limit'],
    ['received unexpected HTTP status: 500 Internal Server Error', 'itself fails'],
    ['something new', 'registry’s message'],
  ])('%s', (said, part) => {
    const { hint } = new RegistryFailure('The push', ['ghcr.io/denied/app:1'], said);
    expect(hint).toContain(part);
    expect(hint.includes(login)).toBe(part === login);
  });

  test.each([
    [301, { location: 'https://elsewhere.invalid/x' }, '', 'use the registry’s own address', 'elsewhere.invalid'],
    [
      400,
      {},
      '{"errors":[{"code":"NAME_INVALID","message":"invalid repository name"}]}',
      'doesn’t accept',
      'NAME_INVALID',
    ],
    [401, {}, '', 'Log in', 'HTTP 401'],
    [403, {}, '{"errors":[{"code":"DENIED","message":"no","detail":"ask the owner"}]}', 'Log in', 'ask the owner'],
    [
      404,
      {},
      '{"errors":[{"code":"NAME_UNKNOWN","message":"x","detail":{"name":"org/denied"}}]}',
      'created',
      'org/denied',
    ],
    [405, {}, '', 'no pushes', 'HTTP 405'],
    [409, {}, '{"errors":[{"code":"TAG_INVALID","message":"tag is immutable"}]}', 'tag of its own', 'immutable'],
    [409, {}, '', 'tag of its own', 'HTTP 409'],
    [413, {}, '<h1>Request Entity Too Large</h1>', 'client_max_body_size', 'HTTP 413'],
    [415, {}, '', 'compression', 'HTTP 415'],
  ] as const)('HTTP %i of a push', async (status, headers, body, hinted, shown) => {
    front.misbehave = (request) => (isPost(request) ? answer(status, headers, body) : undefined);
    const { hint, message } = await failureOf(push());
    expect(hint).toMatch(new RegExp(hinted));
    expect(message).toContain(shown);
    expect(hint.includes('Log in')).toBe([401, 403].includes(status));
    expect(counted(isPost)).toBe(1);
  });
});
