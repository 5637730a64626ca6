import { type LentChunk, type LentChunks, withHead } from '../bytes/chunks.ts';
import { type Packing, packingOf } from './compression.ts';
import { isZero, readTarHeader, tarBlock } from './header.ts';

// What a layer is, its first bytes tell, and they have to say the same as its media type. An engine keeps each blob that it is
// given: one that goes in as a layer and is a config or a manifest could be named by another document later.

/** How many of a layer's first bytes tell what it is. */
export const layerHeadBytes = tarBlock;

/** How a layer that begins so is packed; undefined for what can't be a layer: JSON, say. */
export function layerPackingOf(head: Buffer): Packing | undefined {
  const packing = packingOf(head);
  if (packing !== 'none') return packing;
  const block = head.subarray(0, tarBlock);
  // No bytes are an empty tar to Go. JSON has no zeros, and a tar's header has some.
  if (block.length === 0 || (block.length === tarBlock && isZero(block))) return 'none';
  return block.length === tarBlock && block.includes(0) && readTarHeader(block) !== undefined ? 'none' : undefined;
}

/**
 * Says in what a layer that is packed so isn't what its media type says; undefined when it is. Docker's type without a compression is
 * used for any (containerd, core/images/mediatypes.go, DiffCompression).
 * @param mediaType empty where none is known
 * @param packing undefined for what can't be a layer
 */
export function wrongForm(mediaType: string, packing: Packing | undefined): string | undefined {
  if (packing === undefined) return 'is no tar, whether packed or not';
  const packed = /[+.](gzip|zstd)$/.exec(mediaType)?.[1];
  const expected = packed ?? (mediaType.startsWith('application/vnd.oci.image.layer.') ? 'none' : packing);
  return packing === expected ? undefined : `is ${nameOf(packing)}, and of the media type ${mediaType}`;
}

function nameOf(packing: Packing): string {
  return packing === 'none' ? 'a plain tar' : `${packing} data`;
}

/**
 * The same chunks, once their first bytes have been found to be those of a layer.
 * @param refuse makes the error of what is wrong, the rest of a sentence that begins with the layer
 */
export async function* layerChunks(
  chunks: LentChunks,
  mediaType: string,
  refuse: (what: string) => Error,
): AsyncGenerator<LentChunk> {
  const { head, all } = await withHead(chunks, (bytes) => bytes.length >= layerHeadBytes);
  const wrong = wrongForm(mediaType, layerPackingOf(head));
  if (wrong !== undefined) throw refuse(wrong);
  yield* all;
}
