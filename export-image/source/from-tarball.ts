import { stat } from 'node:fs/promises';
import { newTarball, type OpenedTarball, type UnsealedRecord } from '../upload.ts';
import type { TarballPlan } from '../plan/plan.ts';
import { HandoverError, invalidInput, invalidTarball, messageOf } from '../../shared/base/errors.ts';
import { fileChunks, fileHead, transientFileChunks } from '../../shared/bytes/files.ts';
import { contentsOf } from '../../shared/image/manifest.ts';
import { formatPlatform, samePlatform } from '../../shared/image/platform.ts';
import type { TarballCompression } from '../../shared/image/record.ts';
import type { Reference, TaggedReference } from '../../shared/image/reference.ts';
import { readNamedImage } from '../../shared/layout/read-layout.ts';
import type { ArrivingLayer } from '../../shared/tar/tarball-writer.ts';
import { compressionOf, decompress, magicBytes } from '../../shared/tar/compression.ts';
import {
  chooseImage,
  imagesIn,
  manifestDigestsOf,
  type TarballImage,
  type TarballImages,
} from '../../shared/tar/tarball-images.ts';
import { readTarball, SeenTarball, seeTarball, type SeenEntry } from '../../shared/tar/tarball-reader.ts';
import { layoutBlobs } from '../../shared/layout/arriving-layers.ts';

const chunkBytes = 256 * 1024;

/**
 * Checks a complete tarball: each layer, and whether an engine can load it. A Docker archive (`docker save` or another tool) is handed over
 * unchanged. From an OCI archive, the image for the plan's platform becomes a new tarball, because the classic store can't load the
 * archive.
 * @throws HandoverError `tarball-invalid`, `image-not-found`, `platform-mismatch`
 */
export async function openSourceTarball(plan: TarballPlan): Promise<OpenedTarball> {
  const { path } = plan.source;
  const size = await sizeOf(path);
  const head = fileHead(path, magicBytes).catch((error: unknown) => {
    throw invalid(`${path} can't be read: ${messageOf(error)}.`, error);
  });
  const compression = compressionOf(await head);
  const { kind, images } = await inspectFile(path, compression);
  const chosen = chooseImage(images, plan.reference, plan.platform);
  if (!samePlatform(chosen.config.platform, plan.platform)) {
    const there = formatPlatform(chosen.config.platform);
    throw new HandoverError(
      'platform-mismatch',
      `${path} contains an image for ${there}; \`platform\` is ${formatPlatform(plan.platform)}.`,
      `Set \`platform: ${there}\`, or use the tarball for the other platform.`,
    );
  }
  const references = [...chooseReferences(path, plan.reference, chosen.references), ...plan.tags];
  const [manifest] = chosen.manifests;
  if (kind !== 'oci' || manifest === undefined) {
    const record = recordOf(compression, chosen, references);
    return { size, chunks: transientFileChunks(path), unsealed: () => Promise.resolve({ record }) };
  }
  const image = { image: contentsOf(chosen.configBytes, chosen.config, manifest), references };
  return newTarball(layersOf(path, compression, chosen.layers), { images: [image] });
}

function recordOf(
  compression: TarballCompression,
  image: TarballImage,
  references: readonly TaggedReference[],
): UnsealedRecord {
  const { config, configDigest, layers } = image;
  const { platform, diffIds, labels, created } = config;
  const manifestDigests = manifestDigestsOf(image);
  const facts = {
    ...{ references, platform, configDigest, manifestDigests, diffIds, labels, created },
    tarballCompression: compression,
  };
  const blobs = layers.map(({ digest, size }) => ({ digest, size, mediaType: '' }));
  // A compressed tarball has no offsets to record.
  if (compression !== 'none') return { ...facts, layers: blobs };
  const [manifest] = image.manifests;
  return {
    ...facts,
    layers: layers.map(({ digest, size, offset }) => ({ digest, size, mediaType: '', offset })),
    configAt: { offset: image.configOffset, size: image.configBytes.length },
    manifestAt: manifest && { offset: manifest.offset, size: manifest.bytes.length },
  };
}

// Reads the layers from the file a second time.
async function* layersOf(
  path: string,
  compression: TarballCompression,
  layers: readonly SeenEntry[],
): AsyncGenerator<ArrivingLayer> {
  const seen = new SeenTarball();
  const wanted = new Map(layers.map((layer) => [layer.offset, layer.digest]));
  for await (const entry of readTarball(decompress(fileChunks(path, chunkBytes), compression), seen)) {
    const digest = wanted.get(entry.offset);
    if (digest !== undefined) yield { digest, size: entry.size, chunks: () => entry.chunks };
  }
  const changed = layers.find(({ digest }) => seen.blob(digest) === undefined);
  if (changed !== undefined)
    throw invalid(`${path} changed during the export: ${changed.path} has different bytes now.`);
}

/** Returns the wanted reference if there is one, otherwise the image's references in its file or folder. */
function chooseReferences(
  path: string,
  wanted: TaggedReference | undefined,
  found: readonly Reference[],
): readonly TaggedReference[] {
  if (wanted !== undefined) return [wanted];
  const own = found.flatMap(({ tag, ...rest }) => (tag === undefined ? [] : [{ ...rest, tag }]));
  if (own.length > 0) return own;
  throw invalidInput(
    `The image in ${path} has no reference.`,
    'Set `image` to a reference for it, such as charon:local.',
  );
}

async function inspectFile(path: string, compression: TarballCompression): Promise<TarballImages> {
  try {
    return imagesIn(await seeTarball(decompress(fileChunks(path, chunkBytes), compression)));
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    throw invalid(`${path} can't be read as a ${compression} tarball: ${messageOf(error)}.`, error);
  }
}

async function sizeOf(path: string): Promise<number> {
  const found = await stat(path).catch((error: unknown) => {
    throw invalid(`There is no tarball at ${path}: ${messageOf(error)}.`, error);
  });
  if (!found.isFile()) throw invalid(`${path} is not a file.`);
  if (found.size === 0) throw invalid(`${path} is empty.`);
  return found.size;
}

function invalid(message: string, cause?: unknown): HandoverError {
  return invalidTarball(
    message,
    'Set `source-tarball` to a file that docker save wrote, or to an OCI archive, plain or compressed with gzip or zstd.',
    cause,
  );
}

/**
 * Opens an OCI layout that another step wrote, such as docker/build-push-action. Its image becomes a tarball that every engine can load.
 * Each blob is verified while it is read.
 * @throws HandoverError `tarball-invalid`, `image-not-found`, `platform-mismatch`
 */
export async function openSourceLayout(plan: TarballPlan): Promise<OpenedTarball> {
  const { source, platform, reference, tags } = plan;
  const { path } = source;
  const { image, references, attestations } = await readNamedImage(path, platform, reference).catch(
    (error: unknown) => {
      if (!(error instanceof HandoverError) || error.code !== 'tarball-invalid') throw error;
      throw invalidTarball(
        `The OCI layout in ${path} can't be handed over: ${error.message}`,
        'Set `source-layout` to the folder of `outputs: type=oci,tar=false,dest=FOLDER`. A file is a `source-tarball`.',
        error,
      );
    },
  );
  const named = { image, references: [...chooseReferences(path, reference, references), ...tags] };
  return newTarball(layoutBlobs(path, image.layers), { images: [named], attestations });
}
