import type { ReadRange } from '../artifacts/store.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import type { ImageContents } from '../image/manifest.ts';
import { corruptLayer, type RecordLayer } from '../image/record.ts';
import { layerChunks } from '../tar/layer-form.ts';

/** A layer and its position in the tarball. */
export type LocatedLayer = Required<RecordLayer>;

/** An image in an artifact whose layers can be read one by one. */
export interface RangedImage {
  readonly contents: ImageContents;
  /** In the order they are applied. */
  readonly layers: readonly LocatedLayer[];
  readonly read: ReadRange;
}

/**
 * Reads a layer's bytes. Its digest is verified by the consumer.
 * @param onBytes called with the number of bytes of each part that has arrived
 * @throws HandoverError `artifact-corrupt` while iterating, when the first bytes don't match the media type
 */
export function layerBytes(
  { digest, size, mediaType, offset }: LocatedLayer,
  read: ReadRange,
  onBytes: (bytes: number) => void,
): LentChunks {
  return layerChunks(read(offset, offset + size, onBytes), mediaType, (what) => corruptLayer(digest, what));
}
