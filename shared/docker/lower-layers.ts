import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { type Digest, digestOf, hexOf } from '../image/digest.ts';
import { endOfArchive, tarEntry } from '../image/tar-header.ts';
import type { DockerCli } from './cli.ts';
import { loadInto } from './load-image.ts';
import type { InspectedImage } from './output.ts';
import { removeOwn } from './remove-own.ts';
import { saveImage } from './save-image.ts';

/** Limits for the layers of an image, in bytes. */
export interface LayerBytes {
  readonly atLeast: number;
  readonly atMost: number;
}

/**
 * How many of an image's lowest layers come to so many bytes.
 * @param sizes of the layers in bytes, the lowest first; those without content may be left out
 * @returns 0 where they come to less than the least
 */
export function countLowerLayers(sizes: readonly number[], { atLeast, atMost }: LayerBytes): number {
  let [count, bytes] = [0, 0];
  for (const size of sizes) {
    if (bytes + size > atMost) break;
    bytes += size;
    count += 1;
  }
  return bytes < atLeast ? 0 : count;
}

/** Reads `docker history --format {{.Size}}` in bytes, which tells of the highest layer first. Steps without content are left out. */
export function parseLayerSizes(text: string): readonly number[] {
  return text
    .split('\n')
    .map(Number)
    .filter((size) => size > 0)
    .reverse();
}

/**
 * The bytes of `docker save` of an image's lowest layers alone. The engine gives out nothing of an image before it has all of
 * it in a temporary folder; so it is made to save a part of it as an image of its own, which goes again.
 * @returns nothing when no layers come to so many bytes
 * @throws HandoverError `load-failed`, when the store doesn't know layers without a manifest; what `saveImage` throws
 */
export async function* saveLowerLayers(
  cli: DockerCli,
  image: InspectedImage,
  bytes: LayerBytes,
  warn: (text: string) => void,
): AsyncGenerator<Buffer> {
  const sizes = await cli.query(['history', '--human=false', '--format', '{{.Size}}', image.imageId]);
  const count = countLowerLayers(parseLayerSizes(sizes.stdout), bytes);
  if (count === 0) return;
  const { imageId, tarball } = lowerImage(image, count);
  try {
    await loadInto(cli, Readable.from([tarball]), () => undefined);
    yield* saveImage(cli, imageId);
  } finally {
    await removeOwn(cli, imageId, warn);
  }
}

/**
 * An image of the lowest layers of another, as a tarball without any layer. The classic store takes it where it has these
 * layers: it looks for each before it reads it (moby, image/tarexport/load.go).
 */
function lowerImage(
  { platform, diffIds }: InspectedImage,
  count: number,
): { readonly imageId: Digest; readonly tarball: Buffer } {
  const layers = diffIds.slice(0, count);
  // Its ID is like no other's, so that nobody's image is removed with it.
  const comment = `image-handover, for a moment: ${randomUUID()}`;
  const config = json({ ...platform, comment, rootfs: { type: 'layers', diff_ids: layers } });
  const names = layers.map((diffId) => `${hexOf(diffId)}.tar`);
  const manifest = json([{ Config: 'config.json', RepoTags: null, Layers: names }]);
  const tarball = Buffer.concat([tarEntry('config.json', config), tarEntry('manifest.json', manifest), endOfArchive]);
  return { imageId: digestOf(config), tarball };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
