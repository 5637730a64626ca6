import type { Artifact } from '../shared/artifacts/store.ts';
import { type ErrorCode, HandoverError, messageOf, RegistryFailure } from '../shared/base/errors.ts';
import { chapter } from '../shared/base/timeline.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import type { RegistryCommands } from '../shared/docker/registry-commands.ts';
import { claimTags, guardTags, placeOf } from '../shared/docker/tag-guard.ts';
import { requireExpected } from '../shared/handed-over/expectations.ts';
import { findArtifact, type FindTools, type FoundArtifact } from '../shared/handed-over/find.ts';
import type { Identity } from '../shared/handed-over/identity.ts';
import { fallbackReference, type OpenedArtifact, resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { type Digest, parseDigest } from '../shared/image/digest.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { formatReference, type PinnedReference, type Reference } from '../shared/image/reference.ts';
import { chooseImage, imagesIn } from '../shared/tar/tarball-images.ts';
import { seeTarball } from '../shared/tar/tarball-reader.ts';
import { hostInfo, type IntoTools, loadInto } from './into/into-holders.ts';
import { findImage, type HeldImage, proveAndName } from './into/prove.ts';
import { type EachPlan, type LoadPlan, wishOf } from './plan/plan.ts';

// Loads one artifact's images, from the artifact or from a registry, and proves that they are the images that were handed over. The
// artifact is found once, and resolved once with the inputs (shared/handed-over). Then it is loaded into its holders (into/), or the image
// is pulled from the registry and compared with it.

/** The interfaces that a load uses. */
export type LoadTools = FindTools &
  IntoTools & {
    /** The engine that pulls images. */
    readonly engine: Engine;
    readonly registry: RegistryCommands;
  };

type EngineTools = LoadTools & { readonly info: EngineInfo };

export interface LoadResult {
  readonly reference: string;
  /** The image in the engine or the first node; undefined if it wasn't loaded. */
  readonly image: InspectedImage | undefined;
  readonly identity: Identity;
  /** `engine` if the image was already here, `build` if this job built it and uploaded nothing. */
  readonly source: 'artifact' | 'registry' | 'engine' | 'build';
  /** Undefined if the image came from another source. */
  readonly artifact: Artifact | undefined;
  readonly record: HandoverRecord | undefined;
  /** Total bytes downloaded. */
  readonly size: number;
  readonly loaded: boolean;
  /** Names of the nodes; undefined for an engine. */
  readonly nodes?: readonly string[] | undefined;
  /** Path of the OCI layout that was written. */
  readonly layoutPath?: string | undefined;
  /** The fallback image that was pulled, and the reason. */
  readonly fallback?: { readonly reference: string; readonly reason: string };
  /** Additional images of the same artifact. */
  readonly further: readonly { readonly reference: string; readonly identity: Identity }[];
}

const missingArtifact: readonly ErrorCode[] = ['run-not-found', 'artifact-not-found', 'artifact-expired'];

type Source = 'artifact' | 'registry';

const orders: Readonly<Record<EachPlan['from'], readonly [Source, Source?]>> = {
  artifact: ['artifact'],
  registry: ['registry'],
  'artifact-then-registry': ['artifact', 'registry'],
  'registry-then-artifact': ['registry', 'artifact'],
};

// Failures after which the second source is tried. It can't help with a wrong image, runner or input.
const failures: Readonly<Record<Source, readonly ErrorCode[]>> = {
  registry: ['registry-failed'],
  artifact: [
    'artifact-not-found',
    'artifact-expired',
    'artifact-corrupt',
    'tarball-invalid',
    'image-not-found',
    'transfer-failed',
  ],
};

/**
 * Loads the image from the sources in the plan.
 * @param fallback the image to pull if the artifact doesn't exist
 * @throws HandoverError with any error code of load-image. No reference or file is left behind.
 */
export async function loadImage(plan: LoadPlan, tools: LoadTools, fallback?: Reference): Promise<LoadResult> {
  try {
    return await fromSources(plan, tools);
  } catch (error) {
    if (fallback === undefined || !(error instanceof HandoverError) || !missingArtifact.includes(error.code))
      throw error;
    const name = formatReference(fallback);
    tools.log.warning(`Pulling ${name} (\`fallback-image\`) instead of the artifact: ${error.message}`);
    return pullFallback(plan, fallback, tools, error.message);
  }
}

async function fromSources(plan: LoadPlan, tools: LoadTools): Promise<LoadResult> {
  const { log, holders } = tools;
  let found: Promise<FoundArtifact> | undefined;
  const find = (): Promise<FoundArtifact> =>
    (found ??= chapter(tools, 'Find the artifact', () => findArtifact(plan.artifactName, tools), 'Find'));
  // Without `registry-image`, the artifact is needed to know what to pull. As the second source, it is only compared with the pulled image.
  const findToCompare = async (): Promise<FoundArtifact | undefined> => {
    if (plan.registryImage === undefined) return find();
    if (plan.from !== 'registry-then-artifact') return undefined;
    return find().catch((error: unknown) => {
      log.info(`There is no artifact to compare with: ${messageOf(error)}`);
      return undefined;
    });
  };
  const load: Readonly<Record<Source, () => Promise<LoadResult>>> = {
    artifact: async () => {
      find().catch(() => undefined); // rethrown below, because a missing engine is reported first
      const info = await hostInfo(holders);
      return loadArtifact(plan, tools, await find(), info);
    },
    registry: async () => loadFromRegistry(plan, tools, await findToCompare()),
  };
  const [first, second] = orders[plan.from];
  try {
    return await load[first]();
  } catch (error) {
    if (second === undefined || !(error instanceof HandoverError) || !failures[first].includes(error.code)) throw error;
    log.warning(`The image can't be loaded from the ${first}, so it is loaded from the ${second}. ${error.message}`);
    return load[second]();
  }
}

/**
 * Loads the images of an artifact. Resolves it, loads the images that the holders lack, and verifies them there.
 * @throws HandoverError with any error code of load-image. No reference or file is left behind.
 */
export async function loadArtifact(
  plan: EachPlan,
  tools: IntoTools,
  found: FoundArtifact,
  info: EngineInfo,
): Promise<LoadResult> {
  const opened = resolveArtifact(found, wishOf(plan, info.platform));
  const { images, image, loaded, size } = await loadInto({ ...tools, ...plan, opened, info });
  const { origin, content, record } = opened;
  const [main, ...further] = images;
  const nodes = tools.holders.flatMap(({ node }) => node ?? []);
  return {
    ...namedImage(main),
    image,
    loaded,
    size,
    source: loaded || tools.holders.length === 0 ? origin : 'engine',
    artifact: origin === 'artifact' ? content.artifact : undefined,
    record,
    layoutPath: plan.layoutPath,
    further: further.map(namedImage),
    nodes: nodes.length === tools.holders.length ? nodes : undefined,
  };
}

function namedImage({ references, identity }: HeldImage): Pick<LoadResult, 'reference' | 'identity'> {
  return { reference: formatReference(references[0]), identity };
}

/**
 * Pulls the image by digest, proves that it is the expected one, and only then sets its reference.
 * @param found the artifact to compare with, if there is one
 * @throws HandoverError `registry-failed`, or the code for a wrong image. None of its references is left behind.
 */
async function loadFromRegistry(
  plan: LoadPlan,
  tools: LoadTools,
  found: FoundArtifact | undefined,
): Promise<LoadResult> {
  const { engine, registry, log } = tools;
  const info = await engine.info();
  const wish = wishOf(plan, info.platform);
  const opened = found === undefined ? undefined : resolveArtifact(found, wish);
  const record = opened?.record;
  const known = opened?.images?.[0].identity;
  const reference = plan.reference ?? record?.references[0] ?? fallbackReference;
  const facts = { reference: formatReference(reference), artifact: undefined, record, size: 0, further: [] };
  // Disposed of last: the pulled reference must be kept while the repository has a tag.
  await using pulled = new AsyncDisposableStack();
  await using guard = guardTags(engine, log.warning, await claimTags([placeOf(info)], [reference], tools));
  const prove = async (name: string, identity: Identity, what: string): Promise<InspectedImage> => {
    const image = await proveAndName({ engine, log, info }, { name, identity, references: [reference] }, what, guard);
    guard.keep();
    return image;
  };
  const here = known === undefined ? undefined : await findImage({ engine, info }, known, [reference]);
  if (known !== undefined && here !== undefined) {
    log.info(`The engine already has this image: ${here}. Nothing to load.`);
    const image = await prove(here, known, 'the image that was handed over');
    return { ...facts, image, identity: known, source: 'engine', loaded: false };
  }

  const source = plan.registryImage ?? record?.pushedReference ?? missingReference();
  const name = formatReference(source);
  const before = await engine.inspect(name);
  if (before === undefined) {
    await chapter(tools, 'Pull', () => registry.pull(source));
    pulled.defer(() => removePinned(tools, source));
  }
  const image = before ?? (await engine.inspect(name)) ?? missingImage(name);
  // The containerd store doesn't pull a layer that it has already unpacked for another manifest.
  if (image.isWhole === false) {
    throw new HandoverError(
      'registry-failed',
      `The engine did not pull all of ${name}: it already has some layers, unpacked from another image in a different form. docker ` +
        'save and docker push would fail.',
      'Set `from: artifact` or `from: registry-then-artifact`, or load into an engine without that other image.',
    );
  }
  const identity = await identifyPulled(plan, { ...tools, info }, source, image, opened);
  // A known image has already been compared with the expectations, and this is that image.
  if (known === undefined) requireExpected(wish, [identity]);
  const loaded = before === undefined;
  const proved = await prove(name, identity, name);
  return { ...facts, image: proved, identity, source: loaded ? 'registry' : 'engine', loaded };
}

/**
 * Identifies a pulled image. The engine has verified it against the digest in the reference. In a containerd store, that digest is the
 * image's ID.
 * @throws HandoverError `image-mismatch` if it isn't the image that was handed over
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

// In the classic store, the image ID is the config digest. For the containerd store, the registry returns the config digest.
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

// The engine lists a pulled digest as a separate reference. Removing it from the containerd store removes every tag of that repository, so
// it is kept if there is a tag.
async function removePinned({ engine, log }: LoadTools, source: PinnedReference): Promise<void> {
  const pinned = formatReference(source);
  const image = await engine.forCleanUp.inspect(pinned);
  if (image === undefined || image.repoTags.some((name) => name.startsWith(`${source.repository}:`))) return;
  await engine.untag(pinned).catch((error: unknown) => {
    log.info(`The reference ${pinned} could not be removed: ${String(error)}`);
  });
}

/**
 * Pulls another image instead of a missing artifact. It is compared only with the expectations in the inputs.
 * @param reason why there is no artifact
 * @throws HandoverError `registry-failed`, or the code for a wrong image. None of its references is left behind.
 */
async function pullFallback(
  plan: LoadPlan,
  fallback: Reference,
  tools: LoadTools,
  reason: string,
): Promise<LoadResult> {
  const { engine, registry, log } = tools;
  const pulledFrom = formatReference(fallback);
  const target = plan.reference ?? fallback;
  const reference = formatReference(target);
  const pull = async (): Promise<LoadResult> => {
    const info = await engine.info();
    await using guard = guardTags(engine, log.warning, await claimTags([placeOf(info)], [fallback, target], tools));
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
  };
  return chapter(tools, 'Pull the fallback image', pull, 'Pull');
}

// With the containerd store, only the output of docker save shows the config digest. So the whole image must be read.
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
    'Check the engine on this runner: docker image ls; docker info.',
  );
}
