import type { ArtifactStore } from '../shared/artifacts/store.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { ActionsCache } from '../shared/cache/actions-cache.ts';
import type { BuildStep } from '../shared/docker/build-progress.ts';
import type { Buildx } from '../shared/docker/buildx.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { RegistryCommands } from '../shared/docker/registry-commands.ts';
import type { Producer } from '../shared/image/record.ts';
import type { CacheService } from './plan/cache.ts';

/** Everything that an export uses. */
export interface Tools {
  readonly engine: Engine;
  readonly buildx: Buildx;
  readonly registry: RegistryCommands;
  readonly cacheService: CacheService;
  /** Undefined if BuildKit's `gha` cache uses a service other than this job's. */
  readonly actionsCache: ActionsCache | undefined;
  readonly store: ArtifactStore;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly timeline: Timeline;
  readonly producer: Producer;
  /** Called with the steps of a build as soon as they are known, even if the export fails later. */
  readonly onSteps: (steps: readonly BuildStep[]) => void;
}

/** Everything that filling an OCI layout uses. */
export interface LayoutTools extends Tools {
  /** The folder of the layout. */
  readonly layout: string;
  /** A temporary folder for secrets and caches. */
  readonly tempDir: string;
  /** Collects everything to dispose of at the end of the export. */
  readonly kept: AsyncDisposableStack;
}
