import { createHash } from 'node:crypto';
import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { asError, HandoverError, messageOf } from '../shared/base/errors.ts';
import { type LentChunk, type LentChunks, watchedChunks, withHead } from '../shared/bytes/chunks.ts';
import { formatManifest, type ImageContents, layerMediaType } from '../shared/image/manifest.ts';
import type { Digest } from '../shared/image/digest.ts';
import type { Platform } from '../shared/image/platform.ts';
import { corrupt, type HandoverRecord, imagesOf } from '../shared/image/record.ts';
import {
  canonicalReference,
  formatReference,
  parseTaggedReference,
  type Reference,
} from '../shared/image/reference.ts';
import { compressionOf, decompress, magicBytes } from '../shared/tar/compression.ts';
import { endOfArchive, tarHeader, tarPadding } from '../shared/tar/header.ts';
import {
  chooseImage,
  contentsOf,
  imagesIn,
  type TarballImage,
  type TarballManifest,
} from '../shared/tar/tarball-images.ts';
import { type PassingEntry, readTarball, SeenTarball } from '../shared/tar/tarball-reader.ts';
import { smallEntries, smallEntry } from '../shared/tar/tarball-writer.ts';
import { type Identity, type KnownImage, requireRecorded } from '../shared/handed-over/identity.ts';
import { chooseTarball, fallbackReference } from './plan/plan.ts';

// The whole tarball of an artifact on its way to the engine, whoever made it: ours, a Docker archive of any tool and age, or
// an OCI archive, plain or compressed. Its layers pass, and each is checked against the digest in its name; what names the
// images is not passed on, but written anew, at the end. So the classic store loads OCI archives too, of several platforms one
// is loaded, and nothing in the artifact decides what anything in the engine is called.

/** An image that has passed. */
export interface PassedImage {
  readonly identity: Identity;
  /** What it is called in the tarball that was made for the engine. */
  readonly loadedAs: string;
  /** What it is to be called in the end. */
  readonly references: readonly Reference[];
  /** What it consists of; with a manifest of ours where it has none. */
  readonly contents: ImageContents;
}

/** A tarball on its way from the artifact to the engine. */
export interface PassingTarball {
  readonly chunks: LentChunks;
  /** Its images, the one that is meant first; known once all of `chunks` has been taken. */
  images(): readonly PassedImage[];
}

export interface TarballRequest {
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
  /** The images, where they are known already: then the tarball has to hold these very ones. */
  readonly known?: readonly KnownImage[] | undefined;
  /** The reference asked for: then the artifact's image, or of several the one that is called so, gets this one alone. */
  readonly reference: Reference | undefined;
  /** The engine's: which one of several platforms to take. */
  readonly platform: Platform;
  /** What to call the images: a repository of ours, without a tag. */
  readonly repository: string;
  /** Sees the file's bytes as they are in the artifact. */
  readonly tee: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
  /** Sees each layer as it is in the tarball. */
  readonly teeLayer?: ((chunks: LentChunks) => LentChunks) | undefined;
  /** Whether only images will do whose manifest names their layers as they lie in the tarball. */
  readonly needsManifest?: boolean;
}

/** An image of the tarball, and what it is to be called. */
interface ChosenImage {
  readonly image: TarballImage;
  /** Undefined where the tarball has none: it gets one of ours. */
  readonly manifest: TarballManifest | undefined;
  readonly references: readonly Reference[];
}

/**
 * @param onBytes told of each part that has come, in bytes
 * @throws HandoverError `artifact-corrupt`, `tarball-invalid`, `image-not-found`, `platform-mismatch` while iterating; what
 *   names the images is given out only when all is well
 */
export function wholeTarball(request: TarballRequest, onBytes: (bytes: number) => void): PassingTarball {
  const { content, record } = request;
  const tee = request.tee ?? ((chunks: AsyncIterable<Buffer>) => chunks);
  const names = content.files.map(({ name }) => name);
  const name = record?.tarballName ?? chooseTarball(content.artifact.name, names);
  const bytes = content.read(name, onBytes);
  const checked = record === undefined ? bytes : asRecorded(bytes, record, content.artifact.digest === undefined);
  let passed: readonly PassedImage[] = [];
  const all = rewritten(plainTarball(tee(checked), name), request, (images) => (passed = images));
  const chunks = record === undefined ? all : asHandedOver(all);
  return { chunks, images: () => passed };
}

/** What is wrong with a tarball that a record tells of went wrong with the artifact. */
async function* asHandedOver(chunks: LentChunks): AsyncGenerator<LentChunk> {
  try {
    yield* chunks;
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'tarball-invalid') throw error;
    throw new HandoverError('artifact-corrupt', error.message, 'Run the job that exports the image again.', error);
  }
}

