import { limits } from '../base/limits.ts';
import { attempt, HandoverError, invalidTarball, messageOf, translated } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import type { Digest } from '../image/digest.ts';
import {
  type ArchiveImage,
  configFault,
  type Descriptor,
  type Manifest,
  type ImageContents,
  isAttestation,
  isImageConfig,
  isIndex,
  mediaTypes,
  namesOf,
  parseArchiveManifest,
  parseConfig,
  parseIndex,
  parseManifest,
  requireConfigSize,
} from '../image/manifest.ts';
import { formatPlatform, type Platform, runsOn, samePlatform } from '../image/platform.ts';
import { formatReference, parseReference, type Reference } from '../image/reference.ts';
import { wrongForm } from './compression.ts';
import { damaged, type SeenEntry, type SeenTarball } from './tarball-reader.ts';

/** An image's own manifest in a tarball. */
export interface TarballManifest extends Manifest {
  /** Its offset in the tarball, in bytes. */
  readonly offset: number;
  /** Digests of the indexes that contain it, the outermost first. */
  readonly around: readonly Digest[];
}

export interface TarballImage extends Pick<ImageContents, 'configDigest' | 'configBytes' | 'config'> {
  readonly references: readonly Reference[];
  /** The config's offset in the tarball, in bytes. */
  readonly configOffset: number;
  /**
   * The manifests with this config and these layers, starting with those reachable from `index.json`. Empty in the format of Docker 24
   * and older, and in the Docker archives of other tools.
   */
  readonly manifests: readonly TarballManifest[];
  /** In the order they are applied; the same entry may occur twice. */
  readonly layers: readonly SeenEntry[];
}

export interface TarballImages {
  /** `docker` with a `manifest.json`, which every engine loads; `oci` is an OCI archive, which the classic store doesn't. */
  readonly kind: 'docker' | 'oci';
  readonly images: readonly TarballImage[];
}

/**
 * Returns the images of a tarball that has been read: those of its `manifest.json` or, without one, of its `index.json`.
 * @throws HandoverError `tarball-invalid` when it has neither, when one of them names a missing entry, or when an uncompressed layer's
 *   digest isn't the config's
 */
export function imagesIn(seen: SeenTarball): TarballImages {
  const archive = seen.find('manifest.json')?.bytes;
  const index = seen.find('index.json')?.bytes;
  const manifests = index === undefined ? [] : manifestsIn(index, seen);
  if (archive !== undefined) {
    const images = parseArchiveManifest(archive, 'manifest.json');
    if (images.length > limits.images) throw tooMany('manifest.json', images.length);
    const all = [...manifests, ...looseManifests(seen)];
    return { kind: 'docker', images: images.map((image) => archiveImage(image, all, seen)) };
  }
  const ofImages = manifests.filter(({ config }) => isImageConfig(config));
  // In an image for several platforms, some platforms may lack their layers.
  const whole = ofImages.filter(({ config, layers }) => [config, ...layers].every(({ digest }) => seen.blob(digest)));
  const images = (whole.length > 0 ? whole : ofImages).map((manifest) => ociImage(manifest, seen));
  if (images.length > 0) return { kind: 'oci', images };
  throw invalidTarball(
    index === undefined
      ? `The tarball has neither a manifest.json nor an index.json at its top; it holds: ${seen.names().join(', ') || 'nothing'}.`
      : "The tarball's index.json names no image that is in the tarball.",
    'Make it with docker save, or with docker buildx build --output type=docker,dest=FILE. A tar from docker export is a file system, not an image.',
  );
}

/** A manifest that an index names, at any depth. */
type IndexedManifest = TarballManifest & Pick<TarballImage, 'references'>;

/**
 * Returns the manifests of images in an index and its nested indexes, each once, with all its references. An index may list more platforms
 * than the tarball contains.
 */
function manifestsIn(index: Buffer, seen: SeenTarball): readonly IndexedManifest[] {
  const found = new Map<Digest, IndexedManifest>();
  const read = new Map<Digest, readonly Descriptor[]>();
  let count = 0;
  const visit = (descriptors: readonly Descriptor[], around: readonly Digest[], names: readonly Reference[]): void => {
    // Indexes that list the same index many times make many paths out of few bytes.
    count += descriptors.length;
    if (count > limits.indexed) throw tooMany('index.json', count);
    for (const descriptor of descriptors) {
      const isManifest = ['', mediaTypes.manifest, mediaTypes.dockerManifest].includes(descriptor.mediaType);
      // An index may list other content, which is ignored (OCI image-spec, image-index.md).
      if (isAttestation(descriptor) || (!isManifest && !isIndex(descriptor))) continue;
      const { digest } = descriptor;
      const references = [...names, ...namesOf(descriptor)];
      const { bytes, offset = 0, size } = seen.blob(digest) ?? {};
      if (size !== undefined && bytes === undefined)
        throw invalidTarball(
          `The tarball's index.json names the manifest ${descriptor.digest}, which is not a JSON object of at most ${String(limits.jsonBytes)} bytes (it has ${String(size)}).`,
        );
      if (bytes === undefined) continue;
      if (isIndex(descriptor)) {
        if (around.length >= limits.indexDepth) continue;
        const inner = read.get(digest) ?? parseIndex(bytes, `index ${digest}`);
        read.set(digest, inner);
        visit(inner, [...around, digest], references);
        continue;
      }
      const before = found.get(digest);
      const manifest = before ?? { ...parseManifest(bytes, `manifest ${digest}`), offset };
      found.set(digest, {
        ...manifest,
        around: [...new Set([...(before?.around ?? []), ...around])],
        references: [...(before?.references ?? []), ...references],
      });
    }
  };
  visit(parseIndex(index, 'index.json'), [], []);
  return [...found.values()];
}

