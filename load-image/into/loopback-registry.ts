import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { type LentChunks, streamableChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';

/** A blob that can be asked for. */
export interface OfferedBlob {
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
  chunks(): LentChunks;
}

/** An image whose manifest, config and layers can be asked for one by one. */
export interface OfferedImage {
  readonly manifestDigest: Digest;
  readonly blobs: ReadonlyMap<Digest, OfferedBlob>;
}

/** A registry with one image, in this process, on this machine's loopback interface. */
export interface LoopbackRegistry extends AsyncDisposable {
  /** The image, by digest. */
  readonly reference: string;
  /** Settles when somebody has asked for the image. */
  readonly reached: Promise<void>;
  /** Settles with what went wrong when a blob's bytes couldn't be had. */
  readonly failed: Promise<unknown>;
}

/**
 * Serves the part of the OCI distribution spec that a pull by digest needs (sections "Pulling manifests" and "Pulling blobs"). Engines take
 * plain HTTP from the loopback interface (dockerd, "insecure registries"). Nobody who doesn't know the random repository
 * gets anything; whoever may see this machine's processes while they run can read it there.
 * @param name what the repository's name begins with
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
    // The one path beside the image's own that a client asks for: whether this is a registry.
    response.writeHead(request.url === '/v2/' ? 200 : 404, { 'content-length': 0 }).end();
    return;
  }
  response.writeHead(200, { 'content-type': blob.mediaType, 'content-length': blob.size });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  // It may be a while until the first byte.
  response.flushHeaders();
  // A client that goes away is no failure of ours: it comes again, or its command says why not.
  await pipeline(streamableChunks(watchedChunks(blob.chunks(), onFailure)), response).catch(() => undefined);
}
