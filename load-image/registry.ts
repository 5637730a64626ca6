import { HandoverError, RegistryFailure } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import type { RegistryCommands } from '../shared/docker/registry-commands.ts';
import { claimTags, guardTags, placeOf } from '../shared/docker/tag-guard.ts';
import { type Digest, parseDigest } from '../shared/image/digest.ts';
import { formatReference, type PinnedReference, type Reference } from '../shared/image/reference.ts';
import { requireExpected } from '../shared/handed-over/expectations.ts';
import type { FoundArtifact } from '../shared/handed-over/find.ts';
import type { Identity } from '../shared/handed-over/identity.ts';
import { fallbackReference, type OpenedArtifact, resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { chooseImage, imagesIn } from '../shared/tar/tarball-images.ts';
import { seeTarball } from '../shared/tar/tarball-reader.ts';
import { findImage, proveAndName } from './into/prove.ts';
import { type LoadPlan, wishOf } from './plan/plan.ts';
import type { LoadResult } from './result.ts';

export interface RegistryTools {
  /** The engine that pulls. */
  readonly engine: Engine;
  readonly registry: RegistryCommands;
  readonly log: Log;
  readonly timeline: Timeline;
  readonly signal: AbortSignal;
}

type EngineTools = RegistryTools & { readonly info: EngineInfo };

/**
 * Pulls the image by digest, proves that it is the expected one, and only then sets its reference.
 * @param found the artifact to compare with, if there is one
 * @throws HandoverError `registry-failed`, or the code for a wrong image; then no reference of it is left
 */
export async function loadFromRegistry(
  plan: LoadPlan,
  tools: RegistryTools,
  found: FoundArtifact | undefined,
): Promise<LoadResult> {
  const { engine, registry, log, timeline } = tools;
  const info = await engine.info();
  const wish = wishOf(plan, info.platform);
  const opened = found === undefined ? undefined : resolveArtifact(found, wish);
  const record = opened?.record;
  const known = opened?.images?.[0].identity;
  const reference = plan.reference ?? record?.references[0] ?? fallbackReference;
  const facts = { reference: formatReference(reference), artifact: undefined, record, size: 0, further: [] };
  // Disposed of last: the pulled reference has to be kept while the repository has a tag.
  await using pulled = new AsyncDisposableStack();
  await using guard = guardTags(engine, log.warning, await claimTags([placeOf(info)], [reference], tools));
  const prove = async (name: string, identity: Identity, what: string): Promise<InspectedImage> => {
    const image = await proveAndName({ engine, log, info }, { name, identity, references: [reference] }, what, guard);
    guard.keep();
    return image;
  };
  const here = known === undefined ? undefined : await findImage({ engine, info }, known, [reference]);
  if (known !== undefined && here !== undefined) {
    log.info(`The engine has this image already: ${here}. Nothing to load.`);
    const image = await prove(here, known, 'the image that was handed over');
    return { ...facts, image, identity: known, source: 'engine', loaded: false };
  }

  const source = plan.registryImage ?? record?.pushedReference ?? missingReference();
  const name = formatReference(source);
  const before = await engine.inspect(name);
  if (before === undefined) {
    await log.chapter('Pull', () => timeline.measure('Pull', () => registry.pull(source)));
    pulled.defer(() => removePinned(tools, source));
  }
  const image = before ?? (await engine.inspect(name)) ?? missingImage(name);
  if (image.isWhole === false) throw notWhole(name);
  const identity = await identifyPulled(plan, { ...tools, info }, source, image, opened);
  // A known image was compared with the expectations before, and this is that image.
  if (known === undefined) requireExpected(wish, [identity]);
  const loaded = before === undefined;
  const proved = await prove(name, identity, name);
  return { ...facts, image: proved, identity, source: loaded ? 'registry' : 'engine', loaded };
}

/**
 * Identifies a pulled image. The engine has verified it against the digest of the reference, which is its ID in a containerd store.
 * @throws HandoverError `image-mismatch` when it isn't the image that was handed over
 */
async function identifyPulled(
  plan: LoadPlan,
  tools: EngineTools,
  source: PinnedReference,
  image: InspectedImage,
  opened: OpenedArtifact | undefined,
): Promise<Identity> {
  const known = opened?.images?.[0].identity;
  const wanted = known?.configDigest ?? opened?.record?.configDigest;
  const configDigest =
    known?.manifestDigest === source.digest
      ? known.configDigest
      : await configDigestOf(tools, source, image, wanted !== undefined || plan.expectedConfigDigest !== undefined);
  if (wanted !== undefined && configDigest !== wanted) {
    throw new HandoverError(
      'image-mismatch',
      `${formatReference(source)} is not the image that was handed over: config digest ${configDigest ?? 'unknown'} instead of ${wanted}.`,
      'Check that `registry-image` and `artifact-name` come from the same export job.',
    );
  }
  return { ...(known ?? image), configDigest, manifestDigest: source.digest };
}

// On the classic store the image ID is the config digest. For the containerd store, the registry returns it.
async function configDigestOf(
  { registry, log, info }: EngineTools,
  source: PinnedReference,
  image: InspectedImage,
  isNeeded: boolean,
): Promise<Digest | undefined> {
  if (info.imageStore.imageIdIs === 'config') return parseDigest(image.imageId);
  try {
    return await registry.configDigest(source, image.platform);
  } catch (error) {
    if (!(error instanceof RegistryFailure) || isNeeded) throw error;
    log.info(`The config digest is not known: ${error.message}`);
    return undefined;
  }
}

// The engine lists a pulled digest as a reference of its own. The containerd store removes every tag of that repository with it, so
// it is kept where there is one.
async function removePinned({ engine, log }: RegistryTools, source: PinnedReference): Promise<void> {
  const pinned = formatReference(source);
  const image = await engine.forCleanUp.inspect(pinned);
  if (image === undefined || image.repoTags.some((name) => name.startsWith(`${source.repository}:`))) return;
  await engine.untag(pinned).catch((error: unknown) => {
    log.info(`The reference ${pinned} could not be removed: ${String(error)}`);
  });
}

/**
 * Pulls another image instead of a missing artifact. It is compared only with the inputs' expectations.
 * @param reason why there is no artifact
 * @throws HandoverError `registry-failed`, or the code for a wrong image; then no reference of it is left
 */
export async function pullFallback(
  plan: LoadPlan,
  fallback: Reference,
  tools: RegistryTools,
  reason: string,
): Promise<LoadResult> {
  const { engine, registry, log, timeline } = tools;
  const pulledFrom = formatReference(fallback);
  const reference = plan.reference === undefined ? pulledFrom : formatReference(plan.reference);
  return log.chapter('Pull the fallback image', () =>
    timeline.measure('Pull', async () => {
      const info = await engine.info();
      const claimed = [fallback, plan.reference ?? fallback];
      await using guard = guardTags(engine, log.warning, await claimTags([placeOf(info)], claimed, tools));
      await guard.during(pulledFrom, () => registry.pull(fallback));
      const image = (await engine.inspect(pulledFrom)) ?? missingImage(pulledFrom);
      const configDigest = await fallbackDigest(plan, fallback, image, { ...tools, info });
      const identity = { ...image, configDigest, manifestDigest: undefined };
      requireExpected(wishOf(plan, info.platform), [identity]);
      if (reference !== pulledFrom) await guard.tag(pulledFrom, reference);
      guard.keep();
      log.info(`Pulled: ${reference} is ${pulledFrom} (${image.imageId})`);
      const facts = { artifact: undefined, record: undefined, size: 0, loaded: true, further: [] } as const;
      return { ...facts, source: 'registry', reference, image, identity, fallback: { reference: pulledFrom, reason } };
    }),
  );
}

// On the containerd store only the tarball of docker save shows the config digest. That takes reading the whole image.
async function fallbackDigest(
  plan: LoadPlan,
  fallback: Reference,
  image: InspectedImage,
  { engine, info }: EngineTools,
): Promise<Digest | undefined> {
  if (info.imageStore.imageIdIs === 'config') return parseDigest(image.imageId);
  if (plan.expectedConfigDigest === undefined) return undefined;
  const { images } = imagesIn(await seeTarball(engine.save(formatReference(fallback))));
  return chooseImage(images, fallback, image.platform).configDigest;
}

// The containerd store doesn't pull a layer that it has unpacked for another manifest.
function notWhole(reference: string): HandoverError {
  return new HandoverError(
    'registry-failed',
    `The engine did not pull all of ${reference}: it has layers of it unpacked from another image, in another form. docker ` +
      'save and docker push would fail.',
    'Set `from: artifact` or `from: registry-then-artifact`, or load into an engine without that other image.',
  );
}

function missingReference(): never {
  throw new HandoverError(
    'registry-failed',
    'There is nothing to pull: `registry-image` is empty, and the record of the artifact has no pushed reference.',
    'Set `registry-image: ${{ needs.build.outputs.pushed-reference }}`, and `push: true` in export-image.',
  );
}

function missingImage(reference: string): never {
  throw new HandoverError(
    'image-missing',
    `docker pull succeeded, but \`docker image inspect ${reference}\` finds no image.`,
    'Look at the engine on this runner: docker image ls; docker info.',
  );
}
