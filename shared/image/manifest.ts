import { attempt, type HandoverError, invalidTarball } from '../base/errors.ts';
import {
  arrayOf,
  isByteCount,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  stringMapOf,
  stringOr,
  stringsOf,
} from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { readStrictJson, type Shape } from '../base/strict-json.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, digestOf, isDigest, isOtherDigest } from './digest.ts';
import { formatPlatform, type Platform, platformIn } from './platform.ts';
import { parseReference, type Reference } from './reference.ts';
import { archiveShape, configShape, manifestShape } from './shapes.ts';

/** How layers are stored in a manifest (OCI image-spec, layer.md). */
export type LayerFormat = 'gzip' | 'zstd' | 'uncompressed';

/** A format and its compression level. Without a level, the compressor's default applies. */
export interface LayerCompression {
  readonly format: LayerFormat;
  readonly level: number | undefined;
}

/** Returns the media type of a layer in that format. */
export function layerMediaType(format: LayerFormat): string {
  const suffix = { gzip: '+gzip', zstd: '+zstd', uncompressed: '' } as const;
  return `application/vnd.oci.image.layer.v1.tar${suffix[format]}`;
}

// Shapes: OCI image-spec (descriptor.md, manifest.md, image-index.md, config.md).

export const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  config: 'application/vnd.oci.image.config.v1+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
} as const;

/** Refers to a blob by media type, digest, and size in bytes. */
export interface BlobDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

