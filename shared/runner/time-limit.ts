import { HandoverError } from '../base/errors.ts';
import type { Inputs } from './inputs.ts';

/** How long the step may take, in minutes. At most 5 days, as long as a job may run on a self-hosted runner. */
export function readTimeLimit(inputs: Inputs): number {
  return inputs.decimal('timeout-minutes', 0.001, 7200);
}

export function timedOut(minutes: number): HandoverError {
  return new HandoverError(
    'timed-out',
    `The step was not done after ${String(minutes)} minutes (\`timeout-minutes\`).`,
    'Look in the log for what it waited for. Raise `timeout-minutes` for a large image on a slow connection, else run the ' +
      'job again.',
  );
}
