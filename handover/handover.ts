import { exportImage, type ExportResult, type ExportTools } from '../export-image/export-image.ts';
import type { ExportPlan } from '../export-image/plan.ts';
import { loadFrom } from '../load-image/load-from.ts';
import type { LoadResult, LoadTools } from '../load-image/load-image.ts';
import type { LoadPlan } from '../load-image/plan.ts';
import type { ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/errors.ts';

/** What happened: in the end the image is here in either case. */
export interface HandoverResult {
  readonly source: 'artifact' | 'build';
  readonly exported: ExportResult | undefined;
  readonly loaded: LoadResult;
}

export interface HandoverTools extends ExportTools, LoadTools {
  readonly store: ArtifactStore;
  /** Waits so many ms. */
  readonly sleep: (ms: number) => Promise<void>;
}

/**
 * Loads the image if this run, in any attempt, has handed it over; else builds it, hands it over and loads it here.
 * Of two jobs that start at once, the one that comes second to the name loads what the first one handed over.
 * @throws HandoverError of any code
 */
export async function handover(
  plans: { readonly export: ExportPlan; readonly load: LoadPlan },
  tools: HandoverTools,
): Promise<HandoverResult> {
  const { log } = tools;
  const name = plans.load.artifactName;
  if ((await tools.store.list()).some((artifact) => artifact.name === name)) {
    log.info(`This run has the artifact "${name}" already: loading it.`);
    return { source: 'artifact', exported: undefined, loaded: await loadFrom(plans.load, tools) };
  }
  log.info(`This run has no artifact "${name}" yet: building it here.`);
  const exported = await exportUnlessTaken(plans.export, tools);
  const loaded = await loadFrom(plans.load, tools);
  return { source: exported === undefined ? 'artifact' : 'build', exported, loaded };
}

async function exportUnlessTaken(plan: ExportPlan, tools: HandoverTools): Promise<ExportResult | undefined> {
  try {
    return await exportImage(plan, tools);
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'artifact-name-taken') throw error;
    await waitForArtifact(plan.artifactName, tools, error);
    return undefined;
  }
}

const waitMs = 10 * 60 * 1000;
const pauseMs = 3000;

// The name is reserved by a job that is still uploading: its artifact is listed when it is finalised.
async function waitForArtifact(name: string, tools: HandoverTools, taken: HandoverError): Promise<void> {
  tools.log.info(`Another job is handing over "${name}": waiting for it.`);
  const giveUpAt = Date.now() + waitMs;
  while (!(await tools.store.list()).some((artifact) => artifact.name === name)) {
    if (Date.now() > giveUpAt) throw taken;
    await tools.sleep(pauseMs);
  }
}
