import { type ExportInputs, readAttestationInputs, readBuiltImageInputs } from '../export-image/inputs.ts';
import type { LoadInputs } from '../load-image/inputs.ts';
import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of both actions. Those that the joined action doesn't have are set to their defaults. */
export interface JoinedInputs {
  readonly export: ExportInputs;
  readonly load: LoadInputs;
}

/**
 * @param tarball path of the tarball that a build writes
 * @throws HandoverError `invalid-input`
 */
export function readJoinedInputs(inputs: Inputs, tarball: string): JoinedInputs {
  const built = readBuiltImageInputs(inputs);
  const { artifactName, image } = built;
  return {
    export: {
      ...built,
      tarball,
      platforms: [],
      branchLabel: undefined,
      sourceImage: undefined,
      sourceTarball: undefined,
      sourceLayout: undefined,
      furtherImages: [],
      requireCache: false,
      compression: 'auto',
      compressionLevel: undefined,
      engine: 'docker',
      push: { enabled: inputs.boolean('push'), platforms: [], onFailure: 'error', ...readAttestationInputs(inputs) },
    },
    load: {
      artifactName,
      image,
      into: 'docker',
      tarball: undefined,
      ociLayout: undefined,
      expectedConfigDigest: undefined,
      expectedRevision: undefined,
      checkPlatform: inputs.boolean('check-platform'),
      overlap: true,
      from: 'artifact',
      registryImage: undefined,
      engine: 'docker',
    },
  };
}
