import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of load-image as they were given; `planLoad` decides what they mean. */
export interface LoadInputs {
  readonly artifactName: string;
  readonly image: string | undefined;
  readonly tarball: string | undefined;
  readonly expectedConfigDigest: string | undefined;
  readonly expectedRevision: string | undefined;
  readonly checkPlatform: boolean;
  readonly overlap: boolean;
  readonly from: string;
  readonly registryImage: string | undefined;
  readonly engine: string;
}

/** @throws HandoverError `invalid-input` */
export function readLoadInputs(inputs: Inputs): LoadInputs {
  return {
    artifactName: inputs.text('artifact-name'),
    image: inputs.optional('image'),
    tarball: inputs.optional('tarball'),
    expectedConfigDigest: inputs.orNone('expected-config-digest'),
    expectedRevision: inputs.orNone('expected-revision'),
    checkPlatform: inputs.boolean('check-platform'),
    overlap: inputs.boolean('overlap'),
    from: inputs.text('from'),
    registryImage: inputs.orNone('registry-image'),
    engine: inputs.text('engine'),
  };
}
