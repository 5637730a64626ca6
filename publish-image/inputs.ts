import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of publish-image, as given; `planPublish` interprets them. */
export type PublishInputs = Readonly<ReturnType<typeof readPublishInputs>>;

/** @throws HandoverError `invalid-input` */
export function readPublishInputs(inputs: Inputs) {
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
