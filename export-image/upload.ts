import { basename } from 'node:path';
import { Readable } from 'node:stream';
import type { Artifact, ArtifactFile, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { requireDiskSpace } from '../shared/bytes/disk-space.ts';
import type { LentChunks } from '../shared/bytes/chunks.ts';
import type { PartialFile } from '../shared/bytes/partial-file.ts';
import { Checksum, checksummed, drain } from '../shared/bytes/verified.ts';
import type { BuildStep } from '../shared/docker/build-progress.ts';
import { type Digest, digestOf } from '../shared/image/digest.ts';
import {
  attestationsName,
  formatRecord,
  type HandoverRecord,
  type RecordTimes,
  type Producer,
  type RecordedImage,
  recordName,
} from '../shared/image/record.ts';
import type { PinnedReference, TaggedReference } from '../shared/image/reference.ts';
import { arrivingLayers, begun, layoutBlobs } from '../shared/layout/arriving-layers.ts';
import type { LayoutAttestations } from '../shared/layout/read-layout.ts';
import {
  type ArrivingLayer,
  indexedBlobs,
  type NamedImage,
  tarballChunks,
  type WrittenTarball,
} from '../shared/tar/tarball-writer.ts';
import type { NameClaim } from './name-claim.ts';
import type { ExportPlan, LayoutPlan } from './plan/plan.ts';
import { isPushedByItsBuild } from './plan/push-plan.ts';
import { pushedByBuild, type PushState } from './push.ts';
import type { CacheWriting } from './source/build-caches.ts';

/** The record without the facts that are known only after the tarball is written. */
type UnsealedRecord = Omit<HandoverRecord, 'tarballDigest' | 'times'>;

/** What follows the tarball. */
export interface Unsealed {
  readonly record: UnsealedRecord;
  /** The file of the image's attestations, if it has any. */
  readonly attestations?: LentChunks | undefined;
}

/**
 * Returns the artifact's files: the tarball, the attestations if there are any, and the record with the tarball's digest.
 * @param unsealed called after the tarball is read
 * @param sealed called with the finished record
 */
async function* artifactFiles(
  tarball: ArtifactFile,
  unsealed: () => Promise<Unsealed>,
  timeline: Timeline,
  sealed: (record: HandoverRecord) => void,
): AsyncGenerator<ArtifactFile> {
  const checksum = new Checksum();
  yield { ...tarball, chunks: checksummed(tarball.chunks, checksum) };
  const tarballDigest = checksum.found().digest;
  const { record: facts, attestations } = await unsealed();
  if (attestations !== undefined) yield { name: attestationsName, size: undefined, chunks: attestations };
  const record: HandoverRecord = { ...facts, tarballDigest, times: timesOf(timeline) };
  sealed(record);
  const text = Buffer.from(formatRecord(record));
  yield { name: recordName, size: text.length, chunks: Readable.from([text]) };
}

/** The spans that have ended by now are those of the build. */
function timesOf(timeline: Timeline): RecordTimes {
  const { began } = timeline;
  const spans = timeline.spans();
  const started = began + Math.round(Math.min(...spans.map(({ startMs }) => startMs)));
  const built = began + Math.round(Math.max(...spans.map(({ endMs }) => endMs)));
  return { began, started, built, ready: Math.max(built, Date.now()) };
}

export type ExportedImage = NamedImage<TaggedReference>;

/** An OCI layout with all images of the export. */
export interface FilledLayout {
  readonly images: readonly [ExportedImage, ...ExportedImage[]];
  /** Of the first image. */
  readonly attestations?: LayoutAttestations | undefined;
  readonly steps: readonly BuildStep[];
  readonly push: PushState | undefined;
  readonly caches: CacheWriting;
}

export interface WrittenExport extends ExportedImage {
  readonly further: readonly ExportedImage[];
  readonly tarball: WrittenTarball;
  readonly path: string;
  readonly producer: Producer;
  readonly pushedReference?: PinnedReference | undefined;
  readonly attestations?: LayoutAttestations | undefined;
}

/** Returns what follows the tarball of an image. */
export function unsealedExport(planned: WrittenExport): Unsealed {
  const { attestations } = planned;
  const record = imageRecord(planned);
  if (attestations === undefined) return { record };
  const { layout, blobs, index } = attestations;
  return { record, attestations: indexedBlobs(index, layoutBlobs(layout, blobs)) };
}

function imageRecord(planned: WrittenExport): UnsealedRecord {
  const { image, further, tarball, path, producer, pushedReference, attestations } = planned;
  const { config } = image;
  return {
    ...recordedImage(planned, tarball),
    ...(further.length === 0 ? {} : { further: further.map((other) => recordedImage(other, tarball)) }),
    ...(config.created === undefined ? {} : { created: config.created }),
    tarballName: basename(path),
    tarballSize: tarball.size,
    tarballCompression: 'none',
    producer,
    ...(pushedReference === undefined ? {} : { pushedReference }),
    ...(attestations === undefined ? {} : { indexDigest: digestOf(attestations.index) }),
  };
}

function recordedImage({ image, references }: ExportedImage, { offsets }: WrittenTarball): RecordedImage {
  const { config, configDigest, configBytes, manifestDigest, manifestBytes } = image;
  const { platform, diffIds, labels } = config;
  const at = (digest: Digest): { readonly offset?: number } => {
    const offset = offsets.get(digest);
    return offset === undefined ? {} : { offset };
  };
  return {
    references,
    platform,
    configDigest,
    manifestDigests: [manifestDigest],
    diffIds,
    labels,
    layers: image.layers.map(({ digest, size, mediaType }) => ({ digest, size, mediaType, ...at(digest) })),
    configAt: { offset: 0, size: configBytes.length, ...at(configDigest) },
    manifestAt: { offset: 0, size: manifestBytes.length, ...at(manifestDigest) },
  };
}

/** The hint if the tarball's filesystem is full. */
export const spaceAdvice =
  'Free space on that filesystem, or set `tarball` (export-image) to a path on another, such as ${{ runner.temp }}/charon.tar.';

export interface Uploaded {
  readonly record: HandoverRecord;
  /** Undefined if another job has the name and the plan keeps the image anyway. */
  readonly artifact: Artifact | undefined;
}

export interface UploadTools {
  readonly store: ArtifactStore;
  readonly log: Log;
  readonly producer: Producer;
  readonly timeline: Timeline;
}

export interface LayoutUpload {
  readonly directory: string;
  readonly filled: Promise<FilledLayout>;
  readonly file: PartialFile;
  readonly claim: NameClaim;
}

/**
 * Writes the tarball and uploads it while its layers arrive. It starts with the first layer.
 * @throws HandoverError with the error of `filled`, `artifact-name-taken`, `transfer-failed` or `not-enough-space`
 */
export async function uploadLayout(plan: LayoutPlan, tools: UploadTools, layout: LayoutUpload): Promise<Uploaded> {
  const { directory, filled, file, claim } = layout;
  // A failed push leaves the layout unfinished. The image is then built again, and may get other layers.
  if (plan.kind === 'image' && plan.source.kind === 'build' && isPushedByItsBuild(plan)) await filled;
  const layers = await begun(arrivingLayers(directory, filled));
  const images = async (): Promise<FilledLayout['images']> => (await filled).images;
  const written = Promise.withResolvers<WrittenTarball>();
  const fitting = whileItFits(layers, plan.tarballPath);
  const chunks = file.tee(tarballChunks(fitting, images, written.resolve));
  const source = { name: basename(plan.tarballPath), size: undefined, chunks };
  const unsealed = async (): Promise<Unsealed> => {
    const { images: named, attestations, push } = await filled;
    const [first, ...further] = named;
    const tarball = await written.promise;
    const facts = { ...first, further, attestations, tarball, path: plan.tarballPath, producer: tools.producer };
    return unsealedExport({ ...facts, pushedReference: pushedByBuild(plan.push, push) });
  };
  return tools.timeline.measure(
    (done) => (done !== undefined && done.artifact === undefined ? 'Write' : 'Write and upload'),
    () => upload(plan, tools, { tarball: source, claim }, unsealed),
  );
}

// The total size is known only at the end, so each layer is checked separately.
async function* whileItFits(layers: AsyncIterable<ArrivingLayer>, path: string): AsyncGenerator<ArrivingLayer> {
  for await (const layer of layers) {
    await requireDiskSpace(path, layer.size, `Layer ${layer.digest.slice(0, 19)}… of the tarball`, spaceAdvice);
    yield layer;
  }
}

export interface ClaimedTarball {
  readonly tarball: ArtifactFile;
  readonly claim: NameClaim;
}

/**
 * Uploads a tarball with its record. If the name is taken and the plan keeps the image, the tarball is still read, so that its file is
 * written.
 * @param unsealed called after the tarball is read
 * @throws HandoverError `artifact-name-taken`, `transfer-failed`
 */
export async function upload(
  plan: ExportPlan,
  { store, log, timeline }: UploadTools,
  { tarball, claim }: ClaimedTarball,
  unsealed: () => Promise<Unsealed>,
): Promise<Uploaded> {
  const { artifactName: name, retentionDays } = plan;
  let record: HandoverRecord | undefined;
  const files = artifactFiles(tarball, unsealed, timeline, (sealed) => (record = sealed));
  let artifact: Artifact | undefined;
  try {
    await claim.release();
    artifact = await log.progress('Uploaded', tarball.size ?? 'unknown', (onBytes) =>
      store.upload({ name, retentionDays, files, onBytes }),
    );
  } catch (error) {
    if (!mayKeep(plan, error)) throw error;
    log.info(`${messageOf(error)} This job keeps its own image.`);
    // A name is reserved before any file is read. The official client has read all of them.
    for await (const { chunks } of files) await drain(chunks);
  }
  if (record === undefined)
    throw new HandoverError(
      'transfer-failed',
      `The upload of the artifact "${name}" ended without reading its last file.`,
      'Re-run the job.',
    );
  return { record, artifact };
}

/** Returns whether another job has the name and the plan keeps the image in that case. */
export function mayKeep({ whenTaken }: ExportPlan, error: unknown): boolean {
  return whenTaken === 'keep' && error instanceof HandoverError && error.code === 'artifact-name-taken';
}
