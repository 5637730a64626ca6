import type { EngineTags } from '../../shared/docker/engine-tags.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { formatBytes } from '../../shared/base/text.ts';
import type { LentChunk } from '../../shared/bytes/chunks.ts';
import { blobName, type Digest } from '../../shared/image/digest.ts';
import { layerBytes, type LocatedLayer, type RangedImage } from '../../shared/handed-over/identity.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { tarballEnd, tarEntry } from '../../shared/tar/tarball-writer.ts';
import { distinctLayers, loopbackRegistry, type Offer, offerImage } from './loopback-registry.ts';
import type { HolderTools } from './prove.ts';

// The overlapped load. `docker load` reads a whole tarball before it unpacks anything, including layers that the engine already has.
// `docker pull` requests only the missing layers, and unpacks one while it downloads others. So during a load, this step is a registry on
// the loopback interface, with one image under a random name (loopback-registry.ts). The engine pulls that image by its digest. Each
// requested layer is read from the artifact by its byte range (identity.ts). The caller verifies the image and sets its references.

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
 * @returns the image's temporary tag; undefined if the engine can't pull the image, so the whole tarball must be loaded
 * @throws HandoverError `transfer-failed`, `artifact-expired`, `artifact-corrupt`, if the artifact can't be read
 */
export async function fetchOverlapped(
  { engine, log, info }: HolderTools,
  { image, names, word, onBytes }: FetchRequest,
): Promise<string | undefined> {
  const { pull } = engine;
  if (pull === undefined) return undefined;
  try {
    return await log.progress(word, { atMost: bytesOf(distinctLayers(image)) }, async (passed) => {
      const asked = new Set<Digest>();
      const watch = {
        onAsked: (digest: Digest) => void asked.add(digest),
        onBytes: (bytes: number) => {
          onBytes(bytes);
          passed(bytes);
        },
      };
      const offer = await offerImage(image, info.imageStore, watch);
      const pulled = await pullOffered(pull, offer, names);
      const skipped = tellLayers(log, image, offer, asked);
      // A containerd store doesn't request a layer that it has unpacked for another manifest, and then lacks it for this one. So the layers
      // that it didn't request are sent anyway.
      const isWhole = skipped.length === 0 || !info.imageStore.keepsBlobs || (await engine.inspect(pulled))?.isWhole;
      if (isWhole === true) return pulled;
      log.info('The engine stores these layers in a different form; sending them anyway.');
      const name = `${names.repository}:${offer.manifestDigest.slice('sha256:'.length, 19)}`;
      names.add(name);
      await engine.load(completing(image, skipped, name, watch.onBytes));
      return name;
    });
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'load-failed') throw error;
    log.info(`${error.message} Sending the whole tarball to docker load.`);
    return undefined;
  }
}

/** Returns the temporary tag of the pulled image. */
async function pullOffered(
  pull: NonNullable<HolderTools['engine']['pull']>,
  offer: Offer,
  names: EngineTags,
): Promise<string> {
  await using registry = await loopbackRegistry(offer, names.loopbackName);
  names.add(registry.reference);
  await pull(registry.reference, registry);
  return registry.reference;
}

/** Yields a tarball with these layers, for an engine that has the image's other layers. */
async function* completing(
  { contents, read }: RangedImage,
  layers: readonly LocatedLayer[],
  name: string,
  onBytes: (bytes: number) => void,
): AsyncGenerator<LentChunk> {
  for (const layer of layers) {
    yield* tarEntry(blobName(layer.digest), layer.size, layerBytes(layer, read, onBytes));
  }
  yield* tarballEnd([{ image: contents, references: [parseTaggedReference(name)] }]);
}

/** Logs and returns the layers that the engine didn't request. */
function tellLayers(
  log: Log,
  image: RangedImage,
  { unpacked }: Offer,
  asked: ReadonlySet<Digest>,
): readonly LocatedLayer[] {
  const layers = distinctLayers(image);
  const skipped = layers.filter(({ digest }) => !asked.has(digest));
  const count = [...asked].filter((digest) => unpacked.has(digest)).length;
  if (count > 0) {
    log.info(`Unpacked for the engine: ${String(count)} of the ${String(asked.size)} layers that it requested.`);
  }
  if (skipped.length > 0) {
    log.info(
      `The engine already has ${String(skipped.length)} of ${String(layers.length)} layers: ` +
        `${formatBytes(bytesOf(skipped))} less to download.`,
    );
  }
  return skipped;
}

function bytesOf(layers: readonly LocatedLayer[]): number {
  return layers.reduce((sum, { size }) => sum + size, 0);
}
