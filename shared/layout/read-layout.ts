import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HandoverError, messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { fileHead, readSmallFile } from '../bytes/files.ts';
import { blobName, type Digest, digestOf } from '../image/digest.ts';
import {
  type BlobDescriptor,
  configFault,
  contentsOf,
  type Descriptor,
  formatIndex,
  formatManifest,
  type ImageContents,
  invalidLayout,
  isAttestation,
  isAttestationOf,
  isIndex,
  namesOf,
  parseConfig,
  parseIndex,
  parseManifest,
  requireConfigSize,
} from '../image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../image/platform.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import { layerPackingOf, wrongForm } from '../tar/compression.ts';
import { tarBlock } from '../tar/header.ts';

/** Compressed layers, by their digest in the layout's manifest, which differs from their digest in the layout. */
export type ReplacedLayers = ReadonlyMap<Digest, BlobDescriptor>;

/** Returns the path of a blob in the folder of an OCI layout. */
export function blobPath(layout: string, digest: Digest): string {
  return join(layout, blobName(digest));
}

/**
 * Reads the only image for `platform` from an OCI layout directory, and checks that it has all of its blobs.
 * @param replaced layers that have a different digest in the layout; if there are any, the image gets a new manifest
 * @throws HandoverError `tarball-invalid` when a blob is missing or damaged, or the platform is missing
 */
export async function readOciLayout(
  layout: string,
  platform: Platform,
  replaced?: ReplacedLayers,
): Promise<ImageContents> {
  const { descriptor } = await findManifest(layout, { listed: await readIndex(layout) }, platform);
  return readImage(layout, descriptor, platform, replaced);
}

/** An image in an OCI layout, its names and its attestations. */
export interface NamedLayoutImage {
  readonly image: ImageContents;
  /** The image's names in the layout's index. */
  readonly references: readonly Reference[];
  readonly attestations: LayoutAttestations | undefined;
}

/**
 * Reads the image with the wanted name or, without one, the only image, like `readOciLayout`.
 * @throws HandoverError like `readOciLayout`; `image-not-found` when the choice is ambiguous
 */
export async function readNamedImage(
  layout: string,
  platform: Platform,
  wanted: Reference | undefined,
  replaced?: ReplacedLayers,
): Promise<NamedLayoutImage> {
  const index = await readIndex(layout);
  const all = index.filter((item) => !isAttestation(item));
  const name = wanted === undefined ? undefined : formatReference(wanted);
  const named = all.filter((item) => namesOf(item).some((reference) => formatReference(reference) === name));
  const candidates = named.length > 0 ? named : all;
  const fitting = candidates.filter(({ platform: of }) => of === undefined || samePlatform(of, platform));
  if (new Set(fitting.map(({ digest }) => digest)).size > 1) {
    const there = fitting.map((item) => namesOf(item).map(formatReference).join(', ') || item.digest);
    throw new HandoverError(
      'image-not-found',
      `The OCI layout ${layout} holds several images (${there.join('; ')}), and ${name ?? 'no reference'} was requested.`,
      'Set `image` to the name of one of them, or write each build to a new folder.',
    );
  }
  const listed = index.filter((item) => isAttestation(item) || candidates.includes(item));
  const found = await findManifest(layout, { listed }, platform);
  return {
    image: await readImage(layout, found.descriptor, platform, replaced),
    references: (fitting.length > 0 ? fitting : candidates).flatMap(namesOf),
    attestations: await readAttestations(layout, found, platform),
  };
}

/** The attestations of an image in an OCI layout. */
export interface LayoutAttestations {
  /** The layout's folder. */
  readonly layout: string;
  /** The index of the image and its attestations, as it is pushed to a registry. */
  readonly index: Buffer;
  /** The attestations' manifests and the blobs that they refer to. */
  readonly blobs: readonly Descriptor[];
}

/**
 * Returns the attestations of a found image, or undefined if it has none. Returns the layout's own index if it lists nothing else,
 * because the build reported that index's digest.
 */
async function readAttestations(
  layout: string,
  { descriptor, listed, bytes }: FoundManifest,
  platform: Platform,
): Promise<LayoutAttestations | undefined> {
  const own = listed.filter((item) => isAttestationOf(item, descriptor.digest));
  if (own.length === 0) return undefined;
  const manifests = await Promise.all(
    own.map(async (item) => parseManifest(await readJsonBlob(layout, item), `attestation ${item.digest}`)),
  );
  const blobs = [...own, ...manifests.flatMap(({ config, layers }) => [config, ...layers])];
  for (const blob of blobs) await requireBlob(layout, blob);
  const isAlone = listed.every(({ digest }) => [descriptor, ...own].some((item) => item.digest === digest));
  const index =
    bytes !== undefined && isAlone ? bytes : formatIndex([{ ...descriptor, platform, attestations: own }]).bytes;
  return { layout, index, blobs };
}