/** A blob in a manifest or an index. */
export interface Descriptor extends BlobDescriptor {
  readonly platform?: Platform | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A manifest (OCI image-spec, manifest.md). */
export interface Manifest {
  readonly bytes: Buffer;
  readonly digest: Digest;
  /** The OCI type if the manifest doesn't contain one. */
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** The facts in an image's config. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
  readonly labels: Readonly<Record<string, string>>;
  readonly created?: string | undefined;
  /** Its member `config`: the settings of containers made from the image. */
  readonly config: JsonObject;
}

/** One image in a Docker archive's `manifest.json`; the names are paths within the tar. */
export interface ArchiveImage {
  readonly config: string;
  readonly repoTags: readonly string[];
  readonly layers: readonly string[];
}

export function isIndex(descriptor: Descriptor): boolean {
  return descriptor.mediaType === mediaTypes.index || descriptor.mediaType === mediaTypes.dockerIndex;
}

/** Returns whether a manifest's config is an image config. Signatures and charts have other types. */
export function isImageConfig({ mediaType }: Descriptor): boolean {
  return ['', mediaTypes.config, mediaTypes.dockerConfig].includes(mediaType);
}

/**
 * Returns how an image's config contradicts its manifest, or undefined if they match. A registry or an engine would refuse such an
 * image later, after the step.
 * @returns the end of a sentence whose subject is the manifest
 */
export function configFault({ config, layers }: Manifest, bytes: Buffer, { diffIds }: ImageConfig): string | undefined {
  if (!isImageConfig(config))
    return `describes its config as ${quoteForeign(config.mediaType, 100)}, which is not an image's`;
  if (config.size !== bytes.length)
    return `names a config of ${String(config.size)} bytes; it has ${String(bytes.length)}`;
  if (layers.length === diffIds.length) return undefined;
  return `has ${String(layers.length)} layers; its config has ${String(diffIds.length)}`;
}

/** Returns whether a descriptor is an attestation, stored as a manifest of an unknown platform (BuildKit docs/attestations/attestation-storage.md). */
export function isAttestation(descriptor: Descriptor): boolean {
  return descriptor.annotations['vnd.docker.reference.type'] === 'attestation-manifest';
}

/** Returns whether a descriptor is an attestation of that image. */
export function isAttestationOf(descriptor: Descriptor, image: Digest): boolean {
  return isAttestation(descriptor) && descriptor.annotations['vnd.docker.reference.digest'] === image;
}

/**
 * Returns the image's names in an index. The first annotation is containerd's, and contains a full reference. BuildKit writes only a
 * tag (`v1`) to the other one, without a repository. skopeo writes the name from its command line (`oci-archive:FILE:app:v1`), and
 * docker load uses a reference there as the image's name.
 */
export function namesOf({ annotations }: Descriptor): readonly Reference[] {
  const short = annotations['org.opencontainers.image.ref.name'];
  const name = annotations['io.containerd.image.name'] ?? (/[:/]/.test(short ?? '') ? short : undefined);
  // Some tools write other text there.
  const reference = name === undefined ? undefined : attempt(() => parseReference(name), undefined);
  return reference === undefined ? [] : [reference];
}

/** @throws HandoverError `tarball-invalid` */
export function parseIndex(bytes: Uint8Array, where: string): readonly Descriptor[] {
  const value = document(bytes, manifestShape, where, 'an image index');
  requireKind(value, where, ['', mediaTypes.index, mediaTypes.dockerIndex], ['config', 'layers', 'fsLayers']);
  if (!Array.isArray(value['manifests'])) throw invalid(where, 'an image index', bytes);
  return objectsOf(value['manifests']).map((item) => parseDescriptor(item, where));
}

/** Returns whether a document is an index (OCI image-spec, image-index.md). Throws `tarball-invalid`. */
export function isIndexDocument(bytes: Uint8Array, where: string): boolean {
  return document(bytes, manifestShape, where, 'an image manifest or index')['manifests'] !== undefined;
}

/** @throws HandoverError `tarball-invalid`, including for layers with `urls` and nondistributable layers */
export function parseManifest(bytes: Buffer, where: string): Manifest {
  const value = document(bytes, manifestShape, where, 'an image manifest');
  requireKind(value, where, ['', mediaTypes.manifest, mediaTypes.dockerManifest], ['manifests', 'fsLayers']);
  // BuildKit writes `null` for an image without layers.
  const listsLayers = Array.isArray(value['layers']) || value['layers'] === null;
  if (!listsLayers || !isObject(value['config'])) throw invalid(where, 'an image manifest', bytes);
  const layers = objectsOf(value['layers']);
  if (layers.length > limits.layers)
    throw invalid(
      where,
      `a manifest of at most ${String(limits.layers)} layers`,
      Buffer.from(`${String(layers.length)} layers`),
    );
  return {
    bytes,
    digest: digestOf(bytes),
    mediaType: stringOr(value['mediaType'], '') || mediaTypes.manifest,
    config: parseDescriptor(value['config'], where),
    layers: layers.map((layer) => parseDescriptor(layer, where)),
  };
}

/** Throws for a document that one reader takes for a manifest and another for an index (containerd, core/images/image.go, validateMediaType). */
function requireKind(value: JsonObject, where: string, types: readonly string[], foreign: readonly string[]): void {
  const mediaType = stringOr(value['mediaType'], '');
  if (!types.includes(mediaType)) throw ambiguous(where, `calls itself ${quoteForeign(mediaType, 100)}`);
  const member = foreign.find((name) => value[name] !== undefined);
  if (member !== undefined) throw ambiguous(where, `has "${member}", which makes it another kind of document`);
}

/** @throws HandoverError `tarball-invalid` when a config of `size` bytes is too large for every engine */
export function requireConfigSize(size: number): void {
  if (size <= limits.jsonBytes) return;
  throw invalidTarball(
    `The image's config has ${String(size)} bytes; ${String(limits.jsonBytes)} (4 MiB) are the most that can be handed over.`,
    'Look for very long labels, environment variables or a very long history: docker image inspect shows the labels and variables, docker history the rest.',
  );
}

/** @throws HandoverError `tarball-invalid` */
export function parseConfig(bytes: Uint8Array, where: string): ImageConfig {
  const value = document(bytes, configShape, where, 'an image config');
  const { rootfs } = value;
  if (!isObject(rootfs)) throw invalid(where, 'an image config', bytes);
  const diffIds = stringsOf(rootfs['diff_ids']);
  const other = diffIds.find(isOtherDigest);
  if (other !== undefined) throw unsupportedDigest(where, other);
  if (!diffIds.every(isDigest)) throw ambiguous(where, 'has a diff ID that is not a sha256 digest');
  const config = objectOf(value['config']);
  return {
    platform: platformIn(value),
    diffIds,
    labels: stringMapOf(config['Labels']),
    config,
    created: stringOr(value['created'], undefined),
  };
}

/** @throws HandoverError `tarball-invalid`, including for layers with `urls` and nondistributable layers */
export function parseArchiveManifest(bytes: Uint8Array, where: string): readonly ArchiveImage[] {
  const value = strict(bytes, archiveShape, where, 'a list of images');
  if (!Array.isArray(value)) throw invalid(where, 'a list of images', bytes);
  return objectsOf(value).map((image) => {
    const config = image['Config'];
    if (typeof config !== 'string') throw invalid(where, 'a list of images with a Config each', bytes);
    const sources = Object.values(objectOf(image['LayerSources']));
    for (const source of objectsOf(sources)) requireHere(source, where);
    return { config, repoTags: stringsOf(image['RepoTags']), layers: stringsOf(image['Layers']) };
  });
}

/** Creates the manifest for a config and its layers. */
export function formatManifest(
  config: Pick<Descriptor, 'digest' | 'size'>,
  layers: readonly BlobDescriptor[],
): Manifest {
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.manifest,
      config: { mediaType: mediaTypes.config, digest: config.digest, size: config.size },
      layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    }),
  );
  return parseManifest(bytes, 'the new manifest');
}

