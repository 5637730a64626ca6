import type { RunInputs } from '../inputs.ts';
import type { ImagesPlan } from './images-plan.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { type OtherRun, planOtherRun } from '../../shared/handed-over/other-run-plan.ts';
import { parseReference, type Reference } from '../../shared/image/reference.ts';
import { requireDocker } from '../../shared/image/host.ts';

/** The run with the artifact, and the image to pull without one. */
export interface RunPlan {
  /** Undefined for this job's own run. */
  readonly other: OtherRun | undefined;
  readonly fallback: Reference | undefined;
}

/**
 * @param ownRepository `owner/name` of this job's repository
 * @throws HandoverError `invalid-input`
 */
export function planRun(inputs: RunInputs, images: ImagesPlan, ownRepository: string): RunPlan {
  const fallback = planFallback(inputs, images);
  const other = planOtherRun(inputs, { wanted: images.wanted, ownRepository });
  if (images.remove && other !== undefined) {
    throw invalidInput(
      '`remove: true` is given with another run, but a job can remove only the artifacts of its own run.',
      'Remove them in a job of that run, or with the REST API: `gh api --method DELETE repos/OWNER/REPO/actions/artifacts/ID`.',
    );
  }
  if (inputs.allowForkRuns && other !== undefined) requireOneName(images);
  return { other, fallback };
}

// The author of a pull request also chooses the references in its artifact, such as `alpine:latest`.
function requireOneName({ kind, each }: ImagesPlan): void {
  if (kind === 'mapping' || each.reference !== undefined) return;
  throw invalidInput(
    '`allow-fork-runs` is given without `image`: a fork would decide which names its images get here.',
    'Set `image` to the one reference that the image is to have, such as `image: charon:pr`, and load one artifact.',
  );
}

function planFallback({ fallbackImage }: RunInputs, { kind, each }: ImagesPlan): Reference | undefined {
  if (fallbackImage === undefined) return undefined;
  if (kind !== 'one') {
    throw invalidInput(
      'The input `fallback-image` replaces one image, but this step does not load one image.',
      'Leave it out.',
    );
  }
  const { tarballPath, layoutPath, into, engine } = each;
  requireDocker(engine, '`fallback-image`');
  const other = tarballPath !== undefined ? 'tarball' : layoutPath !== undefined ? 'oci-layout' : undefined;
  if (into.kind !== 'engine' || other !== undefined) {
    throw invalidInput(
      `Both \`fallback-image\` and \`${other ?? 'into'}\` are given, but an image that is pulled leaves no tarball and no layout, and goes into the engine alone.`,
      'Leave one of them out.',
    );
  }
  const reference = parseReference(fallbackImage);
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference;
}
