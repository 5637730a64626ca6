import { basename } from 'node:path';
import { Readable } from 'node:stream';
import type { Artifact, ArtifactFile, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, isUnreadable, messageOf } from '../shared/base/errors.ts';
import { quoteForeign } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { requireDiskSpace } from '../shared/bytes/disk-space.ts';
import type { LentChunks } from '../shared/bytes/chunks.ts';
import type { PartialFile } from '../shared/bytes/partial-file.ts';
import { Checksum, checksummed, drain } from '../shared/bytes/verified.ts';
import { readRecord } from '../shared/handed-over/find.ts';
import { digestOf } from '../shared/image/digest.ts';
import {
  attestationsName,
  formatRecord,
  type HandoverRecord,
  type RecordTimes,
  type Producer,
  type RecordedImage,
  recordName,
} from '../shared/image/record.ts';
import type { TaggedReference } from '../shared/image/reference.ts';
import { arrivingLayers, begun, layoutBlobs } from '../shared/layout/arriving-layers.ts';
import type { LayoutAttestations } from '../shared/layout/read-layout.ts';
import {
  type ArrivingLayer,
  indexedBlobs,
  type NamedImage,
  tarballChunks,
  type WrittenTarball,
} from '../shared/tar/tarball-writer.ts';
import { type ExportPlan, isPushedByItsBuild, type LayoutPlan } from './plan/plan.ts';
import type { PushState } from './push.ts';
import type { LayoutTools, Tools } from './tools.ts';

/** The record without the facts that are known only after the tarball is read. */
export type UnsealedRecord = Omit<
  HandoverRecord,
  'tarballName' | 'tarballSize' | 'tarballDigest' | 'producer' | 'times'
>;

/** A tarball to hand over. */
export interface OpenedTarball {
  /** Bytes; undefined for a new tarball, because its size is known only at the end. */
  readonly size: number | undefined;
  readonly chunks: LentChunks;
  /** Returns the record and the attestations. Called after all chunks are read. */
  readonly unsealed: () => Promise<Unsealed>;
}

interface Unsealed {
  readonly record: UnsealedRecord;
  /** The file with the image's attestations, if it has any. */
  readonly attestations?: LentChunks | undefined;
}

/**
 * Returns the artifact's files: the tarball, the attestations if there are any, and the record with the tarball's digest.
 * @param sealed called with the finished record
 */
async function* artifactFiles(
  { unsealed, ...tarball }: OpenedTarball & ArtifactFile,
  { producer, timeline }: Tools,
  sealed: (record: HandoverRecord) => void,
): AsyncGenerator<ArtifactFile> {
  const checksum = new Checksum();
  yield { ...tarball, chunks: checksummed(tarball.chunks, checksum) };
  const { size: tarballSize, digest: tarballDigest } = checksum.found();
  const { record: facts, attestations } = await unsealed();
  if (attestations !== undefined) yield { name: attestationsName, size: undefined, chunks: attestations };
  const times = timesOf(timeline);
  const record: HandoverRecord = { ...facts, tarballName: tarball.name, tarballSize, tarballDigest, producer, times };
  sealed(record);
  const text = Buffer.from(formatRecord(record));
  yield { name: recordName, size: text.length, chunks: Readable.from([text]) };
}

/** Returns the times for the record. All spans that have ended so far belong to the build. */
function timesOf(timeline: Timeline): RecordTimes {
  const { began } = timeline;
  const spans = timeline.spans();
  const started = began + Math.round(Math.min(...spans.map(({ startMs }) => startMs)));
  const built = began + Math.round(Math.max(...spans.map(({ endMs }) => endMs)));
  return { began, started, built, ready: Math.max(built, Date.now()) };
}

export type ExportedImage = NamedImage<TaggedReference>;

/** The contents of a new tarball, and the state of its push. */
export interface TarballContents {
  readonly images: readonly [ExportedImage, ...ExportedImage[]];
  /** Attestations of the first image. */
  readonly attestations?: LayoutAttestations | undefined;
  readonly push?: PushState | undefined;
}