function tooMany(where: string, count: number): HandoverError {
  return invalidTarball(
    `The tarball's ${where} names ${String(count)} images or more: too many.`,
    `Hand over at most ${String(limits.images)} images in one tarball.`,
  );
}

/** Returns all manifests in the tarball, including those that no index lists. */
function looseManifests(seen: SeenTarball): readonly TarballManifest[] {
  return seen.blobs().flatMap(({ bytes, offset }) => {
    const manifest = bytes && attempt(() => parseManifest(bytes, 'a manifest'), undefined);
    return manifest === undefined ? [] : [{ ...manifest, offset, around: [] }];
  });
}

function ociImage({ references, ...manifest }: IndexedManifest, seen: SeenTarball): TarballImage {
  const by = `The tarball's manifest ${manifest.digest}`;
  const config = requireConfig(seen.blob(manifest.config.digest), by, manifest.config.digest);
  const layers = manifest.layers.map(({ digest }) => requireEntry(seen.blob(digest), by, digest));
  return checked({ references, ...config, manifests: [manifest], layers }, seen);
}

/** Compares an image's config, its manifests and the tarball's entries. */
function checked(image: TarballImage, seen: SeenTarball): TarballImage {
  for (const manifest of image.manifests) {
    const fault = configFault(manifest, image.configBytes, image.config);
    if (fault !== undefined) throw contradicting(manifest, fault);
  }
  requireLayers(image, seen);
  requireDiffIds(image, seen);
  return image;
}

/** Returns the digests of an image's manifests, then of the indexes that contain them. Empty for an image without a manifest. */
export function manifestDigestsOf({ manifests }: TarballImage): readonly Digest[] {
  return [...new Set([...manifests.map(({ digest }) => digest), ...manifests.flatMap(({ around }) => around)])];
}

/** @param all the tarball's manifests, starting with those reachable from an index */
function archiveImage(
  { config, repoTags, layers }: ArchiveImage,
  all: readonly TarballManifest[],
  seen: SeenTarball,
): TarballImage {
  const by = "The tarball's manifest.json";
  const entry = requireConfig(seen.find(config), by, config);
  const found = layers.map((name) => requireEntry(seen.find(name), by, name));
  const manifests = manifestsOf(entry.configDigest, found, all);
  return checked({ references: referencesIn(repoTags), ...entry, manifests, layers: found }, seen);
}

// The error is not `invalid-input`, because the text is not an input of this step.
function referencesIn(repoTags: readonly string[]): readonly Reference[] {
  if (repoTags.length > limits.references)
    throw invalidNames(`has ${String(repoTags.length)} references for one image`);
  const invalidName = (error: unknown): HandoverError =>
    invalidNames(`gives an image a name that is not a reference: ${messageOf(error)}`, error);
  return repoTags.map((tag) => translated(() => parseReference(tag), invalidName));
}

/** @param what the end of a sentence whose subject is the manifest.json */
function invalidNames(what: string, cause?: unknown): HandoverError {
  return invalidTarball(
    `The tarball's manifest.json ${what}`.replace(/\.?$/, '.'),
    `Make the tarball with docker save and at most ${String(limits.references)} references of the image.`,
    cause,
  );
}

/**
 * Returns the manifests of an image in `manifest.json`, each once. Throws if there are manifests with its config, but all of them
 * describe another image.
 */
function manifestsOf(
  configDigest: Digest,
  layers: readonly SeenEntry[],
  all: readonly TarballManifest[],
): readonly TarballManifest[] {
  const digests = layers.map(({ digest }) => digest).join();
  const own = all.filter(({ config }) => config.digest === configDigest);
  const fitting = own.filter(
    (manifest) => isImageConfig(manifest.config) && manifest.layers.map(({ digest }) => digest).join() === digests,
  );
  const [first] = own;
  if (first === undefined || fitting.length > 0)
    return fitting.filter(({ digest }, position) => fitting.findIndex((one) => one.digest === digest) === position);
  const { config } = first;
  const fault = isImageConfig(config)
    ? 'lists other layers than its manifest.json'
    : `describes its config as ${quoteForeign(config.mediaType)}, which is not an image's`;
  throw contradicting(first, fault);
}

