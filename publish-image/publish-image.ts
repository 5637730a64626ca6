import { Readable } from 'node:stream';
import type { Artifact } from '../shared/artifacts/store.ts';
import { HandoverError, invalidInput, invalidTarball, RegistryFailure } from '../shared/base/errors.ts';
import { inPool } from '../shared/base/pool.ts';
import { chapter, type Timeline } from '../shared/base/timeline.ts';
import { type ImageAttestations, readAttestations } from '../shared/handed-over/attestations.ts';
import { findArtifacts, type FindTools, type FoundArtifact } from '../shared/handed-over/find.ts';
import { layerBytes, type RangedImage } from '../shared/handed-over/identity.ts';
import { onlyImage, requireOne, resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { requireAll } from '../shared/handed-over/side-by-side.ts';
import { type Digest, digestOf } from '../shared/image/digest.ts';
import { formatIndex, type ImageContents, mediaTypes } from '../shared/image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../shared/image/platform.ts';
import { formatReference, registryHost, type TaggedReference } from '../shared/image/reference.ts';
import type { BlobOrigin, PushedBlob, PushedManifest, RegistryClient } from '../shared/registry/registry-client.ts';
import type { PublishPlan } from './plan/plan.ts';

// Publishes the artifact's blobs and manifest unchanged, without an engine or a temporary file. So the published manifest is the one that
// was tested. Its attestations are published with it, in the index of the build. Several artifacts, one for each platform, become an index.
// Each blob is looked up, because a registry may have lost a part of a tagged image.

interface SourceImage extends RangedImage {
  readonly artifact: Artifact;
  readonly platform: Platform;
  readonly attestations: ImageAttestations | undefined;
}

export interface PublishResult {
  /** Digest of the manifest or index under each reference. */
  readonly digest: Digest;
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  readonly images: readonly (Pick<SourceImage, 'artifact' | 'platform'> & {
    readonly contents: Pick<ImageContents, 'manifestDigest' | 'configDigest'>;
  })[];
  /** Whether anything was published. */
  readonly isNew: boolean;
  /** Bytes of blobs by their origin. Each blob is counted once for each repository. */
  readonly bytes: Readonly<Record<BlobOrigin, number>>;
}

interface PublishTools extends FindTools {
  readonly timeline: Timeline;
  readonly registry: (repository: string) => Promise<RegistryClient>;
  /** Called before the step fails, with the references that are set. */
  readonly onPartial: (result: PublishResult) => void;
}

/**
 * @throws HandoverError `artifact-not-found`, `artifact-corrupt`, `transfer-failed`, `image-not-found`, `tarball-invalid`,
 *   `image-mismatch`, `revision-mismatch`, `registry-failed`
 */
export async function publishImage(plan: PublishPlan, tools: PublishTools): Promise<PublishResult> {
  const { log } = tools;
  const images = await chapter(tools, 'Find the artifact', () => findImages(plan, tools), 'Find');
  const zstd = images.filter(({ layers }) => layers.some(({ mediaType }) => mediaType.endsWith('+zstd')));
  if (zstd.length > 0)
    log.notice(
      `Publishing zstd layers, unchanged from the artifact ${zstd.map(({ artifact }) => artifact.name).join(', ')}: Docker before 23 ` +
        "and some other tools can't read them. Set `compression: gzip` in the export to publish gzip layers.",
    );
  const top = topOf(images);
  return chapter(tools, 'Publish', () => intoRegistries(plan, tools, images, top));
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
  // The config digests of all artifacts are compared together, later.
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
    `The artifact "${name}" has no image that can be published unchanged. It contains the output of docker save, or a tarball that is ` +
      'compressed as a whole, so there is no manifest.',
    'Let export-image build the image, or set `source-image` instead of `source-tarball`.',
  );
}

