import { HandoverError } from '../base/errors.ts';
import {
  isByteCount,
  isObject,
  type JsonObject,
  objectsOf,
  parseJson,
  stringMapOf,
  stringOr,
  stringsOf,
} from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, digestOf, isDigest } from './digest.ts';
import { formatPlatform, type Platform, platformOf } from './platform.ts';

/** How layers are stored in a manifest (OCI image-spec, layer.md). */
export type LayerFormat = 'gzip' | 'zstd' | 'uncompressed';

/** How a layer of that format is called in a manifest. */
export function layerMediaType(format: LayerFormat): string {
  const suffix = { gzip: '+gzip', zstd: '+zstd', uncompressed: '' } as const;
  return `application/vnd.oci.image.layer.v1.tar${suffix[format]}`;
}

// Shapes: OCI image-spec (descriptor.md, manifest.md, image-index.md, config.md).

export const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
} as const;

/** Points to a blob: what it is, which, and its size in bytes. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly platform?: Platform;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** What an image's config tells of it. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
  readonly labels: Readonly<Record<string, string>>;
  readonly created?: string;
  /** Its member `config`: what containers are made of. */
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

/** Whether a manifest's config is an image's: a signature or a chart has another one. */
export function isImageConfig({ mediaType }: Descriptor): boolean {
  return ['', mediaTypes.config, mediaTypes.dockerConfig].includes(mediaType);
}

/** Attestations travel as manifests of an unknown platform (BuildKit docs/attestations/attestation-storage.md). */
export function isAttestation(descriptor: Descriptor): boolean {
  return descriptor.annotations['vnd.docker.reference.type'] === 'attestation-manifest';
}

/** @throws HandoverError `tarball-invalid` */
export function parseIndex(text: string, where: string): readonly Descriptor[] {
  const value = parseJson(text);
  if (!isObject(value) || !Array.isArray(value['manifests'])) throw invalid(where, 'an image index', text);
  return objectsOf(value['manifests']).map((item) => parseDescriptor(item, where));
}

/** @throws HandoverError `tarball-invalid` */
export function parseManifest(text: string, where: string): Manifest {
  const value = parseJson(text);
  // BuildKit writes `null` for an image without layers.
  const listsLayers = isObject(value) && (Array.isArray(value['layers']) || value['layers'] === null);
  if (!listsLayers || !isObject(value['config'])) throw invalid(where, 'an image manifest', text);
  return {
    config: parseDescriptor(value['config'], where),
    layers: requireCount(objectsOf(value['layers']), where).map((layer) => parseDescriptor(layer, where)),
  };
}

/**
 * Reads a JSON text as a manifest.
 * @returns undefined when it is anything else
 */
export function manifestIn(text: string): Manifest | undefined {
  const value = parseJson(text);
  if (!isObject(value) || !isObject(value['config']) || value['layers'] === undefined) return undefined;
  try {
    return parseManifest(text, 'a manifest');
  } catch {
    return undefined;
  }
}

/** Returns the media type that a manifest gives itself, which it may leave out (OCI image-spec, manifest.md). */
export function mediaTypeOf(manifest: Buffer): string {
  const value = parseJson(manifest.toString());
  const type = isObject(value) ? stringOr(value['mediaType'], '') : '';
  return isMediaType(type) ? type : mediaTypes.manifest;
}

function requireCount<T>(layers: readonly T[], where: string): readonly T[] {
  if (layers.length <= limits.layers) return layers;
  throw invalid(where, `a manifest of at most ${String(limits.layers)} layers`, `${String(layers.length)} layers`);
}

/**
 * @param size of an image's config, in bytes
 * @throws HandoverError `tarball-invalid` when no engine could take it
 */
export function requireConfigSize(size: number): void {
  if (size <= limits.jsonBytes) return;
  throw new HandoverError(
    'tarball-invalid',
    `The image's config has ${String(size)} bytes; ${String(limits.jsonBytes)} (4 MiB) are the most that can be handed over.`,
    'Look for very long labels, environment variables or a very long history: docker image inspect shows the labels and variables, docker history the rest.',
  );
}

