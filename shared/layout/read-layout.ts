import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HandoverError, messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { fileHead, readSmallFile } from '../bytes/files.ts';
import { type Digest, digestOf, hexOf } from '../image/digest.ts';
import {
  type Descriptor,
  formatManifest,
  type ImageContents,
  invalidLayout,
  isAttestation,
  isIndex,
  parseConfig,
  parseIndex,
  parseManifest,
  requireConfigSize,
} from '../image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../image/platform.ts';
import { layerHeadBytes, layerPackingOf, wrongForm } from '../tar/layer-form.ts';

/** A layer that has been compressed, so its digest in the layout differs from the one in the layout's manifest. */
export type ReplacedLayer = Pick<Descriptor, 'digest' | 'size' | 'mediaType'>;

/** Returns the path of a blob in an OCI layout (OCI image-spec, image-layout.md). */
export function blobPath(layout: string, digest: Digest): string {
  return join(layout, 'blobs', 'sha256', hexOf(digest));
}

/**
 * Reads the one image for `platform` out of an OCI layout directory and checks that all its blobs are there.
 * @param replaced layers with another digest in the layout: the image then gets a new manifest
 * @throws HandoverError `tarball-invalid` when a blob is missing or has other bytes, or the platform is missing
 */
export async function readOciLayout(
  layout: string,
  platform: Platform,
  replaced: ReadonlyMap<Digest, ReplacedLayer> = new Map(),
): Promise<ImageContents> {
  const index = await readSmallFile(join(layout, 'index.json'), limits.jsonBytes).catch((error: unknown) => {
    throw invalidLayout(`The OCI layout has no index.json (${messageOf(error)}).`);
  });
  const descriptor = await findManifest(layout, parseIndex(index, 'index.json'), platform);
  const manifestBytes = await readJsonBlob(layout, descriptor);
  const manifest = parseManifest(manifestBytes, `manifest ${descriptor.digest}`);
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
  const layers = manifest.layers.map((layer) => ({ ...layer, ...replaced.get(layer.digest) }));
  await Promise.all(layers.map((layer) => requireLayer(layout, layer)));
  const unchanged = {
    configDigest: manifest.config.digest,
    configBytes,
    config,
    manifestDigest: descriptor.digest,
    manifestBytes,
    manifestMediaType: descriptor.mediaType,
    layers,
  };
  return replaced.size === 0 ? unchanged : { ...unchanged, ...formatManifest(manifest.config, layers) };
}

async function findManifest(
  layout: string,
  descriptors: readonly Descriptor[],
  platform: Platform,
): Promise<Descriptor> {
  const images = descriptors.filter((item) => !isAttestation(item));
  const match = images.find((item) => item.platform !== undefined && samePlatform(item.platform, platform));
  // An index lists an image with several names once for each.
  const only = new Set(images.map(({ digest }) => digest)).size === 1 ? images[0] : undefined;
  const found = match ?? only;
  if (found === undefined) {
    const there = images.map((item) => (item.platform ? formatPlatform(item.platform) : item.digest)).join(', ');
    throw invalidLayout(
      `The OCI layout holds no image for ${formatPlatform(platform)}; it holds: ${there || 'nothing'}.`,
    );
  }
  if (!isIndex(found)) return found;
  const bytes = await readJsonBlob(layout, found);
  return findManifest(layout, parseIndex(bytes, `index ${found.digest}`), platform);
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

async function requireLayer(layout: string, layer: Descriptor): Promise<void> {
  await requireBlob(layout, layer);
  const head = await fileHead(blobPath(layout, layer.digest), layerHeadBytes);
  const wrong = wrongForm(layer.mediaType, layerPackingOf(head));
  if (wrong !== undefined) throw invalidLayout(`The layer ${layer.digest} ${wrong}.`);
}

async function requireBlob(layout: string, descriptor: Descriptor): Promise<void> {
  const found = await stat(blobPath(layout, descriptor.digest)).catch(() => undefined);
  if (found?.size === descriptor.size) return;
  const seen = found === undefined ? 'is missing' : `has ${String(found.size)} bytes`;
  throw invalidLayout(`Blob ${descriptor.digest} ${seen}; ${String(descriptor.size)} bytes were expected.`);
}
