import { HandoverError, invalidTarball } from '../base/errors.ts';
import type { Digest } from '../image/digest.ts';
import { contentsOf, formatManifest, type ImageContents, type Manifest, layerMediaType } from '../image/manifest.ts';
import type { Platform } from '../image/platform.ts';
import { corrupt, type HandoverRecord, imagesOf, recordName } from '../image/record.ts';
import { canonicalReference, formatReference, parseTaggedReference, type Reference } from '../image/reference.ts';
import { chooseImage, type TarballImage, type TarballManifest } from '../tar/tarball-images.ts';
import { type Expectations, requireExpected } from './expectations.ts';
import type { FoundArtifact } from './find.ts';
import { type IdentifiedImage, requireRecorded } from './identity.ts';

// Turns an artifact and a wish into an opened artifact with resolved images: each with its identity, contents, layers and future
// references. Only this file compares the images with the inputs' expectations. Most artifacts are resolved from some kilobytes
// (identity.ts). For others, the images are known only after the whole tarball is read: `resolveTarball` resolves those after the
// last layer, and before an index or manifest reaches the engine.

/** The reference for an image without references. */
export const fallbackReference = parseTaggedReference('charon:local');

/** The images that the inputs request from an artifact. */
export interface Wish extends Expectations {
  /** The only reference that the image will have; undefined keeps the artifact's images and references. */
  readonly reference: Reference | undefined;
}

/** An image and the references that it will have. */
export interface ResolvedImage extends IdentifiedImage {
  readonly references: readonly [Reference, ...Reference[]];
}

/** At least one image, with the main image first. */
export type ResolvedImages<Image = ResolvedImage> = readonly [Image, ...Image[]];

/** An artifact whose record and images have been resolved against a wish. */
export interface OpenedArtifact extends FoundArtifact {
  readonly wish: Wish;
  /** Undefined if the whole tarball must be read to identify the images. */
  readonly images: ResolvedImages | undefined;
}

/** An image from a whole tarball, with a generated manifest if the tarball contains none. */
export interface TarballResolvedImage extends Omit<ResolvedImage, 'ranged'> {
  readonly contents: ImageContents;
  /** Names of its layers in the tarball, in the order they are applied. */
  readonly layerNames: readonly string[];
}

/**
 * Resolves an artifact's images against a wish, and compares them with its expectations.
 * @throws HandoverError `image-mismatch`, `revision-mismatch`, `platform-mismatch`
 */
export function resolveArtifact(found: FoundArtifact, wish: Wish): OpenedArtifact {
  const { identified, record } = found;
  const images = identified === undefined ? undefined : requireOne(selectImages(identified, wish.reference));
  // A record alone is only a claim. It can be a reason to refuse an image, but never to load it.
  const claims = record === undefined ? [] : selectImages(imagesOf(record), wish.reference);
  requireExpected(wish, images?.map(({ identity }) => identity) ?? claims);
  return { ...found, wish, images };
}

/**
 * Returns all images with their own references. A wanted reference selects the image with that reference, or else the first
 * image, and becomes the image's only reference.
 */
function selectImages<T extends { readonly references: readonly Reference[] }>(
  images: readonly T[],
  wanted: Reference | undefined,
): readonly (T & Pick<ResolvedImage, 'references'>)[] {
  if (wanted === undefined) return images.map((image) => ({ ...image, references: ownReferences(image.references) }));
  const image = images.find(({ references }) => hasReference(references, wanted)) ?? images[0];
  return image === undefined ? [] : [{ ...image, references: [wanted] }];
}

function ownReferences([first = fallbackReference, ...others]: readonly Reference[]): ResolvedImage['references'] {
  return [first, ...others];
}

function hasReference(references: readonly Reference[], wanted: Reference): boolean {
  return references.some((reference) => formatReference(reference) === formatReference(wanted));
}