function requirePlatforms(images: readonly SourceImage[]): void {
  images.forEach((image, position) => {
    const twin = images.slice(0, position).find((other) => samePlatform(other.platform, image.platform));
    if (twin === undefined) return;
    throw invalidInput(
      `The artifacts "${twin.artifact.name}" and "${image.artifact.name}" both contain an image for ${formatPlatform(image.platform)}: ` +
        'an index has one image for each platform.',
      'In `artifact-name`, list only the artifacts of one image, such as docker-image-linux-*.',
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
    `The images to publish have the config digests ${found.join(', ')}; \`expected-config-digest\` is ${expected.join(', ')}.`,
    'Check that `artifact-name` and `expected-config-digest` come from the same export jobs, and re-run all jobs.',
  );
}

/** Returns the manifest for the tags: the image's own, or an index of several images or of images with attestations. */
function topOf(images: readonly [SourceImage, ...SourceImage[]]): PushedManifest {
  const [first, ...others] = images;
  const index = first.attestations?.index;
  if (others.length === 0)
    return index === undefined
      ? manifestsOf(first)[0]
      : { digest: digestOf(index), mediaType: mediaTypes.index, bytes: index };
  const { bytes, mediaType } = formatIndex(
    images.map(({ platform, contents, attestations: own }) => ({
      attestations: own?.manifests.map(({ descriptor }) => descriptor),
      mediaType: contents.manifestMediaType,
      digest: contents.manifestDigest,
      size: contents.manifestBytes.length,
      platform,
    })),
  );
  return { digest: digestOf(bytes), mediaType, bytes };
}

/**
 * Pushes the images to all repositories first, and then sets the tags. So if one repository refuses an image, no tag is set in another.
 * @param top the manifest for the tags
 */
async function intoRegistries(
  plan: PublishPlan,
  tools: PublishTools,
  images: readonly SourceImage[],
  top: PushedManifest,
): Promise<PublishResult> {
  const { log, registry, onPartial } = tools;
  const sent: Sent = { isNew: false, bytes: { there: 0, mounted: 0, pushed: 0 } };
  const children = images.flatMap(manifestsOf).filter(({ digest }) => digest !== top.digest);
  const blobs = [...new Map(images.flatMap(blobsOf).map((blob) => [blob.digest, blob])).values()];
  const pushes = new Map<string, ReturnType<typeof repositoryPush>>();
  const resultFor = (references: PublishResult['references']): PublishResult => ({
    digest: top.digest,
    references,
    images,
    ...sent,
  });
  const set: TaggedReference[] = [];
  try {
    for (const repository of new Set(plan.tags.map((tag) => tag.repository))) {
      // Blobs are mounted only from repositories in the user's inputs. An artifact could name a private repository.
      const mountFrom = mountable([...pushes.keys(), ...plan.mountFrom], repository);
      const job = { client: await registry(repository), repository, blobs, manifests: [...children, top], mountFrom };
      const push = repositoryPush(job, sent, log);
      pushes.set(repository, push);
      await push.contents();
    }
    for (const reference of plan.tags) {
      await pushes.get(reference.repository)?.tag(reference.tag, top);
      set.push(reference);
    }
  } catch (error) {
    const names = (references: readonly TaggedReference[]): string => references.map(formatReference).join(', ');
    const missing = names(plan.tags.filter((reference) => !set.includes(reference)));
    const [first, ...others] = set;
    const tell = first === undefined ? log.info : log.warning;
    tell(`References that are set: ${names(set) || 'none'}. Not set, or not confirmed: ${missing}.`);
    if (first !== undefined) onPartial(resultFor([first, ...others]));
    throw error;
  }
  return resultFor(plan.tags);
}

/** Returns the repositories to mount blobs from. A registry mounts blobs only from its own repositories. */
function mountable(from: readonly string[], repository: string): readonly string[] {
  return [...new Set(from)].filter((one) => registryHost(one) === registryHost(repository) && one !== repository);
}

interface Sent {
  isNew: boolean;
  readonly bytes: Record<BlobOrigin, number>;
}

// Each blob is already read in several parts at a time.
const blobsAtOnce = 3;

/** Returns functions that push to one repository, and count the bytes in `sent`. */
function repositoryPush(
  { client, repository, blobs, manifests, mountFrom }: Job,
  sent: Sent,
  log: PublishTools['log'],
) {
  const origins = new Map<Digest, BlobOrigin>();
  /** Counts each blob once, even if it was sent again. */
  const count = ({ digest, size }: PushedBlob, origin: BlobOrigin): void => {
    const before = origins.get(digest);
    if (before !== undefined && origin === 'there') return;
    if (before !== undefined) sent.bytes[before] -= size;
    origins.set(digest, origin);
    sent.bytes[origin] += size;
    sent.isNew ||= origin !== 'there';
  };
  /**
   * Pushes the blobs, and then the manifests, in the order that a registry requires. Those in `lost` are pushed even if the registry
   * reports them as present.
   */
  const put = async (lost: ReadonlySet<Digest>): Promise<void> => {
    const atMost = blobs.reduce((sum, { size }) => sum + size, 0);
    await log.progress('Pushed', { atMost }, async (onBytes) => {
      // If one blob fails, the uploads of the others are cancelled in the registry.
      await inPool(blobs, blobsAtOnce, async (blob, signal) => {
        const anyway = lost.has(blob.digest);
        count(blob, await client.pushBlob(repository, blob, { mountFrom, anyway, onBytes, signal }));
      });
    });
    for (const manifest of manifests) {
      const { digest } = manifest;
      if (!lost.has(digest) && (await client.manifestDigest(repository, digest, digest)) === digest) continue;
      await client.pushManifest(repository, manifest, digest);
      sent.isNew = true;
    }
  };
  /**
   * Retries once if the registry lacks a blob that it reported as present. First sends the blobs in the registry's error, or all blobs if
   * the error lists none.
   */
  const despiteLostBlobs = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof RegistryFailure) || !error.isBlobLost) throw error;
      log.info(`${error.message}. Sending the missing content again.`);
      const all = [...blobs, ...manifests].map(({ digest }) => digest);
      const named = all.filter((digest) => error.said.includes(digest));
      await put(new Set(named.length > 0 ? named : all));
      await work();
    }
  };
  return {
    /** Pushes everything to the repository, without a tag. */
    contents: () => despiteLostBlobs(() => put(new Set())),
    /** Sets a tag unless it already refers to that manifest. */
    tag: async (tag: string, top: PushedManifest): Promise<void> => {
      const found = await client.manifestDigest(repository, tag, top.digest);
      const isNew = found !== top.digest;
      if (isNew) await despiteLostBlobs(() => client.pushManifest(repository, top, tag, found));
      sent.isNew ||= isNew;
      log.info(`${formatReference({ repository, tag })}: ${isNew ? 'published' : 'already there'}, ${top.digest}`);
    },
  };
}

