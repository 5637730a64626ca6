import { RegistryFailure } from '../shared/base/errors.ts';
import { inPool } from '../shared/base/pool.ts';
import type { ImageAttestations } from '../shared/handed-over/attestations.ts';
import { layerBytes } from '../shared/handed-over/identity.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatReference, registryHost, type TaggedReference } from '../shared/image/reference.ts';
import type { BlobOrigin, PushedBlob, PushedManifest, RegistryClient } from '../shared/registry/registry-client.ts';
import type { PublishPlan } from './plan/plan.ts';
import type { PublishResult, PublishTools, SourceImage } from './result.ts';

// Puts the image into all repositories first, and then sets the tags. So if one repository refuses it, no tag is set in another. Each blob
// is looked up, because a registry may have lost a part of a tagged image.

export function manifestOf({ contents }: SourceImage): PushedManifest {
  return {
    digest: contents.manifestDigest,
    mediaType: contents.manifestMediaType,
    bytes: contents.manifestBytes,
  };
}

function attestationsOf({ attestations }: SourceImage): readonly PushedManifest[] {
  const manifests = attestations?.manifests ?? [];
  return manifests.map(({ descriptor: { digest, mediaType }, bytes }) => ({ digest, mediaType, bytes }));
}

/** The content for one repository. */
interface Job {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly blobs: readonly PushedBlob[];
  /** Each after the manifests that it refers to. */
  readonly manifests: readonly PushedManifest[];
  readonly mountFrom: readonly string[];
  readonly origins: Map<Digest, BlobOrigin>;
  readonly sent: Sent;
  readonly tools: PublishTools;
}

interface Sent {
  isNew: boolean;
  readonly bytes: Record<BlobOrigin, number>;
}

export async function intoRegistries(
  plan: PublishPlan,
  tools: PublishTools,
  images: readonly SourceImage[],
  top: PushedManifest,
): Promise<PublishResult> {
  const sent: Sent = { isNew: false, bytes: { there: 0, mounted: 0, pushed: 0 } };
  const repositories = [...new Set(plan.tags.map(({ repository }) => repository))];
  const manifests = images.flatMap((image) => [manifestOf(image), ...attestationsOf(image)]);
  const children = manifests.filter(({ digest }) => digest !== top.digest);
  const blobs = [...new Map(images.flatMap(blobsOf).map((blob) => [blob.digest, blob])).values()];
  const jobs = new Map<string, Job>();
  const resultFor = (references: PublishResult['references']): PublishResult => ({
    digest: top.digest,
    references,
    images: images.map(({ artifact, platform, contents }) => ({
      artifact,
      platform,
      manifestDigest: contents.manifestDigest,
      configDigest: contents.configDigest,
    })),
    ...sent,
  });
  const set: TaggedReference[] = [];
  try {
    for (const repository of repositories) {
      const client = await tools.registry(repository);
      // Blobs are mounted only from the user's own inputs: an artifact could name a private repository.
      const mountFrom = mountable([...jobs.keys(), ...plan.mountFrom], repository);
      const job = {
        client,
        repository,
        blobs,
        manifests: [...children, top],
        mountFrom,
        origins: new Map<Digest, BlobOrigin>(),
        sent,
        tools,
      };
      jobs.set(repository, job);
      await despiteLostBlobs(job, () => putContents(job));
    }
    for (const reference of plan.tags) {
      const job = jobs.get(reference.repository);
      if (job !== undefined) await setTag(job, reference, top);
      set.push(reference);
    }
  } catch (error) {
    tellPartial(plan.tags, set, tools, resultFor);
    throw error;
  }
  return resultFor(plan.tags);
}

/** Reports the references that are set when another one is refused, in the log and in the outputs. */
function tellPartial(
  tags: PublishPlan['tags'],
  set: readonly TaggedReference[],
  { log, onPartial }: PublishTools,
  resultFor: (references: PublishResult['references']) => PublishResult,
): void {
  const names = (references: readonly TaggedReference[]): string => references.map(formatReference).join(', ');
  const missing = names(tags.filter((reference) => !set.includes(reference)));
  const [first, ...others] = set;
  const tell = first === undefined ? log.info : log.warning;
  tell(`References that are set: ${names(set) || 'none'}. Not set, or not confirmed: ${missing}.`);
  if (first !== undefined) onPartial(resultFor([first, ...others]));
}

