import { HandoverError } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { RegistryCommands } from '../shared/docker/registry-commands.ts';
import { claimTags, guardTags, placeOf } from '../shared/docker/tag-guard.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatReference, type PinnedReference, type TaggedReference } from '../shared/image/reference.ts';
import type { PushPlan } from './plan/push-plan.ts';

/** The state of a push after the build. */
export type PushState =
  /** The build has pushed the image. */
  | { readonly kind: 'done'; readonly digest: Digest }
  /** `push` makes all remaining attempts, and returns the image's digest in the registry. */
  | { readonly kind: 'to-do'; readonly push: () => Promise<Digest> };

export type PushOutcome =
  | { readonly kind: 'none' }
  | { readonly kind: 'pushed'; readonly reference: PinnedReference }
  | { readonly kind: 'failed'; readonly error: HandoverError };

/** Returns the pushed reference, if the build has pushed the image. */
export function pushedByBuild(plan: PushPlan | undefined, state: PushState | undefined): PinnedReference | undefined {
  return plan !== undefined && state?.kind === 'done' ? pinned(plan, state.digest) : undefined;
}

// By digest, because a tag can move.
function pinned(plan: PushPlan, digest: Digest): PinnedReference {
  return { repository: plan.references[0].repository, digest };
}

/**
 * Pushes an image that is not pushed yet. It runs after the upload, so that a registry's failure never costs the artifact. The failure is
 * part of the result, and the step fails after its outputs are written.
 * @throws HandoverError `cancelled`
 */
export async function finishPush(
  plan: PushPlan | undefined,
  state: PushState | undefined,
  tools: { readonly log: Log; readonly timeline: Timeline },
): Promise<PushOutcome> {
  if (plan === undefined || state === undefined) return { kind: 'none' };
  const { log, timeline } = tools;
  try {
    const digest =
      state.kind === 'done' ? state.digest : await log.chapter('Push', () => timeline.measure('Push', state.push));
    const reference = pinned(plan, digest);
    log.info(`Pushed ${plan.references.map(formatReference).join(', ')}: ${formatReference(reference)}`);
    return { kind: 'pushed', reference };
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code === 'cancelled') throw error;
    if (plan.onFailure === 'warn') log.warning(`The image is handed over, but not pushed. ${error.message}`);
    return { kind: 'failed', error };
  }
}

/** @throws HandoverError the error of the push, unless the plan only warns */
export function requirePushed(plan: PushPlan | undefined, outcome: PushOutcome): void {
  if (outcome.kind === 'failed' && plan?.onFailure === 'error') throw outcome.error;
}

export interface PushTools {
  readonly engine: Engine;
  readonly registry: RegistryCommands;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Pushes an image of the engine, by ID or reference. It has the tags only during the push, unless it had them before. */
export async function pushFromEngine(
  { engine, registry, log, signal }: PushTools,
  image: string,
  plan: PushPlan,
): Promise<Digest> {
  const place = placeOf(await engine.info());
  await using guard = guardTags(engine, log.warning, await claimTags([place], plan.references, { log, signal }));
  const pushAs = async (reference: TaggedReference): Promise<Digest> => {
    const name = formatReference(reference);
    await guard.tag(image, name);
    const digest = await registry.push(name);
    // Also if a later one is refused.
    log.info(`${name}: pushed, ${digest}`);
    return digest;
  };
  const [first, ...others] = plan.references;
  const digest = await pushAs(first);
  for (const reference of others) await pushAs(reference);
  return digest;
}
