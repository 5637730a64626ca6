import { readAttestations } from '../shared/handed-over/attestations.ts';
import { findArtifacts, type FoundArtifact } from '../shared/handed-over/find.ts';
import { onlyImage, requireOne, resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { requireAll } from '../shared/handed-over/side-by-side.ts';
import type { Artifact } from '../shared/artifacts/store.ts';
import { HandoverError, invalidInput, invalidTarball } from '../shared/base/errors.ts';
import { digestOf } from '../shared/image/digest.ts';
import { formatIndex, mediaTypes } from '../shared/image/manifest.ts';
import { formatPlatform, samePlatform } from '../shared/image/platform.ts';
import type { PushedManifest } from '../shared/registry/registry-client.ts';
import {
  intoRegistries,
  manifestsOf,
  type PublishResult,
  type PublishTools,
  type SourceImage,
} from './into-registries.ts';
import type { PublishPlan } from './plan/plan.ts';

// Publishes the artifact's blobs and manifest unchanged, without an engine and without a file. So the published manifest is the one that was
// tested. Its attestations are published with it, in the index of the build. Several artifacts, one for each platform, become an index.

/**
 * @throws HandoverError `artifact-not-found`, `artifact-corrupt`, `transfer-failed`, `image-not-found`, `tarball-invalid`,
 *   `image-mismatch`, `revision-mismatch`, `registry-failed`
 */
export async function publishImage(plan: PublishPlan, tools: PublishTools): Promise<PublishResult> {
  const { log, timeline } = tools;
  const images = await log.chapter('Find the artifact', () => timeline.measure('Find', () => findImages(plan, tools)));
  const zstd = images.filter(({ layers }) => layers.some(({ mediaType }) => mediaType.endsWith('+zstd')));
  if (zstd.length > 0)
    log.notice(
      `Publishing zstd layers, as they are in the artifact ${zstd.map(({ artifact }) => artifact.name).join(', ')}: Docker before 23 ` +
        "and some other tools can't read them. Set `compression: gzip` in the export to publish gzip layers.",
    );
  const top = topOf(images);
  return log.chapter('Publish', () => timeline.measure('Publish', () => intoRegistries(plan, tools, images, top)));
}

async function findImages(plan: PublishPlan, tools: PublishTools): Promise<readonly [SourceImage, ...SourceImage[]]> {
  const artifacts = requireAll(await findArtifacts(plan.wanted, tools), 'read');
  const images = requireOne(await Promise.all(artifacts.map((artifact) => sourceImage(artifact, plan))));
  requirePlatforms(images);
  requireDigests(plan, images);
  return images;
}

async function sourceImage(found: FoundArtifact, { image, expectedRevision }: PublishPlan): Promise<SourceImage> {
  const { content, record } = found;
  const { artifact } = content;
  if (found.identified === undefined) throw unsuitable(artifact);
  // The config digests of all artifacts are compared together.
  const wish = { reference: undefined, expectedConfigDigest: undefined, expectedRevision, host: undefined };
  const [resolved] = resolveArtifact(onlyImage(found, image), wish).images ?? [];
  if (resolved?.ranged === undefined) throw unsuitable(artifact);
  const { contents } = resolved.ranged;
  const isMain = record?.manifestDigests.includes(contents.manifestDigest) === true;
  const attestations =
    isMain && record.indexDigest !== undefined
      ? await readAttestations(content, contents, record.indexDigest)
      : undefined;
  return { artifact, platform: resolved.identity.platform, ...resolved.ranged, attestations };
}

function unsuitable({ name }: Artifact): HandoverError {
  return invalidTarball(
    `The artifact "${name}" has no image that can be published as it is: it holds a tarball of docker save, or one that is ` +
      'compressed as a whole, in which there is no manifest.',
    'Let export-image build the image, or take it with `source-image`, instead of `source-tarball`.',
  );
}

function requirePlatforms(images: readonly SourceImage[]): void {
  images.forEach((image, position) => {
    const twin = images.slice(0, position).find((other) => samePlatform(other.platform, image.platform));
    if (twin === undefined) return;
    throw invalidInput(
      `The artifacts "${twin.artifact.name}" and "${image.artifact.name}" both hold an image for ${formatPlatform(image.platform)}: ` +
        'one index has one image for each platform.',
      'Name in `artifact-name` the artifacts of one image alone, such as docker-image-linux-*.',
    );
  });
}

function requireDigests({ expectedConfigDigests: expected }: PublishPlan, images: readonly SourceImage[]): void {
  if (expected.length === 0) return;
  const found = images.map(({ contents }) => contents.configDigest);
  const same = found.every((one) => expected.includes(one)) && expected.every((one) => found.includes(one));
  if (same) return;
  throw new HandoverError(
    'image-mismatch',
    `The config digests of what would be published are ${found.join(', ')}; \`expected-config-digest\` is ${expected.join(', ')}.`,
    'Check that `artifact-name` and `expected-config-digest` come from the same export jobs, and re-run all jobs.',
  );
}

/** Returns the manifest for the tags: the image's own, or an index of several images, or of images with attestations. */
function topOf(images: readonly [SourceImage, ...SourceImage[]]): PushedManifest {
  const [first, ...others] = images;
  const index = first.attestations?.index;
  if (others.length === 0)
    return index === undefined
      ? manifestsOf(first)[0]
      : { digest: digestOf(index), mediaType: mediaTypes.index, bytes: index };
  const { bytes, mediaType } = formatIndex(
    images.map(({ platform, contents, attestations: own }) => ({
      ...(own === undefined ? {} : { attestations: own.manifests.map(({ descriptor }) => descriptor) }),
      mediaType: contents.manifestMediaType,
      digest: contents.manifestDigest,
      size: contents.manifestBytes.length,
      platform,
    })),
  );
  return { digest: digestOf(bytes), mediaType, bytes };
}