/** Returns the same images, typed as a list of at least one. */
export function requireOne<T>([first, ...others]: readonly T[]): ResolvedImages<T> {
  if (first === undefined) throw new RangeError('an artifact without an image');
  return [first, ...others];
}

/**
 * Returns the artifact with only one image, for a wish that must not guess which image is meant.
 * @param wanted the reference of that image; undefined when the artifact contains one image
 * @throws HandoverError `image-not-found`
 */
export function onlyImage(found: FoundArtifact, wanted: Reference | undefined): FoundArtifact {
  const { content, identified = [] } = found;
  const images = identified.filter(({ references }) => wanted === undefined || hasReference(references, wanted));
  if (images.length === 1) return { ...found, identified: images };
  const references = identified.flatMap((image) => image.references.map(formatReference));
  const existing = references.slice(0, 20).join(', ');
  throw new HandoverError(
    'image-not-found',
    wanted === undefined
      ? `The artifact "${content.artifact.name}" contains ${String(identified.length)} images: ${existing}. Only one can be published.`
      : `The artifact "${content.artifact.name}" has no image ${formatReference(wanted)}; it has ${existing}.`,
    'Set `image` to one of these references.',
  );
}

/**
 * Resolves the images that a whole tarball contained against the artifact's record and its wish.
 * @param images all images of the tarball
 * @param platform selects among several platforms
 * @param needsManifest whether to refuse an image without a manifest of its own
 * @throws HandoverError `artifact-corrupt`, `tarball-invalid`, `image-not-found`, `platform-mismatch`, `image-mismatch`,
 *   `revision-mismatch`
 */
export function resolveTarball(
  images: readonly TarballImage[],
  { record, wish, images: known }: OpenedArtifact,
  platform: Platform,
  needsManifest: boolean,
): ResolvedImages<TarballResolvedImage> {
  const selected =
    record === undefined
      ? unrecordedImages(images, wish.reference, platform)
      : recordedImages(images, record, wish.reference, known);
  if (needsManifest && selected.some(({ manifest }) => manifest === undefined))
    throw invalidTarball(
      'The image has no manifest of its own that lists its blobs: docker save before 25 and podman save write none. ' +
        'containerd would generate one, and that manifest could not be verified.',
      'Hand the image over with export-image, or make the tarball with Docker 25 or newer.',
    );
  requireDistinctReferences(selected);
  const resolved = requireOne(selected.map(resolvedImage));
  // Images that were identified before have already been compared, and the tarball must contain them.
  const identities = resolved.map(({ identity }) => identity);
  if (known === undefined) requireExpected(wish, identities);
  return resolved;
}

interface SelectedImage extends Pick<ResolvedImage, 'references'> {
  readonly image: TarballImage;
  /** Undefined if the tarball contains no manifest. */
  readonly manifest: TarballManifest | undefined;
}

/** Selects all images with references or, if there are none, the only image. */
function unrecordedImages(
  images: readonly TarballImage[],
  wanted: Reference | undefined,
  platform: Platform,
): readonly SelectedImage[] {
  const choose = (reference: Reference | undefined): SelectedImage => {
    const image = chooseImage(images, reference, platform);
    const tagged = image.references.filter(({ tag }) => tag !== undefined);
    return { image, manifest: image.manifests[0], references: wanted === undefined ? ownReferences(tagged) : [wanted] };
  };
  if (wanted !== undefined) return [choose(wanted)];
  if (!images.every(({ references }) => references.length > 0)) return [choose(undefined)];
  const firsts = images.flatMap(({ references }) => references.slice(0, 1));
  const distinct = new Map(firsts.map((first) => [formatReference(first), first]));
  return [...distinct.values()].map(choose);
}

