import type { ImagesInputs } from '../inputs.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { chooseWanted, isPattern, requireArtifactName } from '../../shared/image/artifact-name.ts';
import { type EachPlan, planEach } from './plan.ts';

/** Everything that is decided before any work: to load one image, to load several, or only to read the mapping or remove artifacts. */
export interface ImagesPlan {
  readonly kind: 'one' | 'several' | 'mapping' | 'removal';
  /** Names, patterns and ids of artifacts; the one name or id of one image. */
  readonly wanted: readonly string[];
  readonly each: EachPlan;
  /** The name of the artifact for the mapping. */
  readonly digests: string | undefined;
  /** Whether the artifacts are removed at the end. */
  readonly remove: boolean;
}

/** @throws HandoverError `invalid-input` */
export function planImages(inputs: ImagesInputs): ImagesPlan {
  const { artifactNames, artifactIds, digestsArtifact, remove } = inputs;
  const digests = digestsArtifact === undefined ? undefined : requireArtifactName(digestsArtifact);
  const wanted = chooseWanted(artifactNames, artifactIds);
  const isOne = wanted.length === 1 && !wanted.some(isPattern);
  if (!isOne)
    requireNoneOf(
      inputs,
      ['image', 'tarball', 'oci-layout', 'expected-config-digest', 'from'],
      `\`${artifactIds.length > 0 ? 'artifact-ids' : 'artifact-name'}\` (${wanted.join(', ')}) selects several images`,
    );
  if (!inputs.load)
    requireNoneOf(inputs, ['image', 'tarball', 'oci-layout', 'from', 'into'], 'With `load: false` no image is loaded');
  if (!inputs.load && remove && digests !== undefined) {
    throw invalidInput(
      'With `load: false` and `remove: true` no record is read, so there are no digests for `digests-artifact`.',
      'Remove the artifacts in a step of its own, after the one with `digests-artifact`.',
    );
  }
  const kind = inputs.load ? (isOne ? 'one' : 'several') : remove ? 'removal' : 'mapping';
  return { kind, wanted, each: planEach(inputs), digests, remove };
}

type OnlyForOne = 'image' | 'tarball' | 'oci-layout' | 'expected-config-digest' | 'from' | 'into';

function requireNoneOf(inputs: ImagesInputs, names: readonly OnlyForOne[], why: string): void {
  const { image, tarball, expectedConfigDigest, ociLayout } = inputs;
  const from = inputs.from === 'artifact' ? undefined : inputs.from;
  const into = inputs.into === 'docker' ? undefined : inputs.into;
  const given = { image, tarball, 'oci-layout': ociLayout, 'expected-config-digest': expectedConfigDigest, from, into };
  const set = names.filter((name) => given[name] !== undefined);
  if (set.length === 0) return;
  throw invalidInput(
    `${why}, but ${set.map((name) => `\`${name}\``).join(' and ')} can be true of one loaded image only.`,
    'Leave it out, or load that one image in a step of its own.',
  );
}
