import type { Identity } from '../shared/handed-over/identity.ts';
import type { Artifact } from '../shared/artifacts/store.ts';
import type { InspectedImage } from '../shared/docker/output.ts';
import type { HandoverRecord } from '../shared/image/record.ts';

export interface LoadResult {
  readonly reference: string;
  /** The image in the engine or the first node; undefined when it was loaded nowhere. */
  readonly image: InspectedImage | undefined;
  readonly identity: Identity;
  /** `engine` when the image was here already, `build` when this job built it and uploaded nothing. */
  readonly source: 'artifact' | 'registry' | 'engine' | 'build';
  /** Undefined when the image came from elsewhere. */
  readonly artifact: Artifact | undefined;
  readonly record: HandoverRecord | undefined;
  /** Total bytes downloaded. */
  readonly size: number;
  readonly loaded: boolean;
  /** Names of the nodes; undefined for an engine. */
  readonly nodes?: readonly string[];
  /** Path of the OCI layout that was written. */
  readonly layoutPath?: string | undefined;
  /** The fallback image that was pulled, and the reason. */
  readonly fallback?: { readonly reference: string; readonly reason: string };
  /** Further images of the same artifact. */
  readonly further: readonly { readonly reference: string; readonly identity: Identity }[];
}