/** Returns a new tarball with these layers and the images that use them. */
export function newTarball(
  layers: AsyncIterable<ArrivingLayer> | Iterable<ArrivingLayer>,
  contents: TarballContents | Promise<TarballContents>,
): OpenedTarball {
  const written = Promise.withResolvers<WrittenTarball>();
  return {
    size: undefined,
    chunks: tarballChunks(layers, async () => (await contents).images, written.resolve),
    unsealed: async () => unsealedOf(await contents, await written.promise),
  };
}

function unsealedOf({ images, attestations, push }: TarballContents, tarball: WrittenTarball): Unsealed {
  const [first, ...further] = images;
  const record: UnsealedRecord = {
    ...recordedImage(first, tarball),
    further: further.length === 0 ? undefined : further.map((other) => recordedImage(other, tarball)),
    created: first.image.config.created,
    tarballCompression: 'none',
    pushedReference: typeof push === 'object' ? push : undefined,
    indexDigest: attestations && digestOf(attestations.index),
  };
  if (attestations === undefined) return { record };
  const { layout, blobs, index } = attestations;
  return { record, attestations: indexedBlobs(index, layoutBlobs(layout, blobs)) };
}

function recordedImage({ image, references }: ExportedImage, { offsets }: WrittenTarball): RecordedImage {
  const { config, configDigest, configBytes, manifestDigest, manifestBytes } = image;
  const { platform, diffIds, labels } = config;
  return {
    references,
    platform,
    configDigest,
    manifestDigests: [manifestDigest],
    diffIds,
    labels,
    layers: image.layers.map(({ digest, size, mediaType }) => ({
      digest,
      size,
      mediaType,
      offset: offsets.get(digest),
    })),
    configAt: { offset: offsets.get(configDigest) ?? 0, size: configBytes.length },
    manifestAt: { offset: offsets.get(manifestDigest) ?? 0, size: manifestBytes.length },
  };
}

/** Hint if the tarball's filesystem is full. */
export const spaceAdvice =
  'Free space on that filesystem, or set `tarball` (export-image) to a path on another, such as ${{ runner.temp }}/charon.tar.';

export interface Uploaded {
  readonly record: HandoverRecord;
  /** Undefined if another job has used the name and the plan keeps the image anyway. */
  readonly artifact: Artifact | undefined;
}

interface TarballUpload {
  readonly tarball: OpenedTarball;
  readonly path: string;
  /** Undefined if the tarball is already at the path. */
  readonly file: PartialFile | undefined;
  /** Frees the artifact's name. */
  readonly release: () => Promise<void>;
  /** Names of this work in the timeline: with an upload, and without. */
  readonly spans: readonly [uploaded: string, kept: string];
}

/**
 * Writes the tarball of an OCI layout and uploads it while layers arrive, starting when the first one does.
 * @throws HandoverError `artifact-name-taken`, `transfer-failed`, `not-enough-space`, or any error of `filled`
 */
export async function uploadLayout(
  plan: LayoutPlan,
  tools: LayoutTools,
  filled: Promise<TarballContents>,
  rest: Pick<TarballUpload, 'file' | 'release'>,
): Promise<Uploaded> {
  const path = plan.tarballPath;
  // A failed push leaves the layout unfinished. The image is then built again, possibly with different layers.
  if (isPushedByItsBuild(plan)) await filled;
  const layers = await begun(arrivingLayers(tools.layout, filled));
  const tarball = newTarball(whileItFits(layers, path), filled);
  return upload(plan, tools, { ...rest, tarball, path, spans: ['Write and upload', 'Write'] });
}

// The total size is known only at the end, so each layer is checked separately.
async function* whileItFits(layers: AsyncIterable<ArrivingLayer>, path: string): AsyncGenerator<ArrivingLayer> {
  for await (const layer of layers) {
    await requireDiskSpace(path, layer.size, `Layer ${layer.digest.slice(0, 19)}… of the tarball`, spaceAdvice);
    yield layer;
  }
}

/**
 * Uploads a tarball with its record. If the name is taken and the plan keeps the image, the tarball is still read so that its file gets
 * written.
 * @throws HandoverError `artifact-name-taken`, `transfer-failed`
 */