async function setTag(job: Job, reference: TaggedReference, top: PushedManifest): Promise<void> {
  const { client, tools, sent } = job;
  const { repository, tag } = reference;
  const found = await client.manifestDigest(repository, tag, top.digest);
  const isNew = found !== top.digest;
  if (isNew) await despiteLostBlobs(job, () => client.pushManifest(repository, top, tag, found));
  sent.isNew ||= isNew;
  const outcome = isNew ? 'published' : 'was there already';
  tools.log.info(`${formatReference(reference)}: ${outcome}, ${top.digest}`);
}

/** A registry mounts blobs only from its own repositories. */
function mountable(from: readonly string[], repository: string): readonly string[] {
  return [...new Set(from)].filter((one) => registryHost(one) === registryHost(repository) && one !== repository);
}

/** Retries once if the registry lacks a blob that it reported as present. Sends the blobs in its error first, or else all blobs. */
async function despiteLostBlobs(job: Job, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof RegistryFailure) || error.reason !== 'unknown-blob') throw error;
    job.tools.log.info(`${error.message}. Sending again what is missing.`);
    const all = [...job.blobs, ...job.manifests].map(({ digest }) => digest);
    const named = all.filter((digest) => error.said.includes(digest));
    await putContents(job, new Set(named.length > 0 ? named : all));
    await work();
  }
}

// Each blob is already read in several parts at a time.
const blobsAtOnce = 3;

/**
 * Puts everything that the top manifest refers to into the repository, and then the manifest itself, as a registry requires.
 * @param lost digests to send even if the registry reports them as present
 */
async function putContents(job: Job, lost: ReadonlySet<Digest> = new Set()): Promise<void> {
  const { client, repository, manifests, sent } = job;
  await putBlobs(job, lost);
  for (const manifest of manifests) {
    const { digest } = manifest;
    if (!lost.has(digest) && (await client.manifestDigest(repository, digest, digest)) === digest) continue;
    await client.pushManifest(repository, manifest, digest);
    sent.isNew = true;
  }
}

/** Counts each blob once for each repository, including one that was sent again. */
function count({ sent, origins }: Job, { digest, size }: PushedBlob, origin: BlobOrigin): void {
  const before = origins.get(digest);
  if (before !== undefined && origin === 'there') return;
  if (before !== undefined) sent.bytes[before] -= size;
  origins.set(digest, origin);
  sent.bytes[origin] += size;
  sent.isNew ||= origin !== 'there';
}

async function putBlobs(job: Job, lost: ReadonlySet<Digest>): Promise<void> {
  const { client, repository, blobs, mountFrom, tools } = job;
  const atMost = blobs.reduce((sum, { size }) => sum + size, 0);
  await tools.log.progress('Pushed', { atMost }, async (onBytes) => {
    // After an error, the others end their uploads in the registry.
    await inPool(blobs, blobsAtOnce, async (blob, signal) => {
      const anyway = lost.has(blob.digest);
      const origin = await client.pushBlob(repository, blob, { mountFrom, anyway, onBytes, signal });
      count(job, blob, origin);
    });
  });
}

function blobsOf({ contents, layers, read, attestations }: SourceImage): readonly PushedBlob[] {
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
    ...layers.map((layer) => ({
      digest: layer.digest,
      size: layer.size,
      open: () => layerBytes(layer, read, nothing),
    })),
    config,
    ...(attestations === undefined ? [] : attestationBlobs(attestations)),
  ];
}

function attestationBlobs({ blobs, read }: ImageAttestations): readonly PushedBlob[] {
  return blobs.map(({ digest, size, offset }) => ({
    digest,
    size,
    open: () => read(offset, offset + size, () => undefined),
  }));
}
