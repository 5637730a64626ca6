import type { OtherRunInputs } from '../shared/handed-over/other-run-plan.ts';
import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of load-image for one image, as given; `planLoad` interprets them. */
export interface LoadInputs {
  readonly artifactName: string;
  readonly image: string | undefined;
  readonly into: string;
  readonly tarball: string | undefined;
  readonly ociLayout: string | undefined;
  readonly expectedConfigDigest: string | undefined;
  readonly expectedRevision: string | undefined;
  readonly checkPlatform: boolean;
  readonly overlap: boolean;
  readonly from: string;
  readonly registryImage: string | undefined;
  readonly engine: string;
}

/** The inputs of load-image for any number of images, as given; `planImages` interprets them. */
export interface ImagesInputs extends LoadInputs {
  /** Names and patterns. */
  readonly artifactNames: readonly string[];
  /** Instead of the names, unless empty. */
  readonly artifactIds: readonly string[];
  readonly load: boolean;
  readonly remove: boolean;
  readonly digestsArtifact: string | undefined;
}

/** The inputs of load-image that select another run or image, as given; `planRun` interprets them. */
export interface RunInputs extends OtherRunInputs {
  readonly fallbackImage: string | undefined;
}

/** The inputs of load-image about an artifact that doesn't exist yet, as given; `planWait` interprets them. */
export interface WaitInputs {
  /** 0 doesn't wait. */
  readonly waitMinutes: number;
  readonly waitForJob: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readImagesInputs(inputs: Inputs): ImagesInputs {
  return {
    artifactName: inputs.text('artifact-name'),
    artifactNames: inputs.list('artifact-name'),
    artifactIds: inputs.listOrNone('artifact-ids'),
    load: inputs.boolean('load'),
    remove: inputs.boolean('remove'),
    digestsArtifact: inputs.optional('digests-artifact'),
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
export function readRunInputs(inputs: Inputs): RunInputs {
  return {
    runId: inputs.orNone('run-id'),
    workflow: inputs.orNone('workflow'),
    branch: inputs.orNone('branch'),
    event: inputs.orNone('event'),
    repository: inputs.orNone('repository'),
    githubToken: inputs.optional('github-token'),
    allowForkRuns: inputs.boolean('allow-fork-runs'),
    fallbackImage: inputs.optional('fallback-image'),
  };
}

/** @throws HandoverError `invalid-input` */
export function readWaitInputs(inputs: Inputs): WaitInputs {
  return { waitMinutes: inputs.decimal('wait-minutes', 0, 7200), waitForJob: inputs.optional('wait-for-job') };
}
