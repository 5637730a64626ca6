import type { Inputs } from '../shared/runner/inputs.ts';
import { type LoadInputs, readLoadInputs } from './inputs.ts';

/** Where the image goes, besides or instead of the engine. */
export interface PlaceInputs {
  readonly into: string;
  readonly ociLayout: string | undefined;
}

/** The inputs of load-image for any number of images; the joined action, which has one, doesn't know them. */
export interface ImagesInputs extends LoadInputs, PlaceInputs {
  /** Names and patterns. */
  readonly artifactNames: readonly string[];
  readonly load: boolean;
  readonly digestsArtifact: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readImagesInputs(inputs: Inputs): ImagesInputs {
  return {
    ...readLoadInputs(inputs),
    artifactNames: inputs.list('artifact-name'),
    into: inputs.text('into'),
    ociLayout: inputs.optional('oci-layout'),
    load: inputs.boolean('load'),
    digestsArtifact: inputs.optional('digests-artifact'),
  };
}

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

/** The inputs of load-image about an artifact that isn't there yet, as they were given; `planWait` decides what they mean. */
export interface WaitInputs {
  /** 0 for not at all. */
  readonly waitMinutes: number;
  readonly waitForJob: string | undefined;
}

/** @throws HandoverError `invalid-input` */
export function readWaitInputs(inputs: Inputs): WaitInputs {
  return { waitMinutes: inputs.decimal('wait-minutes', 0, 7200), waitForJob: inputs.optional('wait-for-job') };
}
