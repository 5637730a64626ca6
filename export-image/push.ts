import { HandoverError } from '../shared/base/errors.ts';
import { claimTags, guardTags, placeOf } from '../shared/docker/tag-guard.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatReference, type PinnedReference, type TaggedReference } from '../shared/image/reference.ts';
import type { PushPlan } from './plan/push-plan.ts';
import type { Tools } from './tools.ts';
import { chapter } from '../shared/base/timeline.ts';

/** The image that the build pushed, or a function that makes the remaining attempts to push it. */
export type PushState = PinnedReference | (() => Promise<PinnedReference>);

export type PushOutcome =
  | { readonly kind: 'none' }
  | { readonly kind: 'pushed'; readonly reference: PinnedReference }
  | { readonly kind: 'failed'; readonly error: HandoverError };

/** Returns the pushed image's reference by digest, because a tag can move. */
export function pinned({ references: [{ repository }] }: PushPlan, digest: Digest): PinnedReference {
  return { repository, digest };
}

/**
 * Pushes the image unless the build has already pushed it. This happens after the upload, so a registry failure never costs the artifact.
 * The failure is part of the result, and the step fails only after its outputs are set.
 * @throws HandoverError `cancelled`
 */
export async function finishPush(
  plan: PushPlan | undefined,
  state: PushState | undefined,
  tools: Tools,
): Promise<PushOutcome> {
  if (plan === undefined || state === undefined) return { kind: 'none' };
  const { log } = tools;
  try {
    const reference = typeof state === 'function' ? await chapter(tools, 'Push', state) : state;
    log.info(`Pushed ${plan.references.map(formatReference).join(', ')}: ${formatReference(reference)}`);
    return { kind: 'pushed', reference };
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code === 'cancelled') throw error;
    if (plan.onFailure === 'warn') log.warning(`The image is handed over, but not pushed. ${error.message}`);
    return { kind: 'failed', error };
  }
}

/** @throws HandoverError if the push failed, unless the plan only warns */
export function requirePushed(plan: PushPlan | undefined, outcome: PushOutcome): void {
  if (outcome.kind === 'failed' && plan?.onFailure === 'error') throw outcome.error;
}

/** Pushes an image from the engine, by ID or reference. Tags that it didn't have before are removed after the push. */
export async function pushFromEngine(
  { engine, registry, log, signal }: Tools,
  image: string,
  plan: PushPlan,
): Promise<PinnedReference> {
  const place = placeOf(await engine.info());
  await using guard = guardTags(engine, log.warning, await claimTags([place], plan.references, { log, signal }));
  const pushAs = async (reference: TaggedReference): Promise<Digest> => {
    const name = formatReference(reference);
    await guard.tag(image, name);
    const digest = await registry.push(name);
    // Logged at once, because a later push may fail.
    log.info(`${name}: pushed, ${digest}`);
    return digest;
  };
  const [first, ...others] = plan.references;
  const digest = await pushAs(first);
  for (const reference of others) await pushAs(reference);
  return pinned(plan, digest);
}
