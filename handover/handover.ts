import { exportImage, type ExportResult, type ExportTools } from '../export-image/export-image.ts';
import type { ExportPlan } from '../export-image/plan.ts';
import { loadFrom } from '../load-image/load-from.ts';
import { loadHandover, type LoadResult, type LoadTools } from '../load-image/load-image.ts';
import type { LoadPlan } from '../load-image/plan.ts';
import type { RegistryTools } from '../load-image/registry-source.ts';
import type { ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/errors.ts';
import { ownContent, storeOfNothing } from './own-copy.ts';

/** What happened: in the end the image is here in either case. */
export interface HandoverResult {
  readonly source: 'artifact' | 'build';
  readonly exported: ExportResult | undefined;
  readonly loaded: LoadResult;
}

export interface HandoverTools extends ExportTools, LoadTools, RegistryTools {
  readonly store: ArtifactStore;
}

export interface HandoverPlans {
  readonly export: ExportPlan;
  readonly load: LoadPlan;
}

/**
 * Loads the image if this run, in any attempt, has handed it over; else builds it, hands it over and loads it here.
 * Of two jobs that start at once, the one that comes second to the name keeps the image that it has built itself.
 * @throws HandoverError of any code
 */
export async function handover(plans: HandoverPlans, tools: HandoverTools): Promise<HandoverResult> {
  const { log } = tools;
  const name = plans.load.artifactName;
  const there = await loadIfThere(plans.load, tools);
  if (there !== undefined) return { source: 'artifact', exported: undefined, loaded: there };
  log.info(`This run has no artifact "${name}": building it here.`);
  try {
    const exported = await exportImage(plans.export, tools);
    return { source: 'build', exported, loaded: await loadFrom(plans.load, tools) };
  } catch (error) {
    if (!isOneOf(error, ['artifact-name-taken'])) throw error;
    log.info(`Another job has handed over "${name}" meanwhile: this one keeps the image that it builds.`);
    return keepOwn(plans, tools);
  }
}

async function loadIfThere(plan: LoadPlan, tools: HandoverTools): Promise<LoadResult | undefined> {
  const name = plan.artifactName;
  if (!(await tools.store.list()).some((artifact) => artifact.name === name)) return undefined;
  tools.log.info(`This run has the artifact "${name}" already: loading it.`);
  try {
    return await loadFrom(plan, tools);
  } catch (error) {
    // An attempt of another day may have left no more than its name.
    if (!isOneOf(error, ['artifact-expired', 'artifact-not-found'])) throw error;
    tools.log.info(error.message);
    return undefined;
  }
}

async function keepOwn(plans: HandoverPlans, tools: HandoverTools): Promise<HandoverResult> {
  const exported = await exportImage(plans.export, { ...tools, store: storeOfNothing() });
  const content = ownContent(exported);
  const info = await tools.engine.info();
  const loaded = await loadHandover(plans.load, tools, { content, record: exported.record }, info);
  // The artifact of that name is the other job's.
  return { source: 'build', exported, loaded: { ...loaded, artifact: undefined } };
}

function isOneOf(error: unknown, codes: readonly HandoverError['code'][]): error is HandoverError {
  return error instanceof HandoverError && codes.includes(error.code);
}
