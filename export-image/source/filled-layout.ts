import type { FilledLayout, ExportedImage } from '../upload.ts';
import { describeSource, type ImagePlan, type LayoutPlan } from '../plan/plan.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { Timeline } from '../../shared/base/timeline.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import { formatReference } from '../../shared/image/reference.ts';
import { readNamedImage, readOciLayout } from '../../shared/layout/read-layout.ts';
import { type BakedImages, bakeIntoLayout } from './from-bake.ts';
import { buildIntoLayout } from './from-build.ts';
import { cacheWriting } from './build-caches.ts';
import { saveIntoLayout, type SourcedImage, type SourceTools } from './from-engine.ts';

type Tools = SourceTools & StepsListener & { readonly timeline: Timeline };

/** Called with the Dockerfile's steps as soon as they are known, even if the export fails later. */
export interface StepsListener {
  readonly onSteps: (steps: readonly BuildStep[]) => void;
}

/**
 * Builds or saves the image, and saves the further images to the same layout, which keeps each layer once.
 * @param kept receives everything that is disposed of at the end of the export
 * @throws HandoverError with any code of an export
 */
export async function fillLayout(
  plan: LayoutPlan,
  tools: Tools,
  directory: string,
  kept: AsyncDisposableStack,
): Promise<FilledLayout> {
  const { log, timeline } = tools;
  if (plan.kind === 'bake') {
    const bake = (): Promise<BakedImages> => bakeIntoLayout(tools, plan, directory);
    const { steps, ...baked } = await log.chapter('Bake', () => timeline.measure('Bake', bake));
    tools.onSteps(steps);
    requireCached(steps, plan, log);
    return { ...baked, steps, push: undefined, caches: kept.use(cacheWriting(baked.caches, log)) };
  }
  const source = await takeSource(plan, tools, directory);
  kept.use(source.kept);
  if (plan.source.kind === 'build') {
    tools.onSteps(source.steps);
    requireCached(source.steps, plan, log);
  }
  const caches = kept.use(cacheWriting(source.caches ?? { problems: [], builds: [] }, log));
  const { image, attestations } =
    plan.source.kind === 'build'
      ? await readNamedImage(directory, plan.platform, undefined, source.replaced)
      : { image: await readOciLayout(directory, plan.platform, source.replaced), attestations: undefined };
  const references = [plan.reference, ...plan.tags];
  const further = await saveFurther(plan, tools, directory);
  const images = [{ image, references }, ...further] as const;
  return { images, attestations, steps: source.steps, push: source.push, caches };
}

async function takeSource(
  { source, platform, push, attestations, tags, requireCache, compression }: ImagePlan,
  tools: Tools,
  directory: string,
): Promise<SourcedImage> {
  const { log, timeline } = tools;
  const layout = { directory, compression };
  if (source.kind === 'engine') {
    const save = (): Promise<SourcedImage> => saveIntoLayout(tools, source.image, layout, push);
    return log.chapter('Save', () => timeline.measure('Save', save));
  }
  const { build, secrets } = source;
  const request = { build, secrets, platform, layout, push, attestations, tags, requireCache };
  return log.chapter('Build', () => timeline.measure('Build', () => buildIntoLayout(tools, request)));
}

async function saveFurther(
  { further, platform, compression }: ImagePlan,
  tools: Tools,
  directory: string,
): Promise<readonly ExportedImage[]> {
  const images: ExportedImage[] = [];
  for (const reference of further) {
    const name = formatReference(reference);
    const save = (): Promise<SourcedImage> => saveIntoLayout(tools, name, { directory, compression }, undefined);
    const { replaced } = await tools.log.chapter(`Save ${name}`, () => tools.timeline.measure('Save', save));
    images.push({ image: await readOciLayout(directory, platform, replaced), references: [reference] });
  }
  return images;
}

function requireCached(steps: readonly BuildStep[], plan: LayoutPlan, log: Log): void {
  const executed = steps.filter((step) => !step.cached);
  log.info(`Build steps: ${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`);
  if (!plan.requireCache || executed.length === 0) return;
  const { source } = plan;
  const what =
    source.kind === 'build' ? `with the context "${quoteForeign(source.build.context)}"` : describeSource(source);
  throw new HandoverError(
    'cache-missed',
    `The export, ${what}, had to run ${String(executed.length)} of ` +
      `${String(steps.length)} build steps: ${quoteForeign(executed.map((step) => step.name).join('; '), 3000)}`,
    'Give the main build and the export the same `context`: docker/build-push-action without one builds the Git ' +
      'repository, so write `context: .` in both. Then the same build-args, target and platform; and that build must have ' +
      'written `cache-to: type=gha,mode=max`. Or set `require-cache: false`.',
  );
}