/**
 * Creates an index of images for several platforms, sorted by platform name so that the same images give the same bytes. If all
 * manifests are Docker's, creates a Docker manifest list, because Quay refuses an OCI index of them. Attestations follow the images,
 * as in BuildKit's indexes.
 */
export function formatIndex(
  images: readonly (BlobDescriptor & {
    readonly platform: Platform;
    readonly attestations?: readonly Descriptor[] | undefined;
  })[],
): { readonly bytes: Buffer; readonly mediaType: string } {
  const byName = images.toSorted((one, other) =>
    formatPlatform(one.platform) < formatPlatform(other.platform) ? -1 : 1,
  );
  const manifests = byName.map(({ mediaType, digest, size, platform: { architecture, os, variant } }) => ({
    ...{ mediaType, digest, size },
    platform: { architecture, os, variant },
  }));
  const unknown = { architecture: 'unknown', os: 'unknown' } as const;
  const attestations = byName
    .flatMap((image) => image.attestations ?? [])
    .map(({ mediaType, digest, size, annotations }) => ({ mediaType, digest, size, annotations, platform: unknown }));
  const all = [...manifests, ...attestations];
  const isDocker = all.every((item) => item.mediaType === mediaTypes.dockerManifest);
  const mediaType = isDocker ? mediaTypes.dockerIndex : mediaTypes.index;
  return { bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: all })), mediaType };
}

function parseDescriptor(value: JsonObject, where: string): Descriptor {
  const { digest, size, platform } = value;
  const mediaType = stringOr(value['mediaType'], '');
  const isDescriptor = isDigest(digest) && isByteCount(size) && mediaTypePattern.test(mediaType);
  if (isOtherDigest(digest)) throw unsupportedDigest(where, digest);
  if (!isDescriptor) throw ambiguous(where, `has an invalid descriptor: ${quoteForeign(JSON.stringify(value), 120)}`);
  requireHere(value, where);
  // containerd uses embedded data instead of the blob (core/content/helpers.go).
  const data = stringOr(value['data'], '');
  if (data !== '' && digestOf(Buffer.from(data, 'base64')) !== digest)
    throw ambiguous(where, `has \`data\` in the descriptor of ${digest} with another digest`);
  // An attestation has the platform `unknown`, and some tools omit members.
  const isKnown = isObject(platform) && [platform['os'], platform['architecture']].every((text) => stringOr(text, ''));
  return {
    mediaType,
    digest,
    size,
    platform: isKnown ? platformIn(platform) : undefined,
    annotations: stringMapOf(value['annotations']),
  };
}

