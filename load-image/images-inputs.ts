import type { Inputs } from '../shared/action/inputs.ts';
import { type LoadInputs, readLoadInputs } from './inputs.ts';

/** The inputs of load-image for any number of images; the joined action, which has one, doesn't know them. */
export interface ImagesInputs extends LoadInputs {
  /** Names and patterns. */
  readonly artifactNames: readonly string[];
  readonly load: boolean;
  readonly digestsArtifact: string | undefined;
  readonly digestsRetentionDays: number;
}

/** @throws HandoverError `invalid-input` */
export function readImagesInputs(inputs: Inputs): ImagesInputs {
  return {
    ...readLoadInputs(inputs),
    artifactNames: inputs.list('artifact-name'),
    load: inputs.boolean('load'),
    digestsArtifact: inputs.optional('digests-artifact'),
    digestsRetentionDays: inputs.integer('digests-retention-days', 1, 90),
  };
}
