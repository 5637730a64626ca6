import type { CacheService } from '../plan/cache.ts';
import type { NewLayers } from '../plan/compression.ts';
import type { PushPlan } from '../plan/push-plan.ts';
import { pushFromEngine, type PushState, type PushTools } from '../push.ts';
import type { UsedCaches } from './build-caches.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import type { ActionsCache } from '../../shared/cache/actions-cache.ts';
import type { Buildx } from '../../shared/docker/buildx.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { Digest } from '../../shared/image/digest.ts';
import { isImageId } from '../../shared/image/reference.ts';
import type { ReplacedLayer } from '../../shared/layout/read-layout.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';

/**
 * Returns the local references that the user may have meant: another tag of the same repository, or a different case. All are as docker
 * prints them.
 * @internal
 */
export function nearMisses(wanted: string, local: readonly string[]): readonly string[] {
  const repository = (reference: string): string => reference.slice(0, tagColon(reference)).toLowerCase();
  const last = (reference: string): string => repository(reference).split('/').at(-1) ?? '';
  const same = local.filter((reference) => repository(reference) === repository(wanted));
  return same.length > 0 ? same : local.filter((reference) => last(reference) === last(wanted));
}

function tagColon(reference: string): number {
  const colon = reference.lastIndexOf(':');
  return colon > reference.lastIndexOf('/') ? colon : reference.length;
}

export interface SourceTools extends PushTools {
  readonly buildx: Buildx;
  readonly cacheService: CacheService;
  /** Undefined if BuildKit's `gha` cache uses another service than this job's own. */
  readonly actionsCache: ActionsCache | undefined;
  /** A temporary folder for layouts and secrets. */
  readonly tempDir: string;
}

export interface LayoutRequest {
  readonly directory: string;
  readonly compression: NewLayers;
}

/** Returns whether the builder exports OCI layouts. If not, it loads images into the engine. */
export async function exportsLayouts(
  { buildx, engine, log }: SourceTools,
  builderName: string | undefined,
): Promise<boolean> {
  // At the same time as the builder: each query takes a tenth of a second. A builder outside of the engine needs no answer.
  const info = engine.info();
  info.catch(() => undefined);
  const { name, driver } = await buildx.builder(builderName);
  const exports = driver !== 'docker' || (await info).imageStore.exportsLayouts;
  log.info(`Builder ${name} (driver ${driver}): ${exports ? 'OCI layout' : 'load and docker save'}`);
  return exports;
}

export interface SourcedImage {
  readonly steps: readonly BuildStep[];
  /** Layers that were compressed during the save. */
  readonly replaced?: ReadonlyMap<Digest, ReplacedLayer>;
  readonly push?: PushState;
  readonly caches?: UsedCaches;
  /** Disposed of at the end of the export. */
  readonly kept?: AsyncDisposable;
}

/**
 * Saves an image of this engine into an OCI layout.
 * @param name a reference with a tag or digest, or an image ID
 * @throws HandoverError `image-not-found`, with the local references and similar ones
 */
export async function saveIntoLayout(
  tools: SourceTools,
  name: string,
  layout: LayoutRequest,
  push: PushPlan | undefined,
): Promise<SourcedImage> {
  const found = await tools.engine.inspect(name);
  if (found === undefined) throw await notFound(tools.engine, name);
  tools.log.info(`Found ${name} (${found.imageId})`);
  const image = isImageId(name) ? found.imageId : name;
  const replaced = await writeOciLayout(tools.engine.save(image), layout.directory, layout.compression.saved);
  if (push === undefined) return { steps: [], replaced };
  return { steps: [], replaced, push: { kind: 'to-do', push: () => pushFromEngine(tools, image, push) } };
}

async function notFound(engine: Engine, name: string): Promise<HandoverError> {
  const local = (await engine.images()).flatMap(({ reference }) =>
    reference?.includes('@') === false ? [reference] : [],
  );
  const near = nearMisses(engine.nameOf(name), local);
  const shown = local.slice(0, 20).join(', ') || 'none';
  return new HandoverError(
    'image-not-found',
    `There is no image ${name} in this engine.` +
      (near.length > 0 ? ` It has ${near.join(', ')}.` : '') +
      ` Local images: ${shown}${local.length > 20 ? ` and ${String(local.length - 20)} more` : ''}.`,
    missingHint(name, near),
  );
}

function missingHint(name: string, near: readonly string[]): string {
  if (isImageId(name)) {
    return 'Give the reference instead: an image has another ID in each engine and image store, and a build without `load: true` leaves none here.';
  }
  return near.length > 0
    ? 'Correct the tag in `source-image`, or build with that tag.'
    : 'Build it in this job first, with `load: true` if docker/build-push-action builds it.';
}
