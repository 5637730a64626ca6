import type { EngineTags } from '../../shared/docker/engine-tags.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { formatBytes } from '../../shared/base/text.ts';
import type { LentChunk } from '../../shared/bytes/chunks.ts';
import { blobName, type Digest } from '../../shared/image/digest.ts';
import { layerBytes, type LocatedLayer, type RangedImage } from '../../shared/handed-over/identity.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { endOfArchive, tarHeader, tarPadding } from '../../shared/tar/header.ts';
import { smallEntries, smallEntry } from '../../shared/tar/tarball-writer.ts';
import { loopbackRegistry, offerImage } from './loopback-registry.ts';
import type { HolderTools } from './prove.ts';

// The overlapped load. `docker load` reads a whole tarball before it unpacks anything, and also gets the layers that the engine has.
// `docker pull` requests only the missing layers, and unpacks one while it downloads others. So during a load this step is a registry on
// the loopback interface, with one image under a random name (loopback-registry.ts). The engine pulls that image by its digest. Each
// requested layer is read from the artifact by its byte range (identity.ts). The caller proves the image and sets its references.

/** The image to pull, and how to report its progress. */
export interface FetchRequest {
  readonly image: RangedImage;
  readonly names: EngineTags;
  /** The verb in the log: `Downloaded`. */
  readonly word: string;
  /** Called with the number of bytes of each part that has arrived. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Lets the engine pull an image from this step.
 * @returns the image's temporary tag; undefined when the engine can't pull it, so that the whole tarball has to be loaded
 * @throws HandoverError `transfer-failed`, `artifact-expired`, `artifact-corrupt`, when the artifact can't be read
 */
export async function fetchOverlapped(tools: HolderTools, request: FetchRequest): Promise<string | undefined> {
  const { engine, log } = tools;
  const { image, word } = request;
  if (engine.pull === undefined) return undefined;
  const layers = distinctLayers(image);
  try {
    return await log.progress(word, { atMost: bytesOf(layers) }, (passed) =>
      fetchImage(tools, request, (bytes) => {
        request.onBytes(bytes);
        passed(bytes);
      }),
    );
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'load-failed') throw error;
    log.info(`${error.message} Sending the whole tarball to docker load.`);
    return undefined;
  }
}

async function fetchImage(
  { engine, log, info }: HolderTools,
  { image, names }: FetchRequest,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const asked = new Set<Digest>();
  const { image: offered, unpacked } = await offerImage(image, info.imageStore, {
    onAsked: (digest) => void asked.add(digest),
    onBytes,
  });
  let name: string;
  {
    await using registry = await loopbackRegistry(offered, names.loopbackName);
    name = registry.reference;
    names.add(name);
    await engine.pull?.(name, registry);
  }
  const skipped = distinctLayers(image).filter(({ digest }) => !asked.has(digest));
  tellLayers(log, image, {
    skipped,
    unpacked: [...asked].filter((digest) => unpacked.has(digest)).length,
    asked: asked.size,
  });
  // A containerd store doesn't request a layer that it has unpacked for another manifest, and then lacks it for this one. It gets the
  // layers that it didn't request.
  if (skipped.length > 0 && info.imageStore.keepsBlobs && (await engine.inspect(name))?.isWhole !== true) {
    log.info('The engine stores these layers in a different form; sending them anyway.');
    name = `${names.repository}:${offered.manifestDigest.slice('sha256:'.length, 19)}`;
    names.add(name);
    await engine.load(completing(image, skipped, name, onBytes));
  }
  return name;
}

/** Yields a tarball that completes an image whose other layers the engine has. */
async function* completing(
  { contents, read }: RangedImage,
  layers: readonly LocatedLayer[],
  name: string,
  onBytes: (bytes: number) => void,
): AsyncGenerator<LentChunk> {
  for (const layer of layers) {
    yield tarHeader(blobName(layer.digest), layer.size);
    yield* layerBytes(layer, read, onBytes);
    yield Buffer.alloc(tarPadding(layer.size));
  }
  const named = smallEntries([{ image: contents, references: [parseTaggedReference(name)] }]);
  for (const [path, bytes] of named) yield smallEntry(path, bytes);
  yield endOfArchive;
}

interface Fetch {
  readonly skipped: readonly LocatedLayer[];
  readonly unpacked: number;
  readonly asked: number;
}

function tellLayers(log: Log, image: RangedImage, { skipped, unpacked, asked }: Fetch): void {
  if (unpacked > 0) {
    log.info(`Unpacked for the engine: ${String(unpacked)} of the ${String(asked)} layers that it requested.`);
  }
  if (skipped.length === 0) return;
  log.info(
    `The engine has ${String(skipped.length)} of ${String(distinctLayers(image).length)} layers already: ` +
      `${formatBytes(bytesOf(skipped))} less to download.`,
  );
}

function distinctLayers({ layers }: RangedImage): readonly LocatedLayer[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
}

function bytesOf(layers: readonly LocatedLayer[]): number {
  return layers.reduce((sum, { size }) => sum + size, 0);
}
