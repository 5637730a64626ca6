import { exportImage, type ExportResult, type ExportTools } from '../export-image/export-image.ts';
import type { ExportPlan } from '../export-image/plan/plan.ts';
import { loadArtifact, loadImage, type LoadResult, type LoadTools } from '../load-image/load-image.ts';
import type { LoadPlan } from '../load-image/plan/plan.ts';
import { openOnDisk } from '../shared/artifacts/on-disk.ts';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../shared/base/errors.ts';
import { readRecord } from '../shared/handed-over/find.ts';
import type { Digest } from '../shared/image/digest.ts';
import { type HandoverRecord, recordName } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';

/** How the image in the artifact compares with the image that this job built. */
export type OtherImage =
  | { readonly kind: 'same' | 'different'; readonly artifact: Artifact; readonly configDigest: Digest }
  | { readonly kind: 'unknown'; readonly why: string };

/** The outcome. In each case, the image is in the engine. */
export interface JoinedResult {
  readonly loaded: LoadResult;
  /** Undefined if the run already had the artifact. */
  readonly exported: ExportResult | undefined;
  /** The other job's image, if that job used the name before this job could. */
  readonly other: OtherImage | undefined;
}

interface JoinedTools extends Omit<ExportTools, 'onHandedOver'>, LoadTools {
  readonly store: ArtifactStore;
}

interface JoinedPlans {
  readonly export: ExportPlan;
  readonly load: LoadPlan;
}

/**
 * Loads the image if this run, in any attempt, has handed it over. Otherwise builds it, hands it over and loads it. If two jobs start at
 * the same time, the second one to use the name keeps the image that it built.
 * @throws HandoverError with any error code
 */
export async function loadOrExport(plans: JoinedPlans, tools: JoinedTools): Promise<JoinedResult> {
  const there = await loadIfThere(plans.load, tools);
  if (there !== undefined) return { loaded: there, exported: undefined, other: undefined };
  tools.log.info(`This run has no artifact "${plans.load.artifactName}" that can be loaded: building it here.`);
  const loads: Promise<LoadResult>[] = [];
  // The image is loaded as soon as it is handed over, because the build cache may take longer.
  const onHandedOver = ({ artifact }: ExportResult): void => {
    if (artifact === undefined) return;
    const loading = loadImage(plans.load, tools);
    loading.catch(() => undefined); // rethrown below
    loads.push(loading);
  };
  const exported = await exportImage({ ...plans.export, whenTaken: 'keep' }, { ...tools, onHandedOver }).finally(() =>
    Promise.allSettled(loads),
  );
  const loaded = await loads[0];
  return loaded === undefined ? keepOwn(plans, tools, exported) : { loaded, exported, other: undefined };
}

async function loadIfThere(plan: LoadPlan, tools: JoinedTools): Promise<LoadResult | undefined> {
  const name = plan.artifactName;
  if (!(await tools.store.list()).some((artifact) => artifact.name === name)) return undefined;
  tools.log.info(`This run already has the artifact "${name}": loading it.`);
  try {
    return await loadImage(plan, tools);
  } catch (error) {
    // If an attempt was some days ago, only the artifact's name may be left.
    if (!(error instanceof HandoverError) || !['artifact-expired', 'artifact-not-found'].includes(error.code))
      throw error;
    tools.log.info(error.message);
    return undefined;
  }
}

async function keepOwn(
  { load, export: { artifactName } }: JoinedPlans,
  tools: JoinedTools,
  exported: ExportResult,
): Promise<JoinedResult> {
  const { record, tarballPath } = exported;
  const content = await openOnDisk({ id: 0, name: artifactName, size: record.tarballSize }, tarballPath, 0);
  const own = { origin: 'build', content, record, identified: undefined } as const;
  const loaded = await loadArtifact(load, tools, own, await tools.engine.info());
  // This happens as late as possible, because the other job may still be uploading.
  const other = await compareWithOther(tools, artifactName, record);
  return { loaded, exported, other };
}

/**
 * Compares the image that another job hands over under this name with the image that this job built. Later jobs get the other job's image.
 * Doesn't wait for that job. An error is only logged, because this job has its own image.
 */
async function compareWithOther({ store, log }: JoinedTools, name: string, own: HandoverRecord): Promise<OtherImage> {
  const image = own.references.map(formatReference)[0] ?? '';
  try {
    const artifact = (await store.list()).find((candidate) => candidate.name === name);
    if (artifact === undefined) throw new Error('the other job has not finished its upload.');
    const record = await readRecord(await store.open(artifact));
    if (record === undefined) throw new Error(`it has no ${recordName}.`);
    const { configDigest } = record;
    const where = `the artifact "${name}" (id ${String(artifact.id)})`;
    if (configDigest === own.configDigest) {
      log.info(`It is the same image as in ${where}, which another job handed over.`);
      return { kind: 'same', artifact, configDigest };
    }
    log.warning(
      `${image} in this job is not the image that later jobs get: this job has ${own.configDigest}, and ${where} of another ` +
        `job contains ${configDigest}. Two builds of one definition differ unless every step comes from a shared cache. To test ` +
        'one image everywhere, build it in one job, and add `needs:` for that job to the others.',
    );
    return { kind: 'different', artifact, configDigest };
  } catch (error) {
    const why = messageOf(error);
    log.info(`It is unknown whether the artifact "${name}" contains the same image as ${image} here: ${why}`);
    return { kind: 'unknown', why };
  }
}