/** The content for one repository. */
interface Job {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly blobs: readonly PushedBlob[];
  /** Ordered so that each follows the manifests that it refers to. */
  readonly manifests: readonly PushedManifest[];
  readonly mountFrom: readonly string[];
}

/** Returns an image's manifest, and those of its attestations. */
function manifestsOf({ contents, attestations }: SourceImage): readonly [PushedManifest, ...PushedManifest[]] {
  const { manifestDigest, manifestMediaType, manifestBytes } = contents;
  const further = attestations?.manifests ?? [];
  return [
    { digest: manifestDigest, mediaType: manifestMediaType, bytes: manifestBytes },
    ...further.map(({ descriptor: { digest, mediaType }, bytes }) => ({ digest, mediaType, bytes })),
  ];
}

function blobsOf({ contents, layers, read, attestations }: SourceImage): readonly PushedBlob[] {
  const { configDigest, configBytes } = contents;
  const nothing = (): void => undefined;
  const attested = attestations?.blobs.map(({ digest, size, offset }) => ({
    digest,
    size,
    open: () => attestations.read(offset, offset + size, nothing),
  }));
  return [
    ...layers.map((layer) => ({ ...layer, open: () => layerBytes(layer, read, nothing) })),
    { digest: configDigest, size: configBytes.length, open: () => Readable.from([configBytes]) },
    ...(attested ?? []),
  ];
}
