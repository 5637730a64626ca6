import { type LentChunk, type LentChunks, withHead } from '../bytes/chunks.ts';
import { type Packing, packingOf } from './compression.ts';
import { isZero, readTarHeader, tarBlock } from './header.ts';

// A layer's first bytes must match its media type. An engine keeps every blob that it receives: a config that was sent as a layer
// could be used by another document later.

/** Number of bytes at a layer's start that identify its format. */
export const layerHeadBytes = tarBlock;

/** Returns how a layer is packed, from its first bytes; undefined when it can't be a layer, such as JSON. */
export function layerPackingOf(head: Buffer): Packing | undefined {
  const packing = packingOf(head);
  if (packing !== 'none') return packing;
  const block = head.subarray(0, tarBlock);
  // Go reads an empty file as an empty tar. A tar header contains zero bytes, which JSON never does.
  if (block.length === 0 || (block.length === tarBlock && isZero(block))) return 'none';
  return block.length === tarBlock && block.includes(0) && readTarHeader(block) !== undefined ? 'none' : undefined;
}

/**
 * Returns how a layer's packing differs from its media type, or undefined when they match. Docker's type without a compression covers
 * every packing (containerd, core/images/mediatypes.go, DiffCompression).
 * @param mediaType empty when unknown
 * @param packing undefined when the blob can't be a layer
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
 * Returns the same chunks after checking that their first bytes match the media type.
 * @param refuse makes the error from the end of a sentence whose subject is the layer
 */
export async function* layerChunks(
  chunks: LentChunks,
  mediaType: string,
  refuse: (what: string) => Error,
): AsyncGenerator<LentChunk> {
  const { head, all } = await withHead(chunks, layerHeadBytes);
  const wrong = wrongForm(mediaType, layerPackingOf(head));
  if (wrong !== undefined) throw refuse(wrong);
  yield* all;
}