/** @param how the end of a sentence whose subject is the manifest */
function contradicting({ digest, config }: TarballManifest, how: string): HandoverError {
  return invalidTarball(`The tarball's manifest ${digest} of the image with the config ${config.digest} ${how}.`);
}

function requireConfig(
  entry: SeenEntry | undefined,
  by: string,
  name: string,
): Pick<TarballImage, 'configDigest' | 'configBytes' | 'configOffset' | 'config'> {
  const { digest, size, offset, bytes } = requireEntry(entry, by, name);
  requireConfigSize(size);
  const config = parseConfig(bytes ?? Buffer.alloc(0), name);
  return { configDigest: digest, configBytes: bytes ?? Buffer.alloc(0), configOffset: offset, config };
}

function requireEntry(entry: SeenEntry | undefined, by: string, name: string): SeenEntry {
  if (entry !== undefined) return entry;
  throw invalidTarball(
    `${by} names ${name}, which is not in the tarball.`,
    'The tarball was truncated or edited, or made without all of its layers: make it again, for example with docker save.',
  );
}

/** Checks the first bytes and the size of each layer against its manifests. */
function requireLayers({ manifests, layers }: TarballImage, seen: SeenTarball): void {
  const described = manifests.flatMap((manifest) =>
    manifest.layers.map(({ mediaType, digest, size }) => ({ mediaType, size, entry: seen.blob(digest) })),
  );
  const own = layers.map((entry) => ({ mediaType: '', size: entry.size, entry }));
  for (const { mediaType, size, entry } of [...described, ...own]) {
    if (entry === undefined) continue;
    const wrong = wrongForm(mediaType, entry.packing);
    if (wrong === undefined && size === entry.size) continue;
    const what = wrong ?? `has ${String(entry.size)} bytes, and ${String(size)} by its manifest`;
    throw invalidTarball(
      `The layer ${quoteForeign(entry.path, 100)} in the tarball ${what}.`,
      'The tarball was edited, or its tool stored something else as a layer: create it again with docker save.',
    );
  }
}

function requireDiffIds({ config, layers }: TarballImage, seen: SeenTarball): void {
  const { diffIds } = config;
  if (layers.length !== diffIds.length) {
    throw invalidTarball(
      `The image's config has ${String(diffIds.length)} layers; its manifest in the tarball has ${String(layers.length)}.`,
    );
  }
  layers.forEach((layer, position) => {
    const expected = diffIds[position];
    const found = seen.diffIdOf(layer);
    if (expected !== undefined && found !== undefined && found !== expected) throw damaged(layer.path, expected, found);
  });
}

/**
 * Selects the image with the wanted reference or, without one, the only image. Among several platforms, selects the matching one.
 * @throws HandoverError `image-not-found`, `platform-mismatch`; both list the tarball's images
 */
export function chooseImage(
  images: readonly TarballImage[],
  wanted: Reference | undefined,
  platform: Platform,
): TarballImage {
  const name = wanted === undefined ? undefined : formatReference(wanted);
  const named = images.filter((image) => image.references.some((reference) => formatReference(reference) === name));
  const candidates = named.length > 0 ? named : images;
  const exact = candidates.filter((image) => samePlatform(image.config.platform, platform));
  const fitting = exact.length > 0 ? exact : candidates.filter((image) => runsOn(image.config.platform, platform));
  const [chosen, ...others] = candidates.length === 1 ? candidates : fitting;
  // An image for several platforms has the same name for each, or none.
  const isOne = named.length > 0 || new Set(candidates.map(namesIn)).size === 1;
  if (isOne && chosen === undefined) throw noPlatform(candidates, platform);
  if (isOne && chosen !== undefined && others.every((other) => other.configDigest === chosen.configDigest))
    return chosen;
  const there = images.map((image) => namesIn(image) || image.configDigest);
  throw new HandoverError(
    'image-not-found',
    `The tarball holds ${String(images.length)} images (${there.join('; ')}), and ${name ?? 'no reference'} was requested.`,
    'Set the input `image` to one of them.',
  );
}

function namesIn({ references }: TarballImage): string {
  return references.map(formatReference).join(', ');
}

function noPlatform(images: readonly TarballImage[], platform: Platform): HandoverError {
  const there = images.map((image) => formatPlatform(image.config.platform));
  return new HandoverError(
    'platform-mismatch',
    `The tarball holds images for ${there.join(', ')}; ${formatPlatform(platform)} was requested.`,
    `Make the tarball for ${formatPlatform(platform)} too; or, if another one is meant, set \`platform\` in the export.`,
  );
}
