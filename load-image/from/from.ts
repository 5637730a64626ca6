import { type ErrorCode, HandoverError, messageOf } from '../../shared/base/errors.ts';
import { formatReference, type Reference } from '../../shared/image/reference.ts';
import { findHandover, type Handover } from '../../shared/handed-over/find.ts';
import { loadImage, type LoadTools } from '../load-image.ts';
import type { LoadResult } from '../result.ts';
import type { LoadPlan } from '../plan/plan.ts';
import { loadFromRegistry, pullFallback, type RegistryTools } from './registry.ts';

// Where an image comes from: its artifact, a registry that it was pushed to, or one after the other; and, if the inputs name it,
// another image altogether where there is no such artifact (any more).

export type FromTools = LoadTools & RegistryTools;

const absent: readonly ErrorCode[] = ['run-not-found', 'artifact-not-found', 'artifact-expired'];

/**
 * Loads the image from where the plan says; falls over to the second place when the first one doesn't have it.
 * @param fallback what to pull where there is no artifact of that name
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadFrom(plan: LoadPlan, tools: FromTools, fallback?: Reference): Promise<LoadResult> {
  try {
    return await fromPlaces(plan, tools);
  } catch (error) {
    if (fallback === undefined || !(error instanceof HandoverError) || !absent.includes(error.code)) throw error;
    const name = formatReference(fallback);
    tools.log.warning(
      `The image is pulled from ${name} (\`fallback-image\`), not taken from an artifact: ${error.message}`,
    );
    return pullFallback(plan, fallback, tools, error.message);
  }
}

async function fromPlaces(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
  switch (plan.from) {
    case 'artifact':
      return loadImage(plan, tools);
    case 'registry':
      return fromRegistry(plan, tools);
    case 'artifact-then-registry':
      return eitherOf('artifact', loadImage(plan, tools), artifactTrouble, tools, 'registry', () =>
        fromRegistry(plan, tools),
      );
    case 'registry-then-artifact':
      return eitherOf('registry', recordThenRegistry(plan, tools), registryTrouble, tools, 'artifact', () =>
        loadImage(plan, tools),
      );
  }
}

// Trouble with the place. What is wrong with the image, this runner or the inputs is not healed by another place.
const registryTrouble: readonly ErrorCode[] = ['registry-failed'];
const artifactTrouble: readonly ErrorCode[] = [
  'artifact-not-found',
  'artifact-expired',
  'artifact-corrupt',
  'tarball-invalid',
  'image-not-found',
  'transfer-failed',
];

async function eitherOf(
  place: string,
  first: Promise<LoadResult>,
  trouble: readonly ErrorCode[],
  { log }: FromTools,
  otherPlace: string,
  second: () => Promise<LoadResult>,
): Promise<LoadResult> {
  try {
    return await first;
  } catch (error) {
    if (!(error instanceof HandoverError) || !trouble.includes(error.code)) throw error;
    log.warning(`The image can't come from the ${place}, so it comes from the ${otherPlace}. ${error.message}`);
    return second();
  }
}

// The artifact is asked for only where it is needed to know what to pull.
async function fromRegistry(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
  const handover = plan.registryImage === undefined ? await findHandover(plan.artifactName, tools) : undefined;
  return loadFromRegistry(plan, tools, handover);
}

/** With the artifact as second choice, it says what the image must be. */
async function recordThenRegistry(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
  const found = await findHandover(plan.artifactName, tools).catch((error: unknown): Handover | undefined => {
    if (plan.registryImage === undefined) throw error;
    tools.log.info(`There is no handover to check against: ${messageOf(error)}`);
    return undefined;
  });
  return loadFromRegistry(plan, tools, found);
}