/** The plain tarball, whatever its compression. */
async function* plainTarball(chunks: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  let broken: unknown;
  const source = watchedChunks(chunks, (error) => (broken = error));
  const { head, all } = await withHead(source, (bytes) => bytes.length >= magicBytes);
  if (head.length === 0) throw invalid(`${name} in the artifact is empty.`);
  const compression = compressionOf(head);
  if (compression === 'none') {
    yield* all;
    return;
  }
  try {
    yield* decompress(all, compression);
  } catch (error) {
    if (broken !== undefined) throw asError(broken);
    throw invalid(`${name} in the artifact is damaged ${compression} data: ${messageOf(error)}.`, error);
  }
}

/** Checks size, and where the artifact service gave no digest also the digest, against the record. */
async function* asRecorded(
  chunks: AsyncIterable<Buffer>,
  record: HandoverRecord,
  withDigest: boolean,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of chunks) {
    if (withDigest) hash.update(chunk);
    size += chunk.length;
    yield chunk;
  }
  const digest = withDigest ? `sha256:${hash.digest('hex')}` : record.tarballDigest;
  if (size === record.tarballSize && digest === record.tarballDigest) return;
  throw new HandoverError(
    'artifact-corrupt',
    `The tarball has ${String(size)} bytes with digest ${digest}; the record says ${String(record.tarballSize)} bytes ` +
      `with digest ${record.tarballDigest}.`,
    'Run the job that exports the image again.',
  );
}

async function* rewritten(
  plain: AsyncIterable<Buffer>,
  request: TarballRequest,
  told: (images: readonly PassedImage[]) => void,
): AsyncGenerator<LentChunk> {
  const seen = new SeenTarball();
  const { teeLayer = (chunks: LentChunks) => chunks } = request;
  for await (const entry of readTarball(plain, seen)) yield* wholeEntry(entry, teeLayer);
  const { images } = imagesIn(seen);
  const chosen =
    request.record === undefined
      ? chooseImages(images, request)
      : recordedImages(images, { ...request, record: request.record });
  if (request.needsManifest === true && chosen.some(({ manifest }) => manifest === undefined)) throw noManifest();
  requireOwnNames(chosen);
  const { passed, entries } = closing(chosen, request.repository);
  told(passed);
  for (const [name, bytes] of entries) yield smallEntry(name, bytes);
  yield endOfArchive;
}

async function* wholeEntry(
  { name, size, chunks }: PassingEntry,
  teeLayer: (chunks: LentChunks) => LentChunks,
): AsyncGenerator<LentChunk> {
  yield tarHeader(name, size);
  yield* teeLayer(chunks);
  yield Buffer.alloc(tarPadding(size));
}

/** Without a wish all images that have a name, else the one that is meant. */
function chooseImages(
  images: readonly TarballImage[],
  { reference, platform }: TarballRequest,
): readonly ChosenImage[] {
  if (reference !== undefined) return [chosenAs(chooseImage(images, reference, platform), [reference])];
  if (!images.every(({ references }) => references.length > 0))
    return [ownNames(chooseImage(images, undefined, platform))];
  const firsts = images.flatMap((image) => image.references.slice(0, 1));
  const distinct = new Map(firsts.map((first) => [formatReference(first), first]));
  return [...distinct.values()].map((first) => ownNames(chooseImage(images, first, platform)));
}

function ownNames(image: TarballImage): ChosenImage {
  const own = image.references.filter(({ tag }) => tag !== undefined);
  return chosenAs(image, own.length > 0 ? own : [fallbackReference]);
}

function chosenAs(image: TarballImage, references: readonly Reference[]): ChosenImage {
  const [manifest] = image.manifests;
  return { image, manifest, references };
}

/** The images that the record names, which have to be what it says of them, and what is known of them. */
function recordedImages(
  images: readonly TarballImage[],
  { record, known, reference }: TarballRequest & { readonly record: HandoverRecord },
): readonly ChosenImage[] {
  const identities = known === undefined ? [] : chooseRecorded(known, reference).map(({ chosen }) => chosen.identity);
  return chooseRecorded(imagesOf(record), reference).map(({ chosen, references }, position) => {
    const image = images.find(({ configDigest }) => configDigest === chosen.configDigest);
    if (image === undefined) {
      const there = images.map(({ configDigest }) => configDigest).join(', ');
      throw corrupt(`its config digest (${chosen.configDigest}) is not that of an image in the tarball (${there})`);
    }
    const manifest = wantedManifest(image, identities[position]?.manifestDigest, chosen.manifestDigests);
    const { configDigest, config } = image;
    requireRecorded(chosen, { ...config, configDigest, manifestDigest: manifest?.digest }, manifest?.layers);
    return { image, manifest, references };
  });
}

