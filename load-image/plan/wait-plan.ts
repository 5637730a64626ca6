import type { WaitInputs } from '../inputs.ts';
import type { ImagesPlan } from './images-plan.ts';
import { invalidInput } from '../../shared/base/errors.ts';

/** How long a load waits for artifacts that aren't there yet, and for whom. */
export interface WaitPlan {
  /** Names, each of which has to be there, and patterns, for each of which one has to be there. */
  readonly wanted: readonly string[];
  readonly minutes: number;
  /** The job that makes them, as the run's page names it; or a pattern for several. Undefined when nobody says. */
  readonly job: string | undefined;
}

/**
 * @param isOtherRun whether the artifacts are another run's
 * @param limitMinutes how long the step may take in all
 * @returns undefined when nothing is waited for
 * @throws HandoverError `invalid-input`
 */
export function planWait(
  { waitMinutes: minutes, waitForJob: job }: WaitInputs,
  images: ImagesPlan,
  isOtherRun: boolean,
  limitMinutes: number,
): WaitPlan | undefined {
  if (minutes === 0) {
    if (job === undefined) return undefined;
    throw invalidInput(
      `\`wait-for-job\` (${job}) is given, but nothing is waited for.`,
      'Set `wait-minutes` too, or leave `wait-for-job` out.',
    );
  }
  if (isOtherRun) {
    throw invalidInput(
      '`wait-minutes` is given, but the artifact is of another run, and only this run’s jobs are waited for.',
      'Leave `wait-minutes` out: start the workflow with `on: workflow_run` when the other one is done.',
    );
  }
  if (minutes >= limitMinutes) {
    throw invalidInput(
      `\`wait-minutes\` is ${String(minutes)}, but the step is ended after ${String(limitMinutes)} minutes (\`timeout-minutes\`).`,
      'Raise `timeout-minutes`: it has to cover the wait and the load.',
    );
  }
  return { wanted: images.kind === 'one' ? [images.plan.artifactName] : images.wanted, minutes, job };
}
