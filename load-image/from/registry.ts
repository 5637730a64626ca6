import { alreadyHere, type LoadResult, type LoadTools } from '../load-image.ts';
import { fallbackReference, type LoadPlan } from '../plan/plan.ts';
import { type ExpectedImage, requireExpected, requireSameImage } from '../verify.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import { type Registry } from '../../shared/docker/registry.ts';
import { RegistryFailure } from '../../shared/base/registry-failure.ts';
import { guardTags, type TagGuard } from '../../shared/docker/tag-guard.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { formatReference, type PinnedReference } from '../../shared/image/reference.ts';

export interface RegistryTools {
  readonly registry: Registry;
}

type Tools = Omit<LoadTools, 'store' | 'runAttempt'> & RegistryTools;

/**
 * Pulls the image by digest, tags it, and proves that it is the one expected.
 * @param record what was handed over, where that is known
 * @throws HandoverError `registry-failed`, or what is wrong with the image; then no reference of it is left behind
 */
export async function loadFromRegistry(
  plan: LoadPlan,
  tools: Tools,
  record: HandoverRecord | undefined,
): Promise<LoadResult> {
  const { engine, registry, log, timeline } = tools;
  const info = await engine.info();
  if (record !== undefined) requireExpected(plan, record, info.platform);
  const present = await alreadyHere({ ...plan, tarballPath: undefined }, tools, record);
  if (present !== undefined) return { ...present, artifact: undefined, record };

  const source = plan.registryImage ?? record?.pushedReference ?? missingReference();
  const before = await engine.inspect(formatReference(source));
  // Disposed of last: with a tag of the same repository beside it, the pulled reference has to stay.
  await using pulled = new AsyncDisposableStack();
  await using guard = await guardTags(engine, log.warning);
  if (before === undefined) {
    await log.chapter('Pull', () => timeline.measure('Pull', () => registry.pull(source)));
    pulled.defer(() => removePinned(tools, source));
  }
  const found = before ?? (await engine.inspect(formatReference(source))) ?? missingImage(formatReference(source));
  if (found.isWhole === false) throw notWhole(formatReference(source));
  const verified = await verifyAndTag(plan, tools, { source, image: found, record, info }, guard);
  guard.keep();
  const loaded = before === undefined;
  return {
    ...verified,
    source: loaded ? 'registry' : 'engine',
    artifact: undefined,
    record,
    size: 0,
    loaded,
    further: [],
  };
}

interface PulledImage {
  readonly source: PinnedReference;
  readonly image: InspectedImage;
  readonly record: HandoverRecord | undefined;
  readonly info: EngineInfo;
}

async function verifyAndTag(
  plan: LoadPlan,
  tools: Tools,
  pulled: PulledImage,
  guard: TagGuard,
): Promise<Pick<LoadResult, 'reference' | 'image' | 'expected'>> {
  const { engine, log } = tools;
  const { source, image, record, info } = pulled;
  const pinned = formatReference(source);
  const expected = expectedImage(pulled, await configDigestOf(plan, tools, pulled));
  requireSameImage(pinned, expected, image);
  requireExpected(plan, expected, info.platform);
  const reference = formatReference(plan.reference ?? record?.references[0] ?? fallbackReference);
  guard.watch(reference);
  await engine.tag(pinned, reference);
  const tagged = (await engine.inspect(reference)) ?? missingImage(reference);
  requireSameImage(reference, expected, tagged);
  log.info(`Verified: ${reference} is ${pinned} (${tagged.imageId})`);
  return { reference, image: tagged, expected };
}

/** What the pulled image must be: the record's image, in the manifest that was pulled; without a record, itself. */
function expectedImage({ source, image, record }: PulledImage, configDigest: Digest | undefined): ExpectedImage {
  if (record === undefined) return { ...image, configDigest, manifestDigests: [source.digest] };
  if (configDigest !== undefined && configDigest !== record.configDigest) {
    throw new HandoverError(
      'image-mismatch',
      `${formatReference(source)} is not the image that was handed over: config digest ${configDigest} instead of ` +
        `${record.configDigest}.`,
      'Check that `registry-image` and `artifact-name` come from the same export job.',
    );
  }
  return { ...record, manifestDigests: [...record.manifestDigests, source.digest] };
}

// On the classic store the image ID is the config digest. The containerd store doesn't tell it: the record knows it for
// the manifest that it names, else the registry is asked.
async function configDigestOf(
  plan: LoadPlan,
  { registry, log }: Tools,
  { source, image, record, info }: PulledImage,
): Promise<Digest | undefined> {
  if (record?.manifestDigests.includes(source.digest) === true) return record.configDigest;
  if (info.imageStore === 'classic') return parseDigest(image.imageId);
  try {
    return await registry.configDigest(source, image.platform);
  } catch (error) {
    if (!(error instanceof RegistryFailure) || plan.expectedConfigDigest !== undefined) throw error;
    log.info(`The config digest is not known: ${error.message}`);
    return undefined;
  }
}

// The engine lists a pulled digest as a reference of its own. The containerd store removes every tag of that repository
// with it: so it stays where there is one.
async function removePinned({ engine, log }: Tools, source: PinnedReference): Promise<void> {
  const pinned = formatReference(source);
  const image = await engine.inspect(pinned);
  if (image === undefined || image.repoTags.some((name) => name.startsWith(`${source.repository}:`))) return;
  await engine.untag(pinned).catch((error: unknown) => {
    log.info(`The reference ${pinned} stays in the engine: ${String(error)}`);
  });
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
