import type { OtherRunInputs } from '../shared/handed-over/other-run-plan.ts';
import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of publish-image, as given; `planPublish` interprets them. */
export interface PublishInputs extends Omit<OtherRunInputs, 'repository' | 'allowForkRuns'> {
  /** Names and patterns. */
  readonly artifactNames: readonly string[];
  /** Instead of the names, unless empty. */
  readonly artifactIds: readonly string[];
  readonly image: string | undefined;
  readonly tags: string;
  readonly repository: string | undefined;
  readonly mountFrom: readonly string[];
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly registryCa: string | undefined;
  readonly expectedConfigDigests: readonly string[];
  readonly expectedRevision: string | undefined;
  /** The `repository` of the run. */
  readonly runRepository: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readPublishInputs(inputs: Inputs): PublishInputs {
  return {
    artifactNames: inputs.list('artifact-name'),
    artifactIds: inputs.listOrNone('artifact-ids'),
    image: inputs.optional('image'),
    tags: inputs.text('tags'),
    repository: inputs.optional('repository'),
    mountFrom: inputs.list('mount-from'),
    username: inputs.optional('username'),
    password: inputs.optional('password'),
    registryCa: inputs.optional('registry-ca'),
    expectedConfigDigests: inputs.listOrNone('expected-config-digest'),
    expectedRevision: inputs.orNone('expected-revision'),
    runId: inputs.orNone('run-id'),
    workflow: inputs.orNone('workflow'),
    branch: inputs.orNone('branch'),
    event: inputs.orNone('event'),
    runRepository: inputs.orNone('run-repository'),
    githubToken: inputs.optional('github-token'),
  };
}
