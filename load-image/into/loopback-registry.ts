import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type LentChunk, type LentChunks, streamableChunks, watchedChunks } from '../../shared/bytes/chunks.ts';
import type { PullWatch } from '../../shared/docker/engine.ts';
import { layerBytes, type LocatedLayer, type RangedImage } from '../../shared/handed-over/identity.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';
import type { ImageStore } from '../../shared/image/image-store.ts';
import { contentsOf, formatManifest, layerMediaType, mediaTypes } from '../../shared/image/manifest.ts';
import { gunzippedLayer, type PlainLayer, plainLayerChunks } from './gunzipped-layer.ts';

// A registry with one image, for the engine that pulls it. It serves the manifest, the config, and one layer after another.

/** A blob that the registry serves. */
interface OfferedBlob {
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
  chunks(): LentChunks;
}

/** An image as separate blobs: its manifest, config and layers. */
export interface OfferedImage {
  readonly manifestDigest: Digest;
  readonly blobs: ReadonlyMap<Digest, OfferedBlob>;
}

/** A registry with one image, in this process, on the loopback interface. */
export interface LoopbackRegistry extends PullWatch, AsyncDisposable {
  /** The image's reference, with its digest. */
  readonly reference: string;
}

/**
 * Serves the part of the OCI distribution spec that a pull by digest needs (sections "Pulling manifests" and "Pulling blobs"). Engines
 * accept plain HTTP from the loopback interface (dockerd, "insecure registries"). Without the random repository name, nothing can be read.
 * Users who can list this machine's processes can see the name there.
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
    // Clients request only one other path, to check that this is a registry.
    response.writeHead(request.url === '/v2/' ? 200 : 404, { 'content-length': 0 }).end();
    return;
  }
  response.writeHead(200, { 'content-type': blob.mediaType, 'content-length': blob.size });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  // The headers are sent now, because the first byte may arrive much later.
  response.flushHeaders();
  // A closed connection is not an error here: the client requests the blob again, or its command fails with the reason.
  await pipeline(streamableChunks(watchedChunks(blob.chunks(), onFailure)), response).catch(() => undefined);
}

export interface LayerWatch {
  /** Called when the engine requests a layer, possibly again. */
  readonly onAsked: (digest: Digest) => void;
  /** Called with the number of bytes of each part that has arrived. */
  readonly onBytes: (bytes: number) => void;
}

/** An image for the registry. */
export interface Offer extends OfferedImage {
  /** Digests of the layers that are offered unpacked. */
  readonly unpacked: ReadonlySet<Digest>;
}

/**
 * Prepares an image for the registry. The engine verifies each blob against the digest in its request. For the classic store, large
 * gzip layers are offered unpacked (docs/decisions/0006-gzip-layers-reach-the-classic-store-unpacked.md). A containerd store needs the
 * layers that the manifest lists.
 * @throws HandoverError `transfer-failed`, `artifact-expired`
 */
export async function offerImage(ranged: RangedImage, store: ImageStore, watch: LayerWatch): Promise<Offer> {
  const { contents, layers } = ranged;
  const { configDigest, configBytes, config } = contents;
  const plain = store.keepsBlobs ? new Map<Digest, PlainLayer>() : await plainLayers(ranged);
  const described = layers.map((layer) => offeredAs(layer, plain));
  // A different manifest with the same config is the same image in the classic store.
  const descriptor = { digest: configDigest, size: configBytes.length };
  const { manifestDigest, manifestBytes, manifestMediaType } =
    plain.size === 0 ? contents : contentsOf(configBytes, config, formatManifest(descriptor, described));
  const blobs = new Map([
    [configDigest, smallBlob(configBytes, mediaTypes.config)],
    [manifestDigest, smallBlob(manifestBytes, manifestMediaType)],
    ...layerBlobs(ranged, plain, watch),
  ]);
  return { manifestDigest, blobs, unpacked: new Set(plain.keys()) };
}

/** Returns an image's layers without duplicates. */
export function distinctLayers({ layers }: RangedImage): readonly LocatedLayer[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
}

/** Returns the layers to offer unpacked, by their digest in the manifest. */
async function plainLayers({ contents, layers, read }: RangedImage): Promise<ReadonlyMap<Digest, PlainLayer>> {
  const { diffIds } = contents.config;
  const found = await Promise.all(
    layers.map(async (layer, position) => {
      const diffId = diffIds[position];
      const plain = diffId === undefined ? undefined : await gunzippedLayer(layer, diffId, read);
      return plain === undefined ? [] : [[layer.digest, plain] as const];
    }),
  );
  return new Map(found.flat());
}

function layerBlobs(
  image: RangedImage,
  plain: ReadonlyMap<Digest, PlainLayer>,
  watch: LayerWatch,
): readonly (readonly [Digest, OfferedBlob])[] {
  const turns = new LayerTurns();
  return distinctLayers(image).map((layer, position) => {
    const { digest, size, mediaType } = offeredAs(layer, plain);
    const bytes = (): LentChunks => {
      const stored = layerBytes(layer, image.read, watch.onBytes);
      return plain.has(layer.digest) ? plainLayerChunks(stored, size) : stored;
    };
    const chunks = (): LentChunks => {
      watch.onAsked(layer.digest);
      return turns.pass(position, bytes);
    };
    return [digest, { size, mediaType, chunks }] as const;
  });
}

function offeredAs(
  layer: LocatedLayer,
  plain: ReadonlyMap<Digest, PlainLayer>,
): Pick<LocatedLayer, 'digest' | 'size' | 'mediaType'> {
  const unpacked = plain.get(layer.digest);
  return unpacked === undefined ? layer : { ...unpacked, mediaType: layerMediaType('uncompressed') };
}

function smallBlob(bytes: Buffer, mediaType: string): OfferedBlob {
  return { size: bytes.length, mediaType, chunks: () => Readable.from([bytes]) };
}

// An engine requests all layers within about 20 ms, in any order.
const graceMs = 100;

interface Waiting {
  readonly position: number;
  readonly start: () => void;
}

/**
 * Sends layers one at a time, the lowest first, because the engine unpacks them in that order. A layer waits only briefly for lower layers
 * that haven't been requested, because the engine may already have them.
 * @internal
 */
export class LayerTurns {
  readonly #asked = new Set<number>();
  readonly #waiting: Waiting[] = [];
  #taken = false;
  #isGraceOver = false;

  /** Yields the chunks when it is this layer's turn. */
  async *pass<Chunk extends LentChunk>(position: number, chunks: () => AsyncIterable<Chunk>): AsyncGenerator<Chunk> {
    if (this.#asked.size === 0)
      setTimeout(() => {
        this.#isGraceOver = true;
        this.#next();
      }, graceMs);
    this.#asked.add(position);
    await new Promise<void>((start) => {
      this.#waiting.push({ position, start });
      this.#next();
    });
    try {
      yield* chunks();
    } finally {
      this.#taken = false;
      this.#next();
    }
  }

  #next(): void {
    const [lowest] = this.#waiting.sort((one, other) => one.position - other.position);
    if (this.#taken || lowest === undefined) return;
    const lower = [...this.#asked].filter((asked) => asked < lowest.position);
    if (!this.#isGraceOver && lower.length < lowest.position) return;
    this.#waiting.shift();
    this.#taken = true;
    lowest.start();
  }
}
