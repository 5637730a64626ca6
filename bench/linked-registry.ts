import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { readBytes } from '../__tests__/fakes/artifact-service/blobs.ts';
import { type Link, link, type LinkOptions, portions } from '../__tests__/fakes/artifact-service/link.ts';
import { makeCertificate } from '../__tests__/fakes/artifact-service/tls.ts';
import { type Digest, digestOf, hexOf } from '../shared/image/digest.ts';
import { type Descriptor, mediaTypes, parseManifest } from '../shared/image/manifest.ts';

/** A registry with one repository and TLS, behind a link like that of the fake artifact service. */
export interface LinkedRegistry {
  /** `127.0.0.1:<port>`: docker accepts any certificate from such an address. */
  readonly address: string;
  stop(): Promise<void>;
}

interface StoredFile {
  readonly path: string;
  readonly size: number;
  readonly mediaType: string;
}

/**
 * Serves a copy of `charon` with these tags from another registry.
 * @param folder where the copy is stored
 */
export async function startLinkedRegistry(
  from: string,
  folder: string,
  limits: LinkOptions,
  tags: readonly string[],
): Promise<LinkedRegistry> {
  const files = new Map<string, StoredFile>();
  for (const tag of tags) {
    const tagFolder = join(folder, tag);
    await mkdir(tagFolder, { recursive: true });
    for (const [name, file] of await copyImage(`http://${from}/v2/charon`, tag, tagFolder)) files.set(name, file);
  }
  const { key, cert } = makeCertificate(folder);
  const serverLink = link(limits);
  const server = createServer({ key, cert }, (request, response) => {
    // If an engine closes the connection, it reports the reason itself.
    answer(files, serverLink, request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    address: `127.0.0.1:${String(port)}`,
    stop: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** @returns the image's manifest and blobs, keyed by the end of their path: the tag, or a digest */
async function copyImage(repository: string, tag: string, folder: string): Promise<ReadonlyMap<string, StoredFile>> {
  const { bytes, mediaType, blobs } = await fetchManifest(repository, tag);
  const manifest = { path: join(folder, 'manifest'), size: bytes.length, mediaType };
  await writeFile(manifest.path, bytes);
  const files = new Map<string, StoredFile>([[tag, manifest]]).set(digestOf(bytes), manifest);
  for (const { digest, size } of blobs) {
    const path = await fetchBlob(repository, digest, folder);
    files.set(digest, { path, size, mediaType: 'application/octet-stream' });
  }
  return files;
}

/**
 * Returns the manifest of a tag and its blobs, the config first.
 * @param repository address, `http://HOST/v2/NAME`
 */
export async function fetchManifest(
  repository: string,
  tag: string,
): Promise<{ readonly bytes: Buffer; readonly mediaType: string; readonly blobs: readonly Descriptor[] }> {
  const accept = [mediaTypes.manifest, 'application/vnd.docker.distribution.manifest.v2+json'].join(', ');
  const response = await fetch(`${repository}/manifests/${tag}`, { headers: { accept } });
  const bytes = Buffer.from(await response.arrayBuffer());
  const { config, layers } = parseManifest(bytes, repository);
  return { bytes, mediaType: response.headers.get('content-type') ?? '', blobs: [config, ...layers] };
}

/** Downloads a blob into a file of the folder, named by its digest. Returns the path. */
export async function fetchBlob(repository: string, digest: Digest, folder: string): Promise<string> {
  const path = join(folder, hexOf(digest));
  const { body, ok, status } = await fetch(`${repository}/blobs/${digest}`);
  if (body === null || !ok) throw new Error(`${repository} has no ${digest} (status ${String(status)})`);
  await pipeline(Readable.fromWeb(body), createWriteStream(path));
  return path;
}

async function answer(
  files: ReadonlyMap<string, StoredFile>,
  serverLink: Link,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  await serverLink.latency();
  const name = request.url?.split('/').at(-1) ?? '';
  const file = files.get(name);
  if (file === undefined) {
    response.writeHead(name === '' ? 200 : 404, { 'content-length': 0 }).end();
    return;
  }
  response.writeHead(200, { 'content-type': file.mediaType, 'content-length': file.size });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  const chunks: AsyncIterable<Buffer> = createReadStream(file.path, { highWaterMark: readBytes });
  await pipeline(paced(chunks, serverLink, request.socket), response);
}

async function* paced(chunks: AsyncIterable<Buffer>, serverLink: Link, connection: object): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    for (const portion of portions(chunk, serverLink.limited)) {
      await serverLink.pass(connection, portion.length);
      yield portion;
    }
  }
}
