import type { Digest } from './digest.ts';

/** A blob that can be asked for. */
export interface OfferedBlob {
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
  /** Each is valid until the next is asked for. */
  chunks(): AsyncIterable<Buffer>;
}

/** An image whose manifest, config and layers can be asked for one by one. */
export interface OfferedImage {
  readonly manifestDigest: Digest;
  readonly blobs: ReadonlyMap<Digest, OfferedBlob>;
}
