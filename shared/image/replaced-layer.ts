import type { Digest } from './digest.ts';

/** A layer that lies in a layout under another digest than the layout's manifest says: we have compressed it. */
export interface ReplacedLayer {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly mediaType: string;
}
