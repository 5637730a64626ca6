import type { KnownImage } from '../load-image/identity.ts';
import { type FindTools, type Handover, openHandovers } from '../load-image/find.ts';
import { requireAll } from '../load-image/side-by-side.ts';
import { requireExpected } from '../load-image/verify.ts';
import type { Artifact, ReadRange } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { type Digest, digestOf } from '../shared/image/digest.ts';
import { formatIndex, type ImageContents } from '../shared/image/manifest.ts';
import { formatPlatform, type Platform, samePlatform } from '../shared/image/platform.ts';
import { corruptLayer, type RecordLayer } from '../shared/image/record.ts';
import {
  formatReference,
  type PinnedReference,
  registryHost,
  type TaggedReference,
} from '../shared/image/reference.ts';
import type { BlobWay, PushedBlob, PushedManifest, RegistryClient } from '../shared/registry/registry-client.ts';
import { layerChunks } from '../shared/tar/layer-form.ts';
import type { PublishPlan } from './plan/plan.ts';

// From the artifact to the registry, without an engine and without a file: the very blobs, under the very manifest, so that the digest
// that is published is the digest that was tested. Of several artifacts, one for each platform, an index is made.

/** One image, as the artifact has it. */
interface SourceImage {
  readonly artifact: Artifact;
  readonly platform: Platform;
  readonly contents: ImageContents;
  readonly layers: readonly RecordLayer[];
  readonly read: ReadRange;
  /** Where it is already, as its export says. */
  readonly pushed: PinnedReference | undefined;
}

/** What happened. */
export interface PublishResult {
  /** Of the manifest, or the index, under each of the references. */
  readonly digest: Digest;
  readonly references: readonly [TaggedReference, ...TaggedReference[]];
  readonly images: readonly {
    readonly artifact: Artifact;
    readonly platform: Platform;
    readonly manifestDigest: Digest;
    readonly configDigest: Digest;
  }[];
  /** Whether there was anything to do. */
  readonly isNew: boolean;
  /** Bytes of blobs, by how they got there; each counted once for each repository. */
  readonly bytes: Readonly<Record<BlobWay, number>>;
}

export interface PublishTools extends FindTools {
  readonly timeline: Timeline;
  readonly registry: (repository: string) => Promise<RegistryClient>;
}

/**
 * @throws HandoverError `artifact-not-found`, `artifact-corrupt`, `transfer-failed`, `image-not-found`, `tarball-invalid`,
 *   `image-mismatch`, `revision-mismatch`, `registry-failed`
 */
export async function publishImage(plan: PublishPlan, tools: PublishTools): Promise<PublishResult> {
  const { log, timeline } = tools;
  const images = await log.chapter('Find the artifact', () => timeline.measure('Find', () => findImages(plan, tools)));
  const top = topOf(images);
  return log.chapter('Publish', () => timeline.measure('Publish', () => publish(plan, tools, images, top)));
}

async function findImages(plan: PublishPlan, tools: PublishTools): Promise<readonly [SourceImage, ...SourceImage[]]> {
  const handovers = requireAll(await openHandovers(plan.wanted, tools), 'read');
  const [first, ...others] = await Promise.all(handovers.map((handover) => sourceImage(handover, plan)));
  if (first === undefined) throw new RangeError('no artifact, and no error');
  const images = [first, ...others] as const;
  requirePlatforms(images);
  requireDigests(plan, images);
  return images;
}

async function sourceImage({ content, record, known }: Handover, plan: PublishPlan): Promise<SourceImage> {
  const { artifact } = content;
  if (record === undefined || known === undefined) throw unsuitable(artifact);
  const { contents, layers, identity } = chosen(artifact, known, plan);
  const read = await content.ranges(record.tarballName);
  if (contents === undefined || layers === undefined || read === undefined) throw unsuitable(artifact);
  const { expectedRevision } = plan;
  const { platform } = identity;
  requireExpected({ expectedConfigDigest: undefined, expectedRevision, checkPlatform: false }, identity, platform);
  return { artifact, platform, contents, layers, read, pushed: record.pushedReference };
}

function chosen(artifact: Artifact, known: readonly KnownImage[], { image }: PublishPlan): KnownImage {
  const names = ({ references }: KnownImage): readonly string[] => references.map(formatReference);
  const wanted = image === undefined ? known : known.filter((one) => names(one).includes(formatReference(image)));
  const [found, ...others] = wanted;
  if (found !== undefined && others.length === 0) return found;
  const there = known.flatMap(names).slice(0, 20).join(', ');
  throw new HandoverError(
    'image-not-found',
    image === undefined
      ? `The artifact "${artifact.name}" holds ${String(known.length)} images: ${there}. One is published at a time.`
      : `The artifact "${artifact.name}" has no image ${formatReference(image)}; it has ${there}.`,
    'Set `image` to the one that is meant, as the artifact calls it.',
  );
}

