import type { TarballPlan } from '../plan/plan.ts';
import { HandoverError, invalidTarball } from '../../shared/base/errors.ts';
import type { Producer } from '../../shared/image/record.ts';
import { layoutBlobs } from '../../shared/layout/arriving-layers.ts';
import { readNamedImage } from '../../shared/layout/read-layout.ts';
import { chooseReferences, type OpenedTarball, repacked } from './from-tarball.ts';

/**
 * Opens an OCI layout that another step wrote, such as docker/build-push-action. Its image becomes a tarball that every engine loads. Each
 * blob is verified while it is read.
 * @throws HandoverError `tarball-invalid`, `image-not-found`, `platform-mismatch`
 */
export async function openSourceLayout(plan: TarballPlan, producer: Producer): Promise<OpenedTarball> {
  const { source, platform, reference, tags } = plan;
  const { path } = source;
  const { image, references, attestations } = await readNamedImage(path, platform, reference).catch(
    (error: unknown) => {
      throw error instanceof HandoverError && error.code === 'tarball-invalid' ? unusable(path, error) : error;
    },
  );
  const named = { image, references: [...chooseReferences(path, reference, references), ...tags] };
  return repacked(layoutBlobs(path, image.layers), named, plan, producer, attestations);
}

function unusable(path: string, error: HandoverError): HandoverError {
  return invalidTarball(
    `The OCI layout in ${path} can't be handed over: ${error.message}`,
    'Set `source-layout` to the folder of `outputs: type=oci,tar=false,dest=FOLDER`. A file is a `source-tarball`.',
    error,
  );
}
