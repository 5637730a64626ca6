import { once } from 'node:events';
import { createServer } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { expect, test } from '@jest/globals';
import { httpClient } from '../../shared/http/client.ts';

test('a connection that breaks before the body is read causes an error for the reader, but not for the process', async () => {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': '1000' }).write('the beginning', () => response.socket?.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const http = httpClient({ except: '' }, new AbortController().signal);
  const { body } = await http.send({ method: 'GET', url: `http://127.0.0.1:${String(port)}/` });
  // The reader does something else first, such as opening its file.
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  while (body.errored === null) await turn();
  for (let turns = 0; turns < 5; turns += 1) await turn();
  await expect(buffer(body)).rejects.toThrow(/other side closed|terminated|aborted|ECONNRESET/);
  await http.close();
  server.close();
}, 20_000);