/** Selects the images in the record, which must match the record and the identified images. */
function recordedImages(
  images: readonly TarballImage[],
  record: HandoverRecord,
  wanted: Reference | undefined,
  known: ResolvedImages | undefined,
): readonly SelectedImage[] {
  return selectImages(imagesOf(record), wanted).map((recorded, position) => {
    const image = images.find(({ configDigest }) => configDigest === recorded.configDigest);
    if (image === undefined) {
      const existing = images.map(({ configDigest }) => configDigest).join(', ');
      throw corrupt(
        `its config digest (${recorded.configDigest}) is not that of an image in the tarball (${existing})`,
      );
    }
    const manifest = requireManifest(image, known?.[position]?.identity.manifestDigest, recorded.manifestDigests);
    const { configDigest, config } = image;
    requireRecorded(recorded, { ...config, configDigest, manifestDigest: manifest?.digest }, manifest?.layers);
    return { image, manifest, references: recorded.references };
  });
}

/** @param known the digest of the manifest read by its position; takes precedence over the digests in the record */
function requireManifest(
  { manifests }: TarballImage,
  known: Digest | undefined,
  recorded: readonly Digest[],
): TarballManifest | undefined {
  const wanted = known === undefined ? recorded : [known];
  const manifest = wanted.length === 0 ? manifests[0] : manifests.find(({ digest }) => wanted.includes(digest));
  if (manifest !== undefined || wanted.length === 0) return manifest;
  const existing = manifests.map(({ digest }) => digest).join(', ') || 'none';
  throw corrupt(`its manifest digest (${wanted.join(', ')}) is not that of the image in the tarball (${existing})`);
}

/** Throws if two images share a reference: the second would replace the first, which would still count as verified. */
function requireDistinctReferences(selected: readonly SelectedImage[]): void {
  const owners = new Map<string, Digest>();
  for (const { image, references } of selected)
    for (const reference of references) {
      const name = canonicalReference(reference);
      const owner = owners.get(name) ?? image.configDigest;
      owners.set(name, owner);
      if (owner === image.configDigest) continue;
      throw invalidTarball(
        `The tarball holds two images under the reference ${formatReference(reference)}: ${owner} and ${image.configDigest}.`,
        'Give each image a reference of its own, or set the input `image` to a reference that only one of them has.',
      );
    }
}

// A containerd store would generate a manifest for an image without one, from the layers in the store. The image ID would then
// be unpredictable.
function resolvedImage({ image, manifest, references }: SelectedImage): TarballResolvedImage {
  const contents = contentsOf(image.configBytes, image.config, manifest ?? generatedManifest(image));
  const { config, configDigest, manifestDigest } = contents;
  const layerNames = image.layers.map(({ name }) => name);
  return { identity: { ...config, configDigest, manifestDigest }, contents, references, layerNames };
}

function generatedManifest({ configDigest, configBytes, layers }: TarballImage): Manifest {
  const described = layers.map(({ digest, size, packing }) => ({
    digest,
    size,
    mediaType: layerMediaType(packing === 'gzip' || packing === 'zstd' ? packing : 'uncompressed'),
  }));
  return formatManifest({ digest: configDigest, size: configBytes.length }, described);
}

/**
 * Returns which file of an artifact is the tarball. Without a record it is the only file, or the only one with a tarball's name.
 * @throws HandoverError `image-not-found` with the names of the files
 */
export function tarballNameOf({ content, record }: Pick<FoundArtifact, 'content' | 'record'>): string {
  if (record !== undefined) return record.tarballName;
  const files = content.files.map(({ name }) => name).filter((name) => name !== recordName);
  const named = files.filter((name) => /\.(?:tar|tar\.(?:gz|zst|xz|bz2)|tgz|tzst|txz|tbz2)$/i.test(name));
  const [chosen, ...others] = files.length === 1 ? files : named;
  if (chosen !== undefined && others.length === 0) return chosen;
  const found = files.length === 0 ? 'no file' : files.slice(0, 10).join(', ');
  throw new HandoverError(
    'image-not-found',
    `The artifact "${content.artifact.name}" should hold one tarball of an image; it holds ${found}.`,
    'Upload the tarball alone, or make the artifact with export-image.',
  );
}