function unsuitable({ name }: Artifact): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    `The artifact "${name}" has no image that can be published as it is: it holds a tarball of docker save, or one that is ` +
      'compressed as a whole, in which there is no manifest.',
    'Let export-image build the image, or take it with `source-image`, instead of `source-tarball`.',
  );
}

function requirePlatforms(images: readonly SourceImage[]): void {
  images.forEach((image, position) => {
    const twin = images.slice(0, position).find((other) => samePlatform(other.platform, image.platform));
    if (twin === undefined) return;
    throw new HandoverError(
      'invalid-input',
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

function manifestOf({ contents }: SourceImage): PushedManifest {
  return {
    digest: contents.manifestDigest,
    mediaType: contents.manifestMediaType,
    bytes: contents.manifestBytes,
  };
}

/** What the tags are to stand for: the image's own manifest, or an index of several. */
function topOf(images: readonly [SourceImage, ...SourceImage[]]): PushedManifest {
  const [first, ...others] = images;
  if (others.length === 0) return manifestOf(first);
  const { bytes, mediaType } = formatIndex(
    images.map(({ platform, contents }) => ({
      mediaType: contents.manifestMediaType,
      digest: contents.manifestDigest,
      size: contents.manifestBytes.length,
      platform,
    })),
  );
  return { digest: digestOf(bytes), mediaType, bytes };
}

async function publish(
  plan: PublishPlan,
  tools: PublishTools,
  images: readonly SourceImage[],
  top: PushedManifest,
): Promise<PublishResult> {
  const { log } = tools;
  const bytes = { there: 0, mounted: 0, pushed: 0 };
  let isNew = false;
  const done: string[] = [];
  for (const [repository, tags] of byRepository(plan.tags)) {
    const client = await tools.registry(repository);
    const found = await Promise.all(tags.map(({ tag }) => client.manifestDigest(repository, tag)));
    const missing = tags.filter((_, position) => found[position] !== top.digest);
    if (missing.length > 0) {
      isNew = true;
      if ((await client.manifestDigest(repository, top.digest)) === undefined) {
        const from = [...done, ...plan.mountFrom, ...images.flatMap(({ pushed }) => pushed?.repository ?? [])];
        await pushContents(client, { repository, images, mountFrom: mountable(from, repository), bytes }, tools);
      }
      for (const tag of missing) await client.pushManifest(repository, top, tag.tag);
    }
    for (const tag of tags)
      log.info(`${formatReference(tag)}: ${missing.includes(tag) ? 'published' : 'was there already'}, ${top.digest}`);
    done.push(repository);
  }
  return {
    digest: top.digest,
    references: plan.tags,
    images: images.map(({ artifact, platform, contents }) => ({
      artifact,
      platform,
      manifestDigest: contents.manifestDigest,
      configDigest: contents.configDigest,
    })),
    isNew,
    bytes,
  };
}

/** A registry takes blobs over from its own repositories alone. */
function mountable(from: readonly string[], repository: string): readonly string[] {
  return [...new Set(from)].filter((one) => registryHost(one) === registryHost(repository));
}

function byRepository(tags: readonly TaggedReference[]): ReadonlyMap<string, readonly TaggedReference[]> {
  const all = new Map<string, TaggedReference[]>();
  for (const tag of tags) all.set(tag.repository, [...(all.get(tag.repository) ?? []), tag]);
  return all;
}

interface PushJob {
  readonly repository: string;
  readonly images: readonly SourceImage[];
  readonly mountFrom: readonly string[];
  readonly bytes: Record<BlobWay, number>;
}

// Each is read in several parts at a time already.
const blobsAtOnce = 3;

/** All that the top manifest leads to: blobs first, then manifests, as a registry wants it. */
async function pushContents(client: RegistryClient, job: PushJob, { log }: PublishTools): Promise<void> {
  const { repository, images, mountFrom, bytes } = job;
  const blobs = [...new Map(images.flatMap(blobsOf).map((blob) => [blob.digest, blob])).values()];
  const atMost = blobs.reduce((sum, { size }) => sum + size, 0);
  await log.progress('Pushed', { atMost }, async (passed) => {
    const waiting = blobs.values();
    const worker = async (): Promise<void> => {
      for (const blob of waiting) {
        const way = await client.pushBlob(repository, blob, mountFrom, passed);
        bytes[way] += blob.size;
      }
    };
    await Promise.all(Array.from({ length: blobsAtOnce }, worker));
  });
  if (images.length === 1) return;
  for (const image of images) await client.pushManifest(repository, manifestOf(image), image.contents.manifestDigest);
}

function blobsOf({ contents, layers, read }: SourceImage): readonly PushedBlob[] {
  const { configDigest, configBytes } = contents;
  const config = {
    digest: configDigest,
    size: configBytes.length,
    open: async function* () {
      yield await Promise.resolve(configBytes);
    },
  };
  const nothing = (): void => undefined;
  return [
    ...layers.map(({ digest, size, mediaType, offset = 0 }) => ({
      digest,
      size,
      open: () => layerChunks(read(offset, offset + size, nothing), mediaType, (what) => corruptLayer(digest, what)),
    })),
    config,
  ];
}
