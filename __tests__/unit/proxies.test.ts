import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { readText } from '../../shared/http/answer.ts';
import { httpClient } from '../../shared/http/client.ts';
import { proxiesOf } from '../../shared/http/proxies.ts';

let proxy: Server;
let asked: string[];
let port: string;
beforeEach(async () => {
  asked = [];
  proxy = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
    response.end('by the proxy');
  });
  proxy.on('connect', ({ url }, socket) => {
    asked.push(`CONNECT ${url ?? ''}`);
    socket.on('error', () => undefined).end('HTTP/1.1 502 no\r\n\r\n');
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const address = proxy.address();
  port = typeof address === 'object' ? String(address?.port) : '';
});
afterEach(() => {
  proxy.close();
});

async function get(url: string, env: Readonly<Record<string, string>>): Promise<string> {
  const http = httpClient(
    proxiesOf((name) => env[name] ?? ''),
    new AbortController().signal,
  );
  try {
    return await readText(await http.send({ method: 'GET', url }));
  } catch (error) {
    return String(error);
  } finally {
    await http.close();
  }
}

describe('proxies are taken from the environment (S0.7)', () => {
  test('a proxy for http is not used for https', async () => {
    expect(await get('https://127.0.0.1:9/', { HTTP_PROXY: `http://127.0.0.1:${port}` })).toContain('ECONNREFUSED');
    expect(asked).toEqual([]);
  });

  test('each scheme uses its own proxy', async () => {
    await get('https://far.example/', { https_proxy: `http://127.0.0.1:${port}` });
    expect(asked).toEqual(['CONNECT far.example:443']);
  });

  test('a proxy without a scheme is an http proxy', async () => {
    await get('https://far.example/', { HTTPS_PROXY: `127.0.0.1:${port}` });
    await get('https://near.example/', { HTTPS_PROXY: `localhost:${port}` });
    expect(asked).toEqual(['CONNECT far.example:443', 'CONNECT near.example:443']);
  });

  test('no_proxy excludes hosts', async () => {
    const env = { HTTPS_PROXY: `http://127.0.0.1:${port}`, NO_PROXY: 'localhost,127.0.0.1' };
    expect(await get('https://127.0.0.1:9/', env)).toContain('ECONNREFUSED');
    expect(asked).toEqual([]);
  });
});
