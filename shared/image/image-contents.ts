import type { Digest } from './digest.ts';
import type { Descriptor, ImageConfig } from './manifest.ts';

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
