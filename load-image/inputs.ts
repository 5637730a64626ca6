import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs for each image, as given; `planEach` interprets them. */
export type EachInputs = Readonly<ReturnType<typeof readEachInputs>>;

/** The inputs for the image of one artifact, as given; `planLoad` interprets them. */
export type LoadInputs = EachInputs & { readonly artifactName: string };

/** All inputs of load-image, as given; `planImages` interprets them. */
export type ImagesInputs = Readonly<ReturnType<typeof readImagesInputs>>;

function readEachInputs(inputs: Inputs) {
  return {
    image: inputs.optional('image'),
    into: inputs.text('into'),
    tarball: inputs.optional('tarball'),
    ociLayout: inputs.optional('oci-layout'),
    expectedConfigDigest: inputs.orNone('expected-config-digest'),
    expectedRevision: inputs.orNone('expected-revision'),
    checkPlatform: inputs.boolean('check-platform'),
    overlap: inputs.boolean('overlap'),
    from: inputs.text('from'),
    registryImage: inputs.orNone('registry-image'),
    engine: inputs.text('engine'),
  };
}

/** @throws HandoverError `invalid-input` */
export function readImagesInputs(inputs: Inputs) {
  // An empty one is refused, even if `artifact-ids` selects other artifacts.
  inputs.text('artifact-name');
  return {
    ...readEachInputs(inputs),
    artifactNames: inputs.list('artifact-name'),
    artifactIds: inputs.listOrNone('artifact-ids'),
    load: inputs.boolean('load'),
    remove: inputs.boolean('remove'),
    digestsArtifact: inputs.optional('digests-artifact'),
    runId: inputs.orNone('run-id'),
    workflow: inputs.orNone('workflow'),
    branch: inputs.orNone('branch'),
    event: inputs.orNone('event'),
    repository: inputs.orNone('repository'),
    githubToken: inputs.optional('github-token'),
    allowForkRuns: inputs.boolean('allow-fork-runs'),
    fallbackImage: inputs.optional('fallback-image'),
    waitMinutes: inputs.decimal('wait-minutes', 0, 7200),
    waitForJob: inputs.optional('wait-for-job'),
  };
}
