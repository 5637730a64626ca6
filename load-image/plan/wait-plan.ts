import type { WaitInputs } from '../inputs.ts';
import type { ImagesPlan } from './images-plan.ts';
import { invalidInput } from '../../shared/base/errors.ts';

/** How long a load waits for artifacts that don't exist yet, and for which job. */
export interface WaitPlan {
  /** Names, and patterns that one artifact has to match. */
  readonly wanted: readonly string[];
  readonly minutes: number;
  /** The name of the job that makes them, as on the run's page, or a pattern. Undefined when unknown. */
  readonly job: string | undefined;
}

/**
 * @param isOtherRun whether the artifacts are of another run
 * @param limitMinutes time limit of the step
 * @returns undefined without a wait
 * @throws HandoverError `invalid-input`
 */
export function planWait(
  { waitMinutes: minutes, waitForJob: job }: WaitInputs,
  { wanted }: ImagesPlan,
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
  return { wanted, minutes, job };
}