// Empty, or a media type of RFC 6838, section 4.2, because it will be sent in a header.
const mediaTypePattern = /^(?:[a-z0-9][\w!#$&^.+-]{0,126}\/[a-z0-9][\w!#$&^.+-]{0,126})?$/i;

const foreignLayer = /^application\/vnd\.(?:oci\.image\.layer\.nondistributable|docker\.image\.rootfs\.foreign)\./i;

/** Throws for content that an engine would fetch from an address in the document, or omit from `docker save` and `docker push`. */
function requireHere({ urls, digest, mediaType }: JsonObject, where: string): void {
  const [url] = arrayOf(urls);
  const type = stringOr(mediaType, '');
  if (url === undefined && !foreignLayer.test(type)) return;
  const why = url === undefined ? `has the media type ${type}` : `is to be fetched from ${stringOr(url, '')}`;
  throw invalidTarball(
    `${where} names content that isn't part of the image: ${quoteForeign(stringOr(digest, ''), 80)} ${quoteForeign(why, 200)}.`,
    'Use a base image whose layers are all in its registry and may be distributed. An engine would fetch other layers from the address in the image, and docker save omits them.',
  );
}

function document(bytes: Uint8Array, shape: Shape, where: string, expected: string): JsonObject {
  const value = strict(bytes, shape, where, expected);
  if (!isObject(value)) throw invalid(where, expected, bytes);
  return value;
}

function strict(bytes: Uint8Array, shape: Shape, where: string, expected: string): unknown {
  const read = readStrictJson(bytes, shape);
  if ('value' in read) return read.value;
  throw ambiguous(where, `is not ${expected} that every engine reads in the same way: it ${read.why}`, bytes);
}

/** @param what the end of a sentence whose subject is the document */
function ambiguous(where: string, what: string, bytes?: Uint8Array): HandoverError {
  return invalidTarball(
    `${where} ${what}${bytes === undefined ? '' : ` ("${startOf(bytes)}")`}.`,
    'Build the image again with a builder that follows the OCI image specification, such as docker buildx, podman or kaniko.',
  );
}

function unsupportedDigest(where: string, digest: string): HandoverError {
  return invalidTarball(
    `${where} has the digest ${quoteForeign(digest, 40)}: only sha256 digests are supported.`,
    'Make the image with sha256 digests: build it again with docker buildx, which writes no others.',
  );
}

function invalid(where: string, expected: string, bytes: Uint8Array): HandoverError {
  return invalidTarball(
    `${where} is not ${expected}: "${startOf(bytes)}".`,
    'Make the tarball with docker save, or with docker buildx build --output type=docker,dest=FILE.',
  );
}

function startOf(bytes: Uint8Array): string {
  return quoteForeign(Buffer.from(bytes.subarray(0, 500)).toString(), 120);
}

/** One image for one platform, as its blobs describe it. */
export interface ImageContents {
  readonly configDigest: Digest;
  readonly configBytes: Buffer;
  readonly config: ImageConfig;
  readonly manifestDigest: Digest;
  readonly manifestBytes: Buffer;
  readonly manifestMediaType: string;
  /** In the order they are applied. A blob can occur twice. */
  readonly layers: readonly Descriptor[];
}

/** Returns an image's contents from its config and one of its manifests. */
export function contentsOf(configBytes: Buffer, config: ImageConfig, manifest: Manifest): ImageContents {
  return {
    configDigest: manifest.config.digest,
    configBytes,
    config,
    manifestDigest: manifest.digest,
    manifestBytes: manifest.bytes,
    manifestMediaType: manifest.mediaType,
    layers: manifest.layers,
  };
}

/** Returns the error for an OCI layout that a builder or an engine has written for this step. */
export function invalidLayout(message: string): HandoverError {
  return invalidTarball(message, 'Run the export again; if it repeats, report the builder and its version.');
}
