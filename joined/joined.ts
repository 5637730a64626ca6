import { exportImage, type ExportResult, type ExportTools } from '../export-image/export-image.ts';
import type { ExportPlan } from '../export-image/plan/plan.ts';
import { loadArtifact, loadImage, type LoadTools } from '../load-image/load-image.ts';
import type { LoadResult } from '../load-image/result.ts';
import type { LoadPlan } from '../load-image/plan/plan.ts';
import type { ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import { compareWithHandedOver, type OtherImage, ownContent } from './own-image.ts';

/** What happened: in the end the image is here in each case. */
export type HandoverResult =
  /** The run had it. */
  | { readonly kind: 'loaded'; readonly loaded: LoadResult }
  /** This job built it and handed it over. */
  | { readonly kind: 'handed-over'; readonly exported: ExportResult; readonly loaded: LoadResult }
  /** This job built it, and came second to the name: `other` is what goes by it. */
  | {
      readonly kind: 'kept';
      readonly exported: ExportResult;
      readonly loaded: LoadResult;
      readonly other: OtherImage;
    };

export interface HandoverTools extends ExportTools, LoadTools {
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
  const there = await loadIfThere(plans.load, tools);
  if (there !== undefined) return { kind: 'loaded', loaded: there };
  tools.log.info(`This run has no artifact "${plans.load.artifactName}" that can be loaded: building it here.`);
  const exported = await exportImage({ ...plans.export, whenTaken: 'keep' }, tools);
  return exported.artifact === undefined
    ? keepOwn(plans, tools, exported)
    : { kind: 'handed-over', exported, loaded: await loadImage(plans.load, tools) };
}

async function loadIfThere(plan: LoadPlan, tools: HandoverTools): Promise<LoadResult | undefined> {
  const name = plan.artifactName;
  if (!(await tools.store.list()).some((artifact) => artifact.name === name)) return undefined;
  tools.log.info(`This run has the artifact "${name}" already: loading it.`);
  try {
    return await loadImage(plan, tools);
  } catch (error) {
    // An attempt of another day may have left no more than its name.
    if (!(error instanceof HandoverError) || !['artifact-expired', 'artifact-not-found'].includes(error.code))
      throw error;
    tools.log.info(error.message);
    return undefined;
  }
}

async function keepOwn(
  { load, export: { artifactName } }: HandoverPlans,
  tools: HandoverTools,
  exported: ExportResult,
): Promise<HandoverResult> {
  const { record } = exported;
  const own = { origin: 'build', content: ownContent(artifactName, exported), record, identified: undefined } as const;
  const loaded = await loadArtifact(load, tools, own, await tools.engine.info());
  // As late as can be: the other job may be uploading still.
  const other = await compareWithHandedOver(tools, artifactName, record);
  return { kind: 'kept', exported, loaded, other };
}
