import { createWriteStream } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobStore } from './blobs.ts';
import type { Fault, Faults } from './faults.ts';
import { type Link, portions } from './link.ts';
import type { UrlSigner } from './signed-url.ts';

export interface BlobServerParts {
  readonly blobs: BlobStore;
  readonly signer: UrlSigner;
  readonly faults: Faults;
  readonly link: Link;
  readonly ignoresRanges: boolean;
  readonly onTraffic: (operation: string, bytes: number, range: string) => void;
}

/** Serves block-blob requests of the Blob service REST API, authorized by signed URLs. */
export async function serveBlob(
  parts: BlobServerParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://blob.invalid');
  const name = decodeURIComponent(url.pathname.split('/').at(-1) ?? '');
  const comp = url.searchParams.get('comp');
  const reading = request.method === 'GET' || request.method === 'HEAD';
  const operation = reading
    ? 'get'
    : comp === 'block'
      ? 'put-block'
      : comp === 'blocklist'
        ? 'put-block-list'
        : 'put-blob';
  response.setHeader('x-ms-version', '2024-11-04');
  response.setHeader('x-ms-request-id', crypto.randomUUID());
  await parts.link.latency();
  const fileName = /filename="(.*)"/.exec(url.searchParams.get('rscd') ?? '')?.[1];
  const fault = parts.faults.strike(operation, fileName);
  if (fault?.kind === 'hang') await sleep(fault.ms, undefined, { ref: false });
  if (fault?.kind === 'status') {
    request.resume();
    fail(
      response,
      fault.status,
      fault.status === 403 ? 'AuthenticationFailed' : 'ServerBusy',
      fault.body,
      fault.headers,
    );
    return;
  }
  if (request.headers.authorization !== undefined) {
    // Like Azure, refuses a signed URL that is combined with another authorization.
    request.resume();
    fail(response, 400, 'InvalidAuthenticationInfo');
    return;
  }
  const refusal = parts.signer.refusal(url, reading ? 'r' : 'w');
  if (refusal !== undefined) {
    fail(response, 403, 'AuthenticationFailed', refusal);
    return;
  }
  if (!parts.blobs.exists(name)) {
    fail(response, 404, 'BlobNotFound');
    return;
  }
  if (reading) return get(parts, name, url, request, response, fault);
  if (operation === 'put-block-list') return putBlockList(parts, name, request, response, fault);
  return putBytes(parts, name, url, request, response, fault);
}

function fail(
  response: ServerResponse,
  status: number,
  code: string,
  message = code,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/xml', 'x-ms-error-code': code, ...headers });
  response.end(
    `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`,
  );
}

async function get(
  parts: BlobServerParts,
  name: string,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault['effect'] | undefined,
): Promise<void> {
  const size = parts.blobs.size(name);
  if (size === undefined) {
    fail(response, 404, 'BlobNotFound');
    return;
  }
  const range = String(request.headers['x-ms-range'] ?? request.headers.range ?? '');
  const match = parts.ignoresRanges || fault?.kind === 'whole' ? null : /^bytes=(\d+)-(\d*)$/.exec(range);
  const start = match === null ? 0 : Number(match[1]);
  const end = match?.[2] === undefined || match[2] === '' ? size : Math.min(size, Number(match[2]) + 1);
  if (start >= size && size > 0) {
    fail(response, 416, 'InvalidRange');
    return;
  }
  response.writeHead(match === null ? 200 : 206, {
    'content-length': end - start,
    'content-type': parts.blobs.contentType(name),
    'accept-ranges': 'bytes',
    etag: `"${name}"`,
    'content-disposition': url.searchParams.get('rscd') ?? '',
    ...(match === null ? {} : { 'content-range': contentRange(start, end, size, fault) }),
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  const from = fault?.kind === 'elsewhere' ? Math.max(0, Math.min(start + fault.offset, size - (end - start))) : start;
  await sendBody(parts, response, parts.blobs.read(name, from, from + end - start), fault, range);
}

function contentRange(start: number, end: number, size: number, fault: Fault['effect'] | undefined): string {
  const from = fault?.kind === 'wrong-range' ? start + 1 : start;
  return `bytes ${String(from)}-${String(from + end - start - 1)}/${String(size)}`;
}

async function sendBody(
  parts: BlobServerParts,
  response: ServerResponse,
  chunks: AsyncIterable<Buffer>,
  fault: Fault['effect'] | undefined,
  range: string,
): Promise<void> {
  let sent = 0;
  const isSlow = parts.link.limited || fault?.kind === 'trickle';
  for await (const whole of chunks) {
    for (const chunk of portions(whole, isSlow)) {
      if (response.destroyed) return;
      if (fault?.kind === 'trickle')
        await sleep((1000 * chunk.length) / fault.bytesPerSecond, undefined, { ref: false });
      if (fault?.kind === 'reset' && sent + chunk.length > fault.afterBytes) {
        response.write(chunk.subarray(0, fault.afterBytes - sent), () => response.socket?.resetAndDestroy());
        return;
      }
      if (fault?.kind === 'short' && sent + chunk.length > fault.afterBytes) {
        response.write(chunk.subarray(0, fault.afterBytes - sent), () => response.socket?.end());
        return;
      }
      if (fault?.kind === 'flip' && fault.offset >= sent && fault.offset < sent + chunk.length) {
        chunk[fault.offset - sent] = (chunk[fault.offset - sent] ?? 0) ^ 0xff;
      }
      if (parts.link.limited) await parts.link.pass(response.socket ?? response, chunk.length);
      sent += chunk.length;
      parts.onTraffic('get', chunk.length, range);
      if (!response.write(chunk)) await drained(response);
    }
  }
  response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

async function putBytes(
  parts: BlobServerParts,
  name: string,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault['effect'] | undefined,
): Promise<void> {
  const path = parts.blobs.newPiecePath();
  const file = createWriteStream(path);
  file.on('error', () => request.destroy()); // the service has been closed
  let size = 0;
  const body: AsyncIterable<Buffer> = request;
  for await (const chunk of body) {
    size += chunk.length;
    if (fault?.kind === 'reset' && size > fault.afterBytes) {
      request.socket.resetAndDestroy();
      file.destroy();
      return;
    }
    if (parts.link.limited) await parts.link.pass(request.socket, chunk.length);
    parts.onTraffic('put', chunk.length, '');
    if (!file.write(chunk)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'close');
  const id = url.searchParams.get('blockid');
  if (id !== null) parts.blobs.putBlock(name, id, { path, size });
  else parts.blobs.putWhole(name, { path, size }, contentTypeOf(request));
  if (fault?.kind === 'lost-answer') return void request.socket.resetAndDestroy();
  response.writeHead(201).end();
}

async function putBlockList(
  parts: BlobServerParts,
  name: string,
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault['effect'] | undefined,
): Promise<void> {
  const ids = [...(await text(request)).matchAll(/<(?:Latest|Uncommitted|Committed)>([^<]+)</g)].map(
    ([, id]) => id ?? '',
  );
  if (!parts.blobs.commit(name, ids, contentTypeOf(request))) {
    fail(response, 400, 'InvalidBlockList');
    return;
  }
  if (fault?.kind === 'lost-answer') return void request.socket.resetAndDestroy();
  response.writeHead(201).end();
}

function contentTypeOf(request: IncomingMessage): string {
  return String(
    request.headers['x-ms-blob-content-type'] ?? request.headers['content-type'] ?? 'application/octet-stream',
  );
}
