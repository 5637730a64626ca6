import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type Http, httpClient } from '../../shared/http/client.ts';
import { isTransient } from '../../shared/http/retry.ts';
import { type ResultsService, resultsService } from '../../shared/artifacts/service/results-service.ts';

let server: Server;
let http: Http;
let body = '';
/** The body of the last request. */
let sent = '';
let service: ResultsService;

beforeEach(async () => {
  server = createServer((request, response) => {
    sent = '';
    request.setEncoding('utf8').on('data', (text: string) => (sent += text));
    response.writeHead(200, { 'content-type': 'application/json' }).end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const { signal } = new AbortController();
  http = httpClient({ except: '' }, signal);
  const origin = `http://127.0.0.1:${String(port)}`;
  const credentials = { token: 't', origin, runBackendId: 'r', jobBackendId: 'j', isGitea: false };
  service = resultsService(http, credentials, () => undefined, signal);
});
afterEach(async () => {
  await http.close();
  server.close();
});

test('a zip is announced in the form of the current official client', async () => {
  body = '{"ok": true, "signed_upload_url": "https://blob.example/a"}';
  await service.create('docker-image', undefined);
  expect(JSON.parse(sent)).toMatchObject({ name: 'docker-image', version: 7, mime_type: 'application/zip' });
});

const listed = { id: 1, name: 'docker-image', size: 1, runBackendId: 'r', jobBackendId: 'j' };
const digest = `sha256:${'0'.repeat(64)}` as const;
const calls: Readonly<Record<string, () => Promise<unknown>>> = {
  list: () => service.list(),
  signDownload: () => service.signDownload(listed),
  create: () => service.create('docker-image', new Date()),
  finalize: () => service.finalize('docker-image', 1, digest),
};

// The name of a call, and responses that are impossible for it.
const never = [
  '<html>busy</html>',
  '',
  'null',
  '[]',
  '"text"',
  '5',
  'true',
  '{"artifacts": [{"name": "docker-im',
  '\u0000',
];
const notThis: Readonly<Record<string, readonly string[]>> = {
  list: [
    '{"artifacts": {}}',
    '{"artifacts": "docker-image"}',
    '{"items": []}',
    '{"artifacts": [null]}',
    '{"artifacts": [5]}',
    '{"artifacts": [[]]}',
    '{"artifacts": [{}]}',
    ...['-5', '1.5', '', '9007199254740993', '1e3', '0x10'].map(
      (size) => `{"artifacts": [{"name": "a", "database_id": "1", "size": "${size}"}]}`,
    ),
    ...['-1', 'null', '[]', '"x"', '1.5'].map(
      (id) => `{"artifacts": [{"name": "a", "database_id": ${id}, "size": "1"}]}`,
    ),
    '{"artifacts": [{"name": 5, "database_id": "1", "size": "1"}]}',
  ],
  signDownload: [
    '{}',
    '{"signed_url": ""}',
    '{"signed_url": 5}',
    '{"signed_url": "file:///etc/passwd"}',
    '{"signed_url": "/a"}',
  ],
  create: ['{}', '{"ok": true}', '{"signed_upload_url": null}', '{"signed_upload_url": "javascript:1"}'],
  finalize: [
    '{}',
    '{"ok": true}',
    '{"ok": false, "artifact_id": "1"}',
    '{"ok": true, "artifact_id": "-1"}',
    '{"ok": "true"}',
  ],
};

describe('an impossible response of the artifact service is unknown, and never mistaken for another response', () => {
  test.each(
    Object.keys(calls).flatMap((call) => [...never, ...(notThis[call] ?? [])].map((said) => [call, said] as const)),
  )('%s: %s', async (call, said) => {
    body = said;
    await expect(calls[call]?.()).rejects.toMatchObject({ name: 'UnknownAnswer' });
  });

  test.each([
    ['{}', []],
    ['{"artifacts": []}', []],
    [
      '{"artifacts": [{"name": "a", "database_id": "2", "size": "5"}, {"name": "a", "databaseId": 3, "size": 7}]}',
      [3, 2],
    ],
    ['{"artifacts": [{"name": "a", "database_id": "2"}]}', []],
  ])('a list may omit empty or zero values, and contain numbers as text: %s', async (said, ids) => {
    body = said;
    expect((await service.list()).map(({ id }) => id)).toEqual(ids);
  });

  test('a response without an end is abandoned', async () => {
    body = `"${'x'.repeat(17 * 1024 * 1024)}"`;
    await expect(service.list()).rejects.toThrow('an answer of more than 16.8 MB');
  });
});

test.each([
  [true, 600_000],
  [false, undefined],
])('the end of an upload may take minutes only on Gitea, which then copies it (%j)', async (isGitea, answerMs) => {
  const limits: (number | undefined)[] = [];
  const watched: Http = {
    send: (request) => {
      limits.push(request.answerMs);
      return http.send(request);
    },
    close: () => Promise.resolve(),
  };
  body = '{"ok": true, "artifact_id": "1"}';
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const credentials = {
    token: 't',
    origin: `http://127.0.0.1:${String(port)}`,
    runBackendId: '1',
    jobBackendId: '2',
    isGitea,
  };
  const patient = resultsService(watched, credentials, () => undefined, new AbortController().signal);
  await patient.finalize('docker-image', 1, digest);
  await patient.remove('docker-image', credentials);
  expect(limits).toEqual([answerMs, undefined]);
});

describe('whether another request may help', () => {
  const withCode = (code: string): Error => Object.assign(new Error(code), { code });
  test.each(['ECONNRESET', 'ETIMEDOUT', 'EAI_AGAIN', 'UND_ERR_SOCKET', 'UND_ERR_BODY_TIMEOUT'])(
    'it may help against %s',
    (code) => {
      expect(isTransient(withCode(code))).toBe(true);
    },
  );
  test.each(['ERR_INVALID_ARG_TYPE', 'ENOSPC', 'EACCES', 'UND_ERR_ABORTED', 'UND_ERR_INVALID_ARG', 'CERT_HAS_EXPIRED'])(
    'it doesn’t help against %s',
    (code) => {
      expect(isTransient(withCode(code))).toBe(false);
    },
  );
});