/** @throws HandoverError `tarball-invalid` */
export function parseConfig(text: string, where: string): ImageConfig {
  const value = parseJson(text);
  const rootfs = isObject(value) ? value['rootfs'] : undefined;
  if (!isObject(value) || !isObject(rootfs)) throw invalid(where, 'an image config', text);
  const diffIds = stringsOf(rootfs['diff_ids']).filter(isDigest);
  const os = stringOr(value['os'], 'linux');
  const architecture = stringOr(value['architecture'], '');
  const created = stringOr(value['created'], undefined);
  const config = isObject(value['config']) ? value['config'] : {};
  return {
    platform: platformOf(os, architecture, stringOr(value['variant'], undefined)),
    diffIds,
    labels: stringMapOf(config['Labels']),
    config,
    ...(created === undefined ? {} : { created }),
  };
}

/** @throws HandoverError `tarball-invalid` */
export function parseArchiveManifest(text: string, where: string): readonly ArchiveImage[] {
  const value = parseJson(text);
  if (!Array.isArray(value)) throw invalid(where, 'a list of images', text);
  return objectsOf(value).map((image) => {
    const config = image['Config'];
    if (typeof config !== 'string') throw invalid(where, 'a list of images with a Config each', text);
    return { config, repoTags: stringsOf(image['RepoTags']), layers: stringsOf(image['Layers']) };
  });
}

/** A manifest of our own for the image's config and layers. */
export function formatManifest(
  config: Pick<Descriptor, 'digest' | 'size'>,
  layers: readonly Pick<Descriptor, 'digest' | 'size' | 'mediaType'>[],
): { readonly manifestBytes: Buffer; readonly manifestDigest: Digest; readonly manifestMediaType: string } {
  const manifestBytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.manifest,
      config: { mediaType: mediaTypes.config, digest: config.digest, size: config.size },
      layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    }),
  );
  return { manifestBytes, manifestDigest: digestOf(manifestBytes), manifestMediaType: mediaTypes.manifest };
}

/** An index of images for several platforms, in the order of their names: the same images make the same bytes. */
export function formatIndex(
  images: readonly (Pick<Descriptor, 'digest' | 'size' | 'mediaType'> & { readonly platform: Platform })[],
): { readonly bytes: Buffer; readonly mediaType: string } {
  const byName = images.toSorted((one, other) =>
    formatPlatform(one.platform) < formatPlatform(other.platform) ? -1 : 1,
  );
  const manifests = byName.map(({ mediaType, digest, size, platform: { architecture, os, variant } }) => ({
    ...{ mediaType, digest, size },
    platform: { architecture, os, ...(variant === undefined ? {} : { variant }) },
  }));
  const { index: mediaType } = mediaTypes;
  return { bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests })), mediaType };
}

function parseDescriptor(value: JsonObject, where: string): Descriptor {
  const { digest, size, platform } = value;
  const mediaType = stringOr(value['mediaType'], '');
  const isDescriptor = isDigest(digest) && isByteCount(size) && (mediaType === '' || isMediaType(mediaType));
  if (!isDescriptor) throw invalid(where, 'a descriptor', JSON.stringify(value));
  const described = isObject(platform) ? parseDescriptorPlatform(platform) : undefined;
  return {
    mediaType,
    digest,
    size,
    ...(described === undefined ? {} : { platform: described }),
    annotations: stringMapOf(value['annotations']),
  };
}

/** Whether a text can be a media type (RFC 6838, section 4.2): it is sent on in a header. */
export function isMediaType(text: string): boolean {
  return /^[a-z0-9][\w!#$&^.+-]{0,126}\/[a-z0-9][\w!#$&^.+-]{0,126}$/i.test(text);
}

function parseDescriptorPlatform(value: JsonObject): Platform | undefined {
  const { os, architecture } = value;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return platformOf(os, architecture, stringOr(value['variant'], undefined));
}

function invalid(where: string, expected: string, text: string): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `${where} is not ${expected}: "${quoteForeign(text, 120)}".`,
    'Make the tarball with docker save, or with docker buildx build --output type=docker,dest=FILE.',
  );
}

/** One image for one platform, as its blobs describe it. */
export interface ImageContents {
  readonly configDigest: Digest;
  readonly configBytes: Buffer;
  readonly config: ImageConfig;
  readonly manifestDigest: Digest;
  readonly manifestBytes: Buffer;
  readonly manifestMediaType: string;
  /** In the order they are applied; the same blob may stand here twice. */
  readonly layers: readonly Descriptor[];
}

/** What's wrong with an OCI layout that a builder or an engine has written for us. */
export function invalidLayout(message: string): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Run the export again; if it repeats, report the builder and its version.',
  );
}
