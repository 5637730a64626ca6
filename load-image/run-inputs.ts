import type { Inputs } from '../shared/action/inputs.ts';

/** The inputs of load-image that lead away from this run, as they were given; `planRun` decides what they mean. */
export interface RunInputs {
  readonly runId: string | undefined;
  readonly workflow: string | undefined;
  readonly branch: string | undefined;
  readonly event: string | undefined;
  readonly repository: string | undefined;
  readonly githubToken: string | undefined;
  readonly allowForkRuns: boolean;
  readonly fallbackImage: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readRunInputs(inputs: Inputs): RunInputs {
  return {
    runId: inputs.optional('run-id'),
    workflow: inputs.optional('workflow'),
    branch: inputs.optional('branch'),
    event: inputs.optional('event'),
    repository: inputs.optional('repository'),
    githubToken: inputs.optional('github-token'),
    allowForkRuns: inputs.boolean('allow-fork-runs'),
    fallbackImage: inputs.optional('fallback-image'),
  };
}