async function readIndex(layout: string): Promise<readonly Descriptor[]> {
  const index = await readSmallFile(join(layout, 'index.json'), limits.jsonBytes).catch((error: unknown) => {
    throw invalidLayout(`The OCI layout has no index.json (${messageOf(error)}).`);
  });
  return parseIndex(index, 'index.json');
}

async function readImage(
  layout: string,
  descriptor: Descriptor,
  platform: Platform,
  replaced: ReplacedLayers = new Map(),
): Promise<ImageContents> {
  const manifest = parseManifest(await readJsonBlob(layout, descriptor), `manifest ${descriptor.digest}`);
  requireConfigSize(manifest.config.size);
  const configBytes = await readJsonBlob(layout, manifest.config);
  const config = parseConfig(configBytes, `config ${manifest.config.digest}`);
  if (!samePlatform(config.platform, platform)) {
    throw new HandoverError(
      'platform-mismatch',
      `The image is for ${formatPlatform(config.platform)}, but ${formatPlatform(platform)} was requested.`,
      'Set the input `platform` to the platform of the image, or build the image for the platform asked for.',
    );
  }
  const fault = configFault(manifest, configBytes, config);
  if (fault !== undefined) throw invalidLayout(`The manifest ${descriptor.digest} ${fault}.`);
  const layers = manifest.layers.map((layer) => ({ ...layer, ...replaced.get(layer.digest) }));
  await Promise.all(layers.map((layer, position) => requireLayer(layout, layer, config.diffIds[position])));
  const stored = replaced.size === 0 ? manifest : formatManifest(manifest.config, layers);
  return contentsOf(configBytes, config, stored);
}

/** An index: its entries, and its bytes if it is a blob. */
interface LayoutIndex {
  readonly listed: readonly Descriptor[];
  readonly bytes?: Buffer | undefined;
}

/** An image's manifest, and the index that lists it. */
interface FoundManifest extends LayoutIndex {
  readonly descriptor: Descriptor;
}

async function findManifest(layout: string, index: LayoutIndex, platform: Platform): Promise<FoundManifest> {
  const images = index.listed.filter((item) => !isAttestation(item));
  const match = images.find((item) => item.platform !== undefined && samePlatform(item.platform, platform));
  // An index lists an image with several names once per name.
  const only = new Set(images.map(({ digest }) => digest)).size === 1 ? images[0] : undefined;
  const found = match ?? only;
  if (found === undefined) {
    const there = images.map((item) => (item.platform ? formatPlatform(item.platform) : item.digest)).join(', ');
    throw invalidLayout(
      `The OCI layout holds no image for ${formatPlatform(platform)}; it holds: ${there || 'nothing'}.`,
    );
  }
  if (!isIndex(found)) return { ...index, descriptor: found };
  const bytes = await readJsonBlob(layout, found);
  return findManifest(layout, { listed: parseIndex(bytes, `index ${found.digest}`), bytes }, platform);
}

async function readJsonBlob(layout: string, descriptor: Descriptor): Promise<Buffer> {
  await requireBlob(layout, descriptor);
  const bytes = await readSmallFile(blobPath(layout, descriptor.digest), limits.jsonBytes).catch((error: unknown) => {
    throw invalidLayout(`Blob ${descriptor.digest} can't be read: ${messageOf(error)}.`);
  });
  const actual = digestOf(bytes);
  if (actual !== descriptor.digest) throw invalidLayout(`Blob ${descriptor.digest} holds other bytes (${actual}).`);
  return bytes;
}

async function requireLayer(layout: string, layer: Descriptor, diffId: Digest | undefined): Promise<void> {
  await requireBlob(layout, layer);
  const head = await fileHead(blobPath(layout, layer.digest), tarBlock);
  const packing = layerPackingOf(head);
  const wrong = wrongForm(layer.mediaType, packing);
  if (wrong !== undefined) throw invalidLayout(`The layer ${layer.digest} ${wrong}.`);
  if (packing === 'none' && layer.digest !== diffId)
    throw invalidLayout(`The layer ${layer.digest} is ${String(diffId)} in the config.`);
}

async function requireBlob(layout: string, descriptor: Descriptor): Promise<void> {
  const found = await stat(blobPath(layout, descriptor.digest)).catch(() => undefined);
  if (found?.size === descriptor.size) return;
  const seen = found === undefined ? 'is missing' : `has ${String(found.size)} bytes`;
  throw invalidLayout(`Blob ${descriptor.digest} ${seen}; ${String(descriptor.size)} bytes were expected.`);
}
