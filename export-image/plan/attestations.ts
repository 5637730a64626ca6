import type { PushInputs } from '../inputs.ts';
import { isObject } from '../../shared/base/json.ts';
import type { EventFacts } from '../../shared/image/workflow-event.ts';

/** Attestations of a built image, as values of `--provenance` and `--sbom`. `false` is none. */
export interface Attestations {
  readonly provenance: string;
  readonly sbom: string;
  /** Whether the inputs ask for one. If not, a builder without attestations pushes the image without them. */
  readonly areWanted: boolean;
}

export interface AttestationFacts {
  readonly event: EventFacts;
  /** Web address of the workflow run, or empty. */
  readonly runUrl: string;
  readonly producer: { readonly runAttempt: number };
  /** `BUILDX_NO_DEFAULT_ATTESTATIONS`. */
  readonly noDefaultAttestations: boolean;
}

/** For a plain image. */
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
