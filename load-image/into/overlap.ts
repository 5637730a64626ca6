import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo } from '../../shared/docker/output.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { formatBytes } from '../../shared/base/text.ts';
import type { LentChunk } from '../../shared/bytes/chunks.ts';
import { blobName, type Digest } from '../../shared/image/digest.ts';
import { layerBytes, type LocatedLayer, type RangedImage } from '../../shared/handed-over/ranged-image.ts';
import { parseTaggedReference } from '../../shared/image/reference.ts';
import { endOfArchive, tarHeader, tarPadding } from '../../shared/tar/header.ts';
import { smallEntries, smallEntry } from '../../shared/tar/tarball-writer.ts';
import { loopbackRegistry } from './loopback-registry.ts';
import { offerImage } from './offer.ts';

// The overlapped load. `docker load` takes a whole tarball first, and unpacks it then: downloading and unpacking come one after the
// other, and layers that the engine has are moved all the same. `docker pull` does better: it asks for the layers that the engine
// lacks, and unpacks one while others are on their way. So for the time of a load this step is a registry, on the loopback
// interface, with one image under a random name (loopback-registry.ts). The engine pulls it from there by its digest, and each
// layer that is asked for is read from the artifact by its byte range (offer.ts). What comes out has no name yet but that
// random one; who it is, and what it is to be called, is for others to say.

/** What to call an image until it has its own name. */
interface Names {
  readonly repository: string;
  readonly loopbackName: string;
  /** Has a name taken away at the end. */
  add(name: string): void;
}

interface Tools {
  readonly engine: Engine;
  readonly log: Log;
  readonly info: EngineInfo;
}

/** What is fetched, and who wants to know how it goes. */
export interface FetchRequest {
  readonly image: RangedImage;
  readonly names: Names;
  /** What the log calls it when bytes pass: `Downloaded`. */
  readonly word: string;
  /** Of each part that was downloaded, in bytes. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Lets the engine fetch an image from this step.
 * @returns what the engine knows it by, one of the names; undefined when that can't be done: then the tarball has to be loaded as a whole
 * @throws HandoverError `transfer-failed`, `artifact-expired`, `artifact-corrupt`, when the artifact can't be read
 */
export async function fetchOverlapped(tools: Tools, request: FetchRequest): Promise<string | undefined> {
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
    log.info(`${error.message} So docker load gets the whole tarball.`);
    return undefined;
  }
}

async function fetchImage(
  { engine, log, info }: Tools,
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
  // A containerd store doesn't fetch a layer that it has unpacked for another manifest, and then lacks it for this one
  // (field-notes M19): it is given those that it didn't ask for.
  if (skipped.length > 0 && info.imageStore.keepsBlobs && (await engine.inspect(name))?.isWhole !== true) {
    log.info('The engine has those layers in another form than this image: it gets them all the same.');
    name = `${names.repository}:${offered.manifestDigest.slice('sha256:'.length, 19)}`;
    names.add(name);
    await engine.load(completing(image, skipped, name, onBytes), () => undefined);
  }
  return name;
}

/** A tarball that completes an image whose other layers the engine has. */
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
    log.info(
      `Unpacked on their way to the engine: ${String(unpacked)} of the ${String(asked)} layers that it fetched.`,
    );
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
