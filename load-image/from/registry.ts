import type { Handover } from '../../shared/handed-over/find.ts';
import type { Identity } from '../../shared/handed-over/identity.ts';
import type { LoadTools } from '../load-image.ts';
import type { LoadResult } from '../result.ts';
import { findHere, proveAndName } from '../name.ts';
import { fallbackReference, type LoadPlan } from '../plan/plan.ts';
import { requireExpected } from '../verify.ts';
import { HandoverError, RegistryFailure } from '../../shared/base/errors.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import type { RegistryCommands } from '../../shared/docker/registry-commands.ts';
import { claimTags, placeOf } from '../../shared/docker/tag-claims.ts';
import { guardTags } from '../../shared/docker/tag-guard.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';
import { formatReference, type PinnedReference, type Reference } from '../../shared/image/reference.ts';
import { chooseImage, imagesIn } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';

export interface RegistryTools {
  readonly registry: RegistryCommands;
}

type Tools = Pick<LoadTools, 'engine' | 'log' | 'timeline' | 'signal'> & RegistryTools;
type EngineTools = Tools & { readonly info: EngineInfo };

/**
 * Pulls the image by digest, proves that it is the one expected, and only then names it.
 * @param handover what was handed over, where that is known
 * @throws HandoverError `registry-failed`, or what is wrong with the image; then no reference of it is left behind
 */
export async function loadFromRegistry(
  plan: LoadPlan,
  tools: Tools,
  handover: Handover | undefined,
): Promise<LoadResult> {
  const { engine, registry, log, timeline } = tools;
  const info = await engine.info();
  const record = handover?.record;
  const known = handover?.known?.[0]?.identity;
  const claimed = known ?? record;
  if (claimed !== undefined) requireExpected(plan, claimed, info.platform);
  const references = [plan.reference ?? record?.references[0] ?? fallbackReference];
  const facts = {
    reference: formatReference(references[0] ?? fallbackReference),
    artifact: undefined,
    record,
    size: 0,
    further: [],
  };
  // Disposed of last: with a tag of the same repository beside it, the pulled reference has to stay.
  await using pulled = new AsyncDisposableStack();
  await using guard = guardTags(engine, log.warning, await claimTags([placeOf(info)], references, tools));
  const here = known === undefined ? undefined : await findHere({ engine, info }, known, references);
  if (known !== undefined && here !== undefined) {
    log.info(`The engine has this very image already: ${here}. Nothing to load.`);
    const image = await proveAndName(
      { engine, log, info },
      { name: here, identity: known, references },
      handedOver,
      guard,
    );
    guard.keep();
    return { ...facts, image, identity: known, source: 'engine', loaded: false };
  }

  const source = plan.registryImage ?? record?.pushedReference ?? missingReference();
  const name = formatReference(source);
  const before = await engine.inspect(name);
  if (before === undefined) {
    await log.chapter('Pull', () => timeline.measure('Pull', () => registry.pull(source)));
    pulled.defer(() => removePinned(tools, source));
  }
  const found = before ?? (await engine.inspect(name)) ?? missingImage(name);
  if (found.isWhole === false) throw notWhole(name);
  const identity = await identifyPulled(plan, { ...tools, info }, source, found, handover);
  requireExpected(plan, identity, info.platform);
  const image = await proveAndName({ engine, log, info }, { name, identity, references }, name, guard);
  guard.keep();
  const loaded = before === undefined;
  return { ...facts, image, identity, source: loaded ? 'registry' : 'engine', loaded };
}

const handedOver = 'the image that was handed over';

/**
 * Who a pulled image is: the engine has checked all of it against the digest that it was pulled by, and that is what a
 * containerd store calls it.
 * @throws HandoverError `image-mismatch` when it isn't the image that was handed over
 */
async function identifyPulled(
  plan: LoadPlan,
  tools: EngineTools,
  source: PinnedReference,
  image: InspectedImage,
  handover: Handover | undefined,
): Promise<Identity> {
  const known = handover?.known?.[0]?.identity;
  const wanted = known?.configDigest ?? handover?.record?.configDigest;
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

// On the classic store the image ID is the config digest. The containerd store doesn't tell it: the registry is asked.
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

// The engine lists a pulled digest as a reference of its own. The containerd store removes every tag of that repository
// with it: so it stays where there is one.
async function removePinned({ engine, log }: Tools, source: PinnedReference): Promise<void> {
  const pinned = formatReference(source);
  const image = await engine.forCleanUp.inspect(pinned);
  if (image === undefined || image.repoTags.some((name) => name.startsWith(`${source.repository}:`))) return;
  await engine.untag(pinned).catch((error: unknown) => {
    log.info(`The reference ${pinned} stays in the engine: ${String(error)}`);
  });
}

/**
 * Pulls another image, where there is no artifact: nobody says who it has to be but the inputs.
 * @param reason why there is no artifact
 * @throws HandoverError `registry-failed`, or what is wrong with the image; then no reference of it is left behind
 */
export async function pullFallback(
  plan: LoadPlan,
  fallback: Reference,
  tools: Tools,
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
      requireExpected(plan, identity, info.platform);
      if (reference !== pulledFrom) await guard.tag(pulledFrom, reference);
      guard.keep();
      log.info(`Pulled: ${reference} is ${pulledFrom} (${image.imageId})`);
      const facts = { artifact: undefined, record: undefined, size: 0, loaded: true, further: [] } as const;
      return { ...facts, source: 'registry', reference, image, identity, fallback: { reference: pulledFrom, reason } };
    }),
  );
}

// On the containerd store the tarball of docker save names the config, which takes reading the whole image: only when it is
// asked for.
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
    'There is nothing to pull: `registry-image` is empty, and the record of the artifact names no pushed reference.',
    'Set `registry-image: ${{ needs.build.outputs.pushed-reference }}`, and `push: true` in export-image.',
  );
}

function missingImage(reference: string): never {
  throw new HandoverError(
    'image-missing',
    `docker pull said that all was well, but docker image inspect ${reference} finds no image.`,
    'Look at the engine on this runner: docker image ls; docker info.',
  );
}
