import { type ErrorCode, HandoverError, messageOf } from '../shared/base/errors.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import { findArtifact, type FindTools, type FoundArtifact } from '../shared/handed-over/find.ts';
import { resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { hostInfo, type IntoTools, loadInto } from './into/into-holders.ts';
import type { HeldImage } from './into/prove.ts';
import { type EachPlan, type LoadPlan, wishOf } from './plan/plan.ts';
import { loadFromRegistry, pullFallback, type RegistryTools } from './registry.ts';
import type { LoadResult } from './result.ts';

// Loads one artifact's images, from the artifact or from a registry, and proves that they are what was handed over. The artifact is
// found once, and resolved once against the inputs (shared/handed-over). Then it is loaded into its holders (into/), or the registry's
// image is pulled and compared with it (registry.ts).

export type LoadTools = FindTools & IntoTools & RegistryTools;

const missingArtifact: readonly ErrorCode[] = ['run-not-found', 'artifact-not-found', 'artifact-expired'];

type Source = 'artifact' | 'registry';

const orders: Readonly<Record<EachPlan['from'], readonly [Source, Source?]>> = {
  artifact: ['artifact'],
  registry: ['registry'],
  'artifact-then-registry': ['artifact', 'registry'],
  'registry-then-artifact': ['registry', 'artifact'],
};

// Failures of the source. A second source can't help against a wrong image, runner or input.
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
 * @param fallback the image to pull when the artifact doesn't exist
 * @throws HandoverError of any code of the consumer; then no reference and no file is left
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
  const { log, timeline, holders } = tools;
  let found: Promise<FoundArtifact> | undefined;
  const find = (): Promise<FoundArtifact> =>
    (found ??= log.chapter('Find the artifact', () =>
      timeline.measure('Find', () => findArtifact(plan.artifactName, tools)),
    ));
  // The artifact is needed only to know what to pull, and compared where it is the second source.
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
      find().catch(() => undefined); // thrown below; a missing engine is reported first
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
    log.warning(`The image can't come from the ${first}, so it comes from the ${second}. ${error.message}`);
    return load[second]();
  }
}

/**
 * Loads the images of an artifact that was found: resolves it, loads what the holders lack, and proves the images there.
 * @throws HandoverError of any code of the consumer; then no reference and no file is left
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
    ...(nodes.length === tools.holders.length ? { nodes } : {}),
  };
}

function namedImage({ references, identity }: HeldImage): Pick<LoadResult, 'reference' | 'identity'> {
  return { reference: formatReference(references[0]), identity };
}
