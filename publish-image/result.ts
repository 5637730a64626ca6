import type { FindTools } from '../shared/handed-over/find.ts';
import type { Artifact } from '../shared/artifacts/store.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { RangedImage } from '../shared/handed-over/ranged-image.ts';
import type { Digest } from '../shared/image/digest.ts';
import type { Platform } from '../shared/image/platform.ts';
import type { TaggedReference } from '../shared/image/reference.ts';
import type { BlobOrigin, RegistryClient } from '../shared/registry/registry-client.ts';

/** One image, as the artifact has it. */
export interface SourceImage extends RangedImage {
  readonly artifact: Artifact;
  readonly platform: Platform;
}

/** What happened. */
export interface PublishResult {
  /** Of the manifest, or the index, under each of the references. */
  readonly digest: Digest;
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  readonly images: readonly {
    readonly artifact: Artifact;
    readonly platform: Platform;
    readonly manifestDigest: Digest;
    readonly configDigest: Digest;
  }[];
  /** Whether there was anything to do. */
  readonly isNew: boolean;
  /** Bytes of blobs, by how they got there; each counted once for each repository. */
  readonly bytes: Readonly<Record<BlobOrigin, number>>;
}

export interface PublishTools extends FindTools {
  readonly timeline: Timeline;
  readonly registry: (repository: string) => Promise<RegistryClient>;
  /** Called before the step fails when some of the references are set: with those. */
  readonly onPartial: (result: PublishResult) => void;
}
