import { HandoverError } from '../shared/base/errors.ts';
import { quoteForeign } from '../shared/base/text.ts';
import type { InspectedImage } from '../shared/docker/output.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatPlatform, type Platform, runsOn, samePlatform } from '../shared/image/platform.ts';

/** What the image must be: from the record, or from the tarball's own manifest and config. */
export interface ExpectedImage {
  /** Undefined where neither the engine nor the registry tells it. */
  readonly configDigest: Digest | undefined;
  /** Of the image's manifest and of indexes around it. Empty when the tarball has no manifest: then the image ID of a containerd store can't be foretold. */
  readonly manifestDigests: readonly Digest[];
  readonly diffIds: readonly Digest[];
  readonly platform: Platform;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Expectations {
  readonly expectedConfigDigest: Digest | undefined;
  readonly expectedRevision: string | undefined;
  readonly checkPlatform: boolean;
}

/** What of an image is checked against expectations; the config digest may be unknown where none is expected. */
export type CheckedImage = Pick<ExpectedImage, 'platform' | 'labels'> & { readonly configDigest: Digest | undefined };

const revisionLabel = 'org.opencontainers.image.revision';

/**
 * How the engine's image differs from the expected one, in words; empty when it is the very image, whole. Never compares the
 * IDs of two engines: `.Id` is the config digest or a manifest's, depending on the image store.
 */
export function differences(expected: ExpectedImage, found: InspectedImage): readonly string[] {
  const ids: readonly string[] = [
    ...(expected.configDigest === undefined ? [] : [expected.configDigest]),
    ...expected.manifestDigests,
  ];
  const idFits = ids.includes(found.imageId) || expected.manifestDigests.length === 0;
  const layersFit =
    expected.diffIds.length === found.diffIds.length &&
    expected.diffIds.every((diffId, position) => diffId === found.diffIds[position]);
  return [
    ...(idFits ? [] : [`image ID ${found.imageId} instead of ${ids.join(' or ')}`]),
    ...(layersFit ? [] : [`layers ${listed(found.diffIds)} instead of ${listed(expected.diffIds)}`]),
    ...(samePlatform(expected.platform, found.platform)
      ? []
      : [`platform ${formatPlatform(found.platform)} instead of ${formatPlatform(expected.platform)}`]),
    ...(found.isWhole === false ? ['content that the engine lacks, so that docker save would fail'] : []),
  ];
}

function listed(diffIds: readonly Digest[]): string {
  const last = diffIds.at(-1);
  return last === undefined ? 'none' : `${String(diffIds.length)} up to ${last.slice(0, 19)}…`;
}

/** @throws HandoverError `image-mismatch` */
export function requireSameImage(reference: string, expected: ExpectedImage, found: InspectedImage): void {
  const wrong = differences(expected, found);
  if (wrong.length === 0) return;
  throw new HandoverError(
    'image-mismatch',
    `${reference} is not the image that was handed over: ${wrong.join('; ')}.`,
    'The tag has been taken back. Run the job that exports the image again; if it repeats, look for a step that builds or ' +
      'pulls the same tag on this runner.',
  );
}

/**
 * Checks what is known before the image is loaded.
 * @param host platform of this runner's engine
 * @throws HandoverError `image-mismatch`, `revision-mismatch`, `platform-mismatch`
 */
export function requireExpected(expectations: Expectations, image: CheckedImage, host: Platform): void {
  const { expectedConfigDigest, expectedRevision, checkPlatform } = expectations;
  if (expectedConfigDigest !== undefined && expectedConfigDigest !== image.configDigest) {
    throw new HandoverError(
      'image-mismatch',
      `The image has the config digest ${image.configDigest ?? 'unknown'}; \`expected-config-digest\` is ${expectedConfigDigest}.`,
      'Check that `artifact-name` or `registry-image` and `expected-config-digest` come from the same export job, and re-run all jobs.',
    );
  }
  requireRevision(expectedRevision, image.labels[revisionLabel]);
  if (!checkPlatform || runsOn(image.platform, host)) return;
  throw new HandoverError(
    'platform-mismatch',
    `The image is for ${formatPlatform(image.platform)}; this runner's engine is ${formatPlatform(host)}.`,
    `Export with \`platform: ${formatPlatform(host)}\`, use a runner of the image's platform, or set \`check-platform: false\` ` +
      'if the engine emulates it.',
  );
}

function requireRevision(expected: string | undefined, found: string | undefined): void {
  if (expected === undefined || expected === found) return;
  const has = found === undefined ? `has no label ${revisionLabel}` : `was built from ${quoteForeign(found)}`;
  throw new HandoverError(
    'revision-mismatch',
    `The image ${has}; \`expected-revision\` is ${quoteForeign(expected)}.`,
    'Pass `labels: ${{ steps.meta.outputs.labels }}` of docker/metadata-action to the export, and check which commit it ' +
      'names: on a pull request it is the merge commit unless you set it.',
  );
}
