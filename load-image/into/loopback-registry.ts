import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { type LentChunks, streamableChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';

/** A blob that the registry serves. */
export interface OfferedBlob {
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
  chunks(): LentChunks;
}

/** An image whose manifest, config and layers are served one by one. */
export interface OfferedImage {
  readonly manifestDigest: Digest;
  readonly blobs: ReadonlyMap<Digest, OfferedBlob>;
}

/** A registry with one image, in this process, on the loopback interface. */
export interface LoopbackRegistry extends AsyncDisposable {
  /** The image's reference, with its digest. */
  readonly reference: string;
  /** Settles at the first request for the image. */
  readonly reached: Promise<void>;
  /** Settles with the error when a blob can't be read. */
  readonly failed: Promise<unknown>;
}

/**
 * Serves the part of the OCI distribution spec that a pull by digest needs (sections "Pulling manifests" and "Pulling blobs"). Engines accept
 * plain HTTP from the loopback interface (dockerd, "insecure registries"). The random repository name is needed to read anything.
 * Users that can list this machine's processes can see it there.
 * @param name the start of the repository's name
 */
export async function loopbackRegistry(image: OfferedImage, name: string): Promise<LoopbackRegistry> {
  const repository = `${name}-${randomBytes(16).toString('hex')}`;
  const reached = Promise.withResolvers<undefined>();
  const failed = Promise.withResolvers<unknown>();
  const server = createServer((request, response) => {
    const blob = findBlob(image, repository, request.url ?? '');
    if (blob !== undefined) reached.resolve(undefined);
    void answer(request, response, blob, failed.resolve);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    reference: `127.0.0.1:${String(port)}/${repository}@${image.manifestDigest}`,
    reached: reached.promise,
    failed: failed.promise,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function findBlob(image: OfferedImage, repository: string, path: string): OfferedBlob | undefined {
  const [, name, text] = /^\/v2\/([^/]+)\/(?:manifests|blobs)\/([^/?]+)$/.exec(path) ?? [];
  const digest = name === repository ? parseDigest(text ?? '') : undefined;
  return digest === undefined ? undefined : image.blobs.get(digest);
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  blob: OfferedBlob | undefined,
  onFailure: (error: unknown) => void,
): Promise<void> {
  if (blob === undefined) {
    // The only other path that clients request shows that this is a registry.
    response.writeHead(request.url === '/v2/' ? 200 : 404, { 'content-length': 0 }).end();
    return;
  }
  response.writeHead(200, { 'content-type': blob.mediaType, 'content-length': blob.size });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  // The first byte may arrive much later.
  response.flushHeaders();
  // A closed connection is no error here: the client requests the blob again, or its command fails with the reason.
  await pipeline(streamableChunks(watchedChunks(blob.chunks(), onFailure)), response).catch(() => undefined);
}