/**
 * @param known the digest of the manifest that was read by its place
 * @param recorded the digests that the record allows; empty when it names none
 * @throws HandoverError `artifact-corrupt` when the tarball has no such manifest
 */
function wantedManifest(
  { manifests }: TarballImage,
  known: Digest | undefined,
  recorded: readonly Digest[],
): TarballManifest | undefined {
  const wanted = known === undefined ? recorded : [known];
  const manifest = wanted.length === 0 ? manifests[0] : manifests.find(({ digest }) => wanted.includes(digest));
  if (manifest !== undefined || wanted.length === 0) return manifest;
  const there = manifests.map(({ digest }) => digest).join(', ') || 'none';
  throw corrupt(`its manifest digest (${wanted.join(', ')}) is not that of the image in the tarball (${there})`);
}

/**
 * All images of an artifact under their own names; when a reference is asked for, the one that is called so, else the first,
 * under this name alone.
 */
export function chooseRecorded<T extends { readonly references: readonly Reference[] }>(
  images: readonly T[],
  reference: Reference | undefined,
): readonly { readonly chosen: T; readonly references: readonly Reference[] }[] {
  if (reference === undefined) return images.map((chosen) => ({ chosen, references: chosen.references }));
  const name = formatReference(reference);
  const named = images.find(({ references }) => references.some((own) => formatReference(own) === name));
  return [named ?? images[0]].flatMap((chosen) => (chosen === undefined ? [] : [{ chosen, references: [reference] }]));
}

/** Of two images under one reference, the one that is named last would have it, and the other one would count as verified. */
function requireOwnNames(chosen: readonly ChosenImage[]): void {
  const owners = new Map<string, Digest>();
  for (const { image, references } of chosen)
    for (const reference of references) {
      const name = canonicalReference(reference);
      const owner = owners.get(name) ?? image.configDigest;
      owners.set(name, owner);
      if (owner === image.configDigest) continue;
      throw new HandoverError(
        'tarball-invalid',
        `The tarball holds two images under the reference ${formatReference(reference)}: ${owner} and ${image.configDigest}.`,
        'Give each image a reference of its own, or set the input `image` to a reference that only one of them has.',
      );
    }
}

/**
 * What names the images, under names of ours; and who they are then. Each gets a manifest: a containerd store would make one for an
 * image without, out of whatever layers it has already, and nobody could foretell the image's ID.
 */
function closing(
  chosen: readonly ChosenImage[],
  repository: string,
): { readonly passed: readonly PassedImage[]; readonly entries: ReadonlyMap<string, Buffer> } {
  const named = chosen.map(({ image, manifest, references }, position) => ({
    image,
    references,
    contents: manifest === undefined ? ownContents(image) : contentsOf(image, manifest),
    loadedAs: parseTaggedReference(`${repository}:${String(position + 1)}`),
  }));
  const passed = named.map(({ contents, loadedAs, references }) => ({
    identity: {
      ...contents.config,
      configDigest: contents.configDigest,
      manifestDigest: contents.manifestDigest,
    },
    loadedAs: formatReference(loadedAs),
    references,
    contents,
  }));
  const entries = smallEntries(
    named.map(({ image, contents, loadedAs }) => ({
      image: contents,
      references: [loadedAs],
      layerNames: image.layers.map(({ name }) => name),
    })),
  );
  return { passed, entries };
}

/** An image without a manifest, with one of ours: each layer under its own digest. */
function ownContents({ configDigest, configBytes, config, layers }: TarballImage): ImageContents {
  const described = layers.map(({ digest, size, packing }) => ({
    digest,
    size,
    mediaType: layerMediaType(packing === 'gzip' || packing === 'zstd' ? packing : 'uncompressed'),
    annotations: {},
  }));
  const own = formatManifest({ digest: configDigest, size: configBytes.length }, described);
  return { configDigest, configBytes, config, ...own, layers: described };
}

function noManifest(): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    'The image has no manifest of its own that says which bytes it consists of: docker save before 25 and podman save write none. ' +
      'A containerd would make one, and nobody could say whether it is right.',
    'Hand the image over with export-image, or make the tarball with Docker 25 or newer.',
  );
}

function invalid(message: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Make the tarball with docker save, plain or compressed with gzip or zstd, and upload it again.',
    cause,
  );
}
