import type { LoadResult } from '../load-image.ts';
import type { LoadPlan } from '../plan/plan.ts';
import { requireExpected } from '../verify.ts';
import { type ErrorCode, HandoverError } from '../../shared/base/errors.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import { guardTags } from '../../shared/docker/tag-guard.ts';
import { type Digest, parseDigest } from '../../shared/image/digest.ts';
import { formatReference, type Reference } from '../../shared/image/reference.ts';
import { chooseImage, imagesIn } from '../../shared/tar/tarball-images.ts';
import { seeTarball } from '../../shared/tar/tarball-reader.ts';
import { type FromTools, loadFrom } from './from.ts';

const absent: readonly ErrorCode[] = ['run-not-found', 'artifact-not-found', 'artifact-expired'];

/**
 * Loads the image from its artifact; where there is no such artifact (any more), pulls the fallback if there is one.
 * @throws HandoverError as `loadImage` does, and `registry-failed`
 */
export async function loadOrPull(
  plan: LoadPlan,
  fallback: Reference | undefined,
  tools: FromTools,
): Promise<LoadResult> {
  try {
    return await loadFrom(plan, tools);
  } catch (error) {
    if (fallback === undefined || !(error instanceof HandoverError) || !absent.includes(error.code)) throw error;
    const name = formatReference(fallback);
    tools.log.warning(
      `The image is pulled from ${name} (\`fallback-image\`), not taken from an artifact: ${error.message}`,
    );
    return await tools.log.chapter('Pull the fallback image', () =>
      tools.timeline.measure('Pull', () => pull(plan, fallback, tools, error.message)),
    );
  }
}

async function pull(plan: LoadPlan, fallback: Reference, tools: FromTools, reason: string): Promise<LoadResult> {
  const { engine, registry, log } = tools;
  const pulledFrom = formatReference(fallback);
  const reference = plan.reference === undefined ? pulledFrom : formatReference(plan.reference);
  await using guard = await guardTags(engine, log.warning);
  guard.watch(pulledFrom);
  guard.watch(reference);
  await registry.pull(fallback);
  const image = await engine.inspect(pulledFrom);
  if (image === undefined) throw missing(pulledFrom);
  const info = await engine.info();
  const configDigest = await configDigestOf(plan, fallback, image, engine, info);
  const expected = { ...image, configDigest, manifestDigests: [] };
  requireExpected(plan, expected, info.platform);
  if (reference !== pulledFrom) await engine.tag(pulledFrom, reference);
  guard.keep();
  log.info(`Pulled: ${reference} is ${pulledFrom} (${image.imageId})`);
  const facts = { artifact: undefined, record: undefined, size: 0, loaded: true, further: [] } as const;
  return { ...facts, source: 'registry', reference, image, expected, fallback: { reference: pulledFrom, reason } };
}

// The classic store's image ID is the config digest. The containerd store's is not; there the tarball of docker save names
// it, which takes reading the whole image: only when it is asked for.
async function configDigestOf(
  plan: LoadPlan,
  fallback: Reference,
  image: InspectedImage,
  engine: Engine,
  info: EngineInfo,
): Promise<Digest | undefined> {
  if (info.imageStore === 'classic') return parseDigest(image.imageId);
  if (plan.expectedConfigDigest === undefined) return undefined;
  const { images } = imagesIn(await seeTarball(engine.save(formatReference(fallback))));
  return chooseImage(images, fallback, image.platform).configDigest;
}

function missing(reference: string): HandoverError {
  return new HandoverError(
    'image-missing',
    `docker pull of ${reference} went well, but docker image inspect finds no image.`,
    'Look at the engine on this runner: docker image ls; docker info.',
  );
}
