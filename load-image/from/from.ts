import { findArtifact } from '../find.ts';
import { loadImage, type LoadResult, type LoadTools, readRecord } from '../load-image.ts';
import type { LoadPlan } from '../plan/plan.ts';
import { type ErrorCode, HandoverError, messageOf } from '../../shared/base/errors.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { loadFromRegistry, type RegistryTools } from './registry.ts';

export type FromTools = LoadTools & RegistryTools;

/**
 * Loads the image from where the plan says; falls over to the second place when the first one doesn't have it.
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadFrom(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
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

// The artifact is asked for only where its record is needed to know what to pull.
async function fromRegistry(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
  const record = plan.registryImage === undefined ? await findRecord(plan, tools) : undefined;
  return loadFromRegistry(plan, tools, record);
}

/** With the artifact as second choice, its record says what the image must be. */
async function recordThenRegistry(plan: LoadPlan, tools: FromTools): Promise<LoadResult> {
  const record = await findRecord(plan, tools).catch((error: unknown) => {
    if (plan.registryImage === undefined) throw error;
    tools.log.info(`There is no record of a handover to check against: ${messageOf(error)}`);
    return undefined;
  });
  return loadFromRegistry(plan, tools, record);
}

async function findRecord(plan: LoadPlan, { store, log, runAttempt }: FromTools): Promise<HandoverRecord | undefined> {
  return readRecord(await store.open(await findArtifact(store, plan.artifactName, runAttempt)), log);
}