export function upload(
  plan: ExportPlan,
  tools: Tools,
  { tarball, path, file, release, spans: [uploaded, kept] }: TarballUpload,
): Promise<Uploaded> {
  const { store, log, timeline } = tools;
  const { artifactName: name, retentionDays } = plan;
  const chunks = file === undefined ? tarball.chunks : file.tee(tarball.chunks);
  let record: HandoverRecord | undefined;
  const files = artifactFiles({ ...tarball, name: basename(path), chunks }, tools, (sealed) => (record = sealed));
  const work = async (): Promise<Uploaded> => {
    let artifact: Artifact | undefined;
    try {
      await release();
      artifact = await log.progress('Uploaded', tarball.size ?? 'unknown', (onBytes) =>
        store.upload({ name, retentionDays, files, onBytes }),
      );
    } catch (error) {
      const isTaken = error instanceof HandoverError && error.code === 'artifact-name-taken';
      if (!isTaken || plan.whenTaken !== 'keep') throw error;
      log.info(`${messageOf(error)} This job keeps its own image.`);
      // Usually, the name is reserved before any file is read. Only the official client has read all files by then.
      for await (const { chunks: rest } of files) await drain(rest);
    }
    if (record !== undefined) return { record, artifact };
    throw new HandoverError(
      'transfer-failed',
      `The upload of the artifact "${name}" ended without reading its last file.`,
      'Re-run the job.',
    );
  };
  return timeline.measure((done) => (done !== undefined && done.artifact === undefined ? kept : uploaded), work);
}

/**
 * Checks, before any work, that the name is free or was used by an earlier attempt of this job.
 * @returns a function to call when the upload starts. It removes that attempt's artifact, or throws the error below.
 * @throws HandoverError `artifact-name-taken` if another job of this run uses the name, unless the plan keeps the image in that case
 */
export async function claimName(
  { artifactName, whenTaken }: Pick<ExportPlan, 'artifactName' | 'whenTaken'>,
  { store, producer }: Pick<Tools, 'store' | 'producer'>,
): Promise<() => Promise<void>> {
  const existing = (await store.list()).find(({ name }) => name === artifactName);
  if (existing === undefined) return () => Promise.resolve();
  const owner = await ownerOf(store, existing);
  if (owner?.jobKey === producer.jobKey && owner.runAttempt < producer.runAttempt) return () => store.remove(existing);
  const taken = nameTaken(existing, owner, producer);
  if (whenTaken === 'keep') return () => Promise.reject(taken);
  throw taken;
}

function nameTaken({ id, name }: Artifact, owner: Producer | undefined, producer: Producer): HandoverError {
  const { jobKey, runAttempt } = producer;
  const takenBy = (by: string, hint: string): HandoverError =>
    new HandoverError(
      'artifact-name-taken',
      `The artifact "${name}" (id ${String(id)}) already exists in this run, uploaded by ${by}; this is job ` +
        `${jobKey} in attempt ${String(runAttempt)}.`,
      `${hint} Give load-image the same name.`,
    );
  if (owner === undefined)
    return takenBy('a step that is not export-image', 'Give each export and each upload of a run its own name.');
  const job = quoteForeign(owner.jobKey, 100);
  if (owner.jobKey !== jobKey) {
    const varied = `\`artifact-name: ${name}-\${{ matrix.component }}\``;
    return takenBy(
      `job ${job} in attempt ${String(owner.runAttempt)}`,
      `Give each job its own name. In a matrix, add what varies: ${varied}.`,
    );
  }
  return takenBy(
    `${job} in this same attempt, by an earlier step of this job or by a job with the same id in a called workflow`,
    'In one job, give each step its own `artifact-name` and `tarball`. In called workflows, pass a different name to each as an input.',
  );
}

async function ownerOf(store: ArtifactStore, artifact: Artifact): Promise<Producer | undefined> {
  try {
    return (await readRecord(await store.open(artifact)))?.producer;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    // export-image didn't upload it, so it isn't from an earlier attempt of this job.
    return undefined;
  }
}
