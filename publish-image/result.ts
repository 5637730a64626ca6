import type { FindTools } from '../shared/handed-over/find.ts';
import type { Artifact } from '../shared/artifacts/store.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { ImageAttestations } from '../shared/handed-over/attestations.ts';
import type { RangedImage } from '../shared/handed-over/identity.ts';
import type { Digest } from '../shared/image/digest.ts';
import type { Platform } from '../shared/image/platform.ts';
import type { TaggedReference } from '../shared/image/reference.ts';
import type { BlobOrigin, RegistryClient } from '../shared/registry/registry-client.ts';

export interface SourceImage extends RangedImage {
  readonly artifact: Artifact;
  readonly platform: Platform;
  readonly attestations: ImageAttestations | undefined;
}

export interface PublishResult {
  /** Digest of the manifest or index under each reference. */
  readonly digest: Digest;
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  readonly images: readonly {
    readonly artifact: Artifact;
    readonly platform: Platform;
    readonly manifestDigest: Digest;
    readonly configDigest: Digest;
  }[];
  /** Whether anything was published. */
  readonly isNew: boolean;
  /** Bytes of blobs by their origin; each is counted once for each repository. */
  readonly bytes: Readonly<Record<BlobOrigin, number>>;
}

export interface PublishTools extends FindTools {
  readonly timeline: Timeline;
  readonly registry: (repository: string) => Promise<RegistryClient>;
  /** Called with the references that are set, before the step fails. */
  readonly onPartial: (result: PublishResult) => void;
}
