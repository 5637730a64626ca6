import type { PushInputs } from '../inputs.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { formatPlatform, parsePlatform, type Platform, samePlatform } from '../../shared/image/platform.ts';
import type { TaggedReference } from '../../shared/image/reference.ts';
import { isObject } from '../../shared/base/json.ts';
import type { EventFacts } from '../../shared/image/workflow-event.ts';

/** A push in addition to the artifact. */
export interface PushPlan {
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  /** The platforms of a manifest list. If empty, the handed-over image is pushed. */
  readonly listedPlatforms: readonly Platform[];
  readonly onFailure: 'error' | 'warn';
}

/**
 * @param tags the references to push. The outputs show the first one.
 * @param source the kind of the image's source
 * @param platform the platform of the handed-over image
 * @param attestations the attestations of a build
 * @throws HandoverError `invalid-input`
 */
export function planPush(
  inputs: PushInputs,
  tags: readonly TaggedReference[],
  source: 'build' | 'bake' | 'engine' | 'tarball' | 'layout',
  platform: Platform,
  attestations: Attestations,
): PushPlan | undefined {
  const { onFailure } = inputs;
  if (onFailure !== 'error' && onFailure !== 'warn') {
    throw invalidInput(
      `The input \`push-failure\` is "${quoteForeign(onFailure)}"; expected error or warn.`,
      'Correct `push-failure` under `with:`.',
    );
  }
  const platforms = inputs.platforms.map(parsePlatform);
  if (!inputs.enabled) return undefined;
  if (source === 'tarball' || source === 'layout') {
    throw invalidInput(
      `A \`source-${source}\` can be handed over, but not pushed.`,
      'Remove `push: true`. Push it in the step that builds it, or in a later job with org/image-handover/publish-image@v1.',
    );
  }
  const listedPlatforms = platforms.every((one) => samePlatform(one, platform)) ? [] : platforms;
  if (source === 'engine' && listedPlatforms.length > 0) {
    throw invalidInput(
      `\`push-platforms\` is ${platforms.map(formatPlatform).join(', ')}, but \`source-image\` is for one platform.`,
      'Remove `push-platforms`, or let this action build the image.',
    );
  }
  if (source === 'engine' && attestations.areWanted) {
    throw invalidInput(
      '`provenance` or `sbom` is set, but only a build has attestations: `source-image` is pushed unchanged.',
      'Remove them, or let this action build the image.',
    );
  }
  const [first, ...rest] = tags;
  if (first !== undefined) return { references: [first, ...rest], listedPlatforms, onFailure };
  throw invalidInput(
    '`push` is true, but the input `tags` is empty: there is no reference to push.',
    'Set `tags` to the output of docker/metadata-action, to one reference per line, or to `auto` with a `repository`.',
  );
}

/** Attestations of a built image, as values of `--provenance` and `--sbom`. `false` means none. */
export interface Attestations {
  readonly provenance: string;
  readonly sbom: string;
  /** Whether the inputs request attestations. If not, a builder that doesn't support them pushes the image without any. */
  readonly areWanted: boolean;
}

export interface AttestationFacts {
  readonly event: EventFacts;
  /** Web address of the workflow run, or empty. */
  readonly runUrl: string;
  readonly producer: { readonly runAttempt: number };
  /** The value of `BUILDX_NO_DEFAULT_ATTESTATIONS`. */
  readonly noDefaultAttestations: boolean;
}

/** No attestations, for a plain image. */
export const noAttestations: Attestations = { provenance: 'false', sbom: 'false', areWanted: false };

/** Returns the same attestations as docker/build-push-action with the same inputs (its context.ts, getAttestArgs). */
export function planAttestations({ provenance, sbom = 'false' }: PushInputs, facts: AttestationFacts): Attestations {
  const areWanted = [provenance ?? 'false', sbom].some((given) => !isFalse(given));
  return { provenance: provenanceOf(provenance, facts), sbom: isFalse(sbom) ? 'false' : sbom, areWanted };
}

function provenanceOf(given: string | undefined, facts: AttestationFacts): string {
  if (given === undefined) {
    if (facts.noDefaultAttestations) return 'false';
    // Provenance with `mode=max` contains build arguments and the definition of the build.
    return withBuilder(isPrivate(facts.event) ? 'mode=min,inline-only=true' : 'mode=max', facts);
  }
  if (isFalse(given)) return 'false';
  if (/^true$/i.test(given)) return withBuilder('', facts) || 'true';
  return /(?:^|,)\s*"?builder-id\s*=/.test(given) ? given : withBuilder(given, facts);
}

function withBuilder(attributes: string, { runUrl, producer }: AttestationFacts): string {
  const builder = runUrl === '' ? '' : `builder-id=${runUrl}/attempts/${String(producer.runAttempt)}`;
  return [attributes, builder].filter(Boolean).join(',');
}

function isFalse(text: string): boolean {
  return /^false$/i.test(text);
}

function isPrivate({ payload }: EventFacts): boolean {
  const repository = isObject(payload) ? payload['repository'] : undefined;
  return isObject(repository) && repository['private'] === true;
}
