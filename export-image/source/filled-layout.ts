import { describeSource, type ImagePlan, type LayoutPlan } from '../plan/plan.ts';
import { pushFromEngine } from '../push.ts';
import type { LayoutTools } from '../tools.ts';
import { chapter } from '../../shared/base/timeline.ts';
import type { ExportedImage } from '../upload.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import { formatReference } from '../../shared/image/reference.ts';
import { readNamedImage } from '../../shared/layout/read-layout.ts';
import { cacheWriting } from './build-caches.ts';
import { bakeIntoLayout } from './from-bake.ts';
import { buildIntoLayout } from './from-build.ts';
import { type FilledLayout, saveIntoLayout } from './from-engine.ts';

/**
 * Builds or saves the image, and saves the additional images to the same layout, which stores each layer once.
 * @throws HandoverError with any error code of export-image
 */
export async function fillLayout(plan: LayoutPlan, tools: LayoutTools): Promise<FilledLayout> {
  if (plan.kind === 'bake') {
    const baked = await chapter(tools, 'Bake', () => bakeIntoLayout(tools, plan));
    takeSteps(baked.steps, plan, tools);
    return baked;
  }
  const filled = await fillFirst(plan, tools);
  const further: ExportedImage[] = [];
  for (const reference of plan.further) {
    const name = formatReference(reference);
    const { image } = await chapter(tools, `Save ${name}`, () => saveIntoLayout(tools, name, plan), 'Save');
    further.push({ image, references: [reference] });
  }
  return { ...filled, images: [...filled.images, ...further] };
}

async function fillFirst(plan: ImagePlan, tools: LayoutTools): Promise<FilledLayout> {
  const { source, platform, push } = plan;
  const references = [plan.reference, ...plan.tags];
  if (source.kind === 'engine') {
    const { image, id } = await chapter(tools, 'Save', () => saveIntoLayout(tools, source.image, plan));
    const caches = cacheWriting(tools, [], []);
    return {
      images: [{ image, references }],
      steps: [],
      push: push && (() => pushFromEngine(tools, id, push)),
      caches,
    };
  }
  const { replaced, ...built } = await chapter(tools, 'Build', () => buildIntoLayout(tools, { ...plan, source }));
  takeSteps(built.steps, plan, tools);
  const { image, attestations } = await readNamedImage(tools.layout, platform, undefined, replaced);
  return { ...built, images: [{ image, references }], attestations };
}

function takeSteps(
  steps: readonly BuildStep[],
  { source, requireCache }: LayoutPlan,
  { log, onSteps }: LayoutTools,
): void {
  onSteps(steps);
  const executed = steps.filter((step) => !step.cached);
  log.info(`Build steps: ${String(steps.length - executed.length)} cached, ${String(executed.length)} executed`);
  if (!requireCache || executed.length === 0) return;
  const what =
    source.kind === 'build' ? `with the context "${quoteForeign(source.build.context)}"` : describeSource(source);
  throw new HandoverError(
    'cache-missed',
    `The export, ${what}, had to run ${String(executed.length)} of ` +
      `${String(steps.length)} build steps: ${quoteForeign(executed.map((step) => step.name).join('; '), 3000)}`,
    'Give the main build and the export the same `context`: without one, docker/build-push-action builds the Git ' +
      'repository, so write `context: .` in both. Also give them the same build-args, target and platform. The main build ' +
      'must have written `cache-to: type=gha,mode=max`. Or set `require-cache: false`.',
  );
}
