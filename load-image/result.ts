import type { Identity } from '../shared/handed-over/identity.ts';
import type { Artifact } from '../shared/artifacts/store.ts';
import type { InspectedImage } from '../shared/docker/output.ts';
import type { HandoverRecord } from '../shared/image/record.ts';

/** What happened. */
export interface LoadResult {
  readonly reference: string;
  /** What the engine has; of several nodes, what the first one has. Undefined where the image went into none. */
  readonly image: InspectedImage | undefined;
  readonly identity: Identity;
  /** Where it came from: `engine` when it was here already, `build` when this job has made it and handed over nothing. */
  readonly source: 'artifact' | 'registry' | 'engine' | 'build';
  /** Undefined when no artifact was needed. */
  readonly artifact: Artifact | undefined;
  readonly record: HandoverRecord | undefined;
  /** Bytes that were downloaded. */
  readonly size: number;
  readonly loaded: boolean;
  /** The nodes that have it; undefined where it went into the engine. */
  readonly nodes?: readonly string[];
  /** The OCI layout that was written. */
  readonly layoutPath?: string | undefined;
  /** The fallback that was pulled, and why. */
  readonly fallback?: { readonly reference: string; readonly reason: string };
  /** Further images of the same artifact. */
  readonly further: readonly { readonly reference: string; readonly identity: Identity }[];
}
