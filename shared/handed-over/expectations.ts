import { HandoverError, invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import { type Digest, parseDigest } from '../image/digest.ts';
import { formatPlatform, type Platform, runsOn } from '../image/platform.ts';
import type { Identity } from './identity.ts';

/** The inputs' expectations of an image. */
export interface Expectations {
  readonly expectedConfigDigest: Digest | undefined;
  readonly expectedRevision: string | undefined;
  /** The platform that must be able to run the image; undefined accepts every image. */
  readonly host: Platform | undefined;
}

const revisionLabel = 'org.opencontainers.image.revision';

/** @throws HandoverError `invalid-input` for the input `expected-config-digest` */
export function parseExpectedDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  throw invalidInput(
    `The input \`expected-config-digest\` is "${quoteForeign(text)}"; expected sha256:<64 hex digits>.`,
    'Give it the output `config-digest` of export-image: ${{ needs.build.outputs.config-digest }}.',
  );
}

/**
 * Compares images with the inputs' expectations. The expected config digest applies to the first image.
 * @throws HandoverError `image-mismatch`, `revision-mismatch`, `platform-mismatch`
 */
export function requireExpected(
  { expectedConfigDigest, expectedRevision, host }: Expectations,
  images: readonly Pick<Identity, 'configDigest' | 'labels' | 'platform'>[],
): void {
  const [first] = images;
  if (expectedConfigDigest !== undefined && first !== undefined)
    requireDigest(expectedConfigDigest, first.configDigest);
  for (const { labels, platform } of images) {
    if (expectedRevision !== undefined) requireRevision(expectedRevision, labels[revisionLabel]);
    if (host !== undefined) requirePlatform(host, platform);
  }
}

function requireDigest(expected: Digest, found: Digest | undefined): void {
  if (expected === found) return;
  throw new HandoverError(
    'image-mismatch',
    `The image has the config digest ${found ?? 'unknown'}; \`expected-config-digest\` is ${expected}.`,
    'Check that `artifact-name` or `registry-image` and `expected-config-digest` come from the same export job, and re-run all jobs.',
  );
}

function requirePlatform(host: Platform, found: Platform): void {
  if (runsOn(found, host)) return;
  throw new HandoverError(
    'platform-mismatch',
    `The image is for ${formatPlatform(found)}; this runner's engine is ${formatPlatform(host)}.`,
    `Export with \`platform: ${formatPlatform(host)}\`, use a runner of the image's platform, or set \`check-platform: false\` ` +
      'if the engine emulates it.',
  );
}

function requireRevision(expected: string, found: string | undefined): void {
  if (expected === found) return;
  const has = found === undefined ? `has no label ${revisionLabel}` : `was built from ${quoteForeign(found)}`;
  throw new HandoverError(
    'revision-mismatch',
    `The image ${has}; \`expected-revision\` is ${quoteForeign(expected)}.`,
    'Pass `labels: ${{ steps.meta.outputs.labels }}` of docker/metadata-action to the export, and check which commit it ' +
      'names: on a pull request it is the merge commit unless you set it.',
  );
}
