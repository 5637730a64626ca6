import { hostname } from 'node:os';
import type { Artifact, ArtifactContent, ArtifactReader } from '../shared/artifacts/store.ts';
import type { Log } from '../shared/base/log.ts';
import { formatBytes } from '../shared/base/text.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { requireDiskSpace } from '../shared/bytes/disk-space.ts';
import { partialFile } from '../shared/bytes/partial-file.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import { guardTags, type TagGuard } from '../shared/docker/tag-guard.ts';
import { type HandoverRecord, parseRecord, recordName } from '../shared/image/record.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { feed } from './feed.ts';
import { findArtifact } from './find.ts';
import type { TarballContents } from './foreign-tarball.ts';
import { type EachPlan, fallbackReference, type LoadPlan } from './plan/plan.ts';
import { recordedContents } from './tarball-stream.ts';
import { tagFurther, verifiedTag } from './verified-tag.ts';
import { differences, type ExpectedImage, requireExpected } from './verify.ts';

/** What happened. */
export interface LoadResult {
  readonly reference: string;
  readonly image: InspectedImage;
  readonly expected: ExpectedImage;
  /** Where it came from: `engine` when it was here already, `build` when this job has made it and handed over nothing. */
  readonly source: 'artifact' | 'registry' | 'engine' | 'build';
  /** Undefined when no artifact was needed. */
  readonly artifact: Artifact | undefined;
  readonly record: HandoverRecord | undefined;
  /** Bytes that were downloaded. */
  readonly size: number;
  readonly loaded: boolean;
  /** The fallback that was pulled, and why. */
  readonly fallback?: { readonly reference: string; readonly reason: string };
  /** Further images that a tarball without a record held. */
  readonly further: readonly { readonly reference: string; readonly expected: ExpectedImage }[];
}

/** An artifact that was found, or what this job has made and keeps, and what it says of itself. */
export interface Handover {
  readonly origin: 'artifact' | 'build';
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
}

export interface LoadTools {
  readonly engine: Engine;
  readonly store: ArtifactReader;
  readonly log: Log;
  readonly timeline: Timeline;
  readonly runAttempt: number;
}

const handedOver = 'the image that was handed over';
const spaceAdvice = 'Set `tarball` to a path on a filesystem with more space, or leave it empty: then no file is kept.';

/**
 * Finds the artifact, streams its tarball into `docker load`, and proves that the image is the one handed over.
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadImage(plan: LoadPlan, tools: LoadTools): Promise<LoadResult> {
  const { engine, store, log, timeline } = tools;
  const found = log.chapter('Find the artifact', () =>
    timeline.measure('Find', async () => {
      const content = await store.open(await findArtifact(store, plan.artifactName, tools.runAttempt));
      return { origin: 'artifact' as const, content, record: await readRecord(content, log) };
    }),
  );
  found.catch(() => undefined); // thrown below; an engine that isn't there comes first
  const info = await engine.info();
  return loadHandover(plan, tools, await found, info);
}

/**
 * The same for an artifact that has been opened.
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadHandover(
  plan: EachPlan,
  tools: LoadTools,
  handover: Handover,
  info: EngineInfo,
): Promise<LoadResult> {
  const { engine, log, timeline } = tools;
  const { content, record } = handover;
  if (record !== undefined) requireExpected(plan, record, info.platform);
  const present = await alreadyHere(plan, tools, record);
  if (present !== undefined && record !== undefined) {
    return { ...present, artifact: artifactOf(handover), record, size: content.downloaded() ?? 0 };
  }

  await requireSpace(plan, content, info);
  await using guard = await guardTags(engine, log.warning);
  const result = await log.chapter('Load', () =>
    timeline.measure(
      (result) => (result?.size === 0 ? 'Load' : 'Download and load'),
      () => load(plan, tools, { ...handover, guard, info }),
    ),
  );
  guard.keep();
  return result;
}

function artifactOf({ origin, content }: Handover): Artifact | undefined {
  return origin === 'artifact' ? content.artifact : undefined;
}

/**
 * What the artifact says of its image; undefined when it has no record.
 * @throws HandoverError `artifact-corrupt`, `transfer-failed`
 */
export async function readRecord(content: ArtifactContent, log: Log): Promise<HandoverRecord | undefined> {
  const { artifact } = content;
  log.info(
    `Artifact "${artifact.name}": id ${String(artifact.id)}, ${formatBytes(artifact.size)}, ${artifact.digest ?? 'no digest'}`,
  );
  const text = await content.text(recordName);
  if (text !== undefined) return parseRecord(text);
  log.info(`It has no ${recordName}: the image is checked against the tarball's own manifest.`);
  return undefined;
}

/** The image, if this engine has it already. */
export async function alreadyHere(
  plan: EachPlan,
  { engine, log }: Pick<LoadTools, 'engine' | 'log'>,
  record: HandoverRecord | undefined,
): Promise<Omit<LoadResult, 'artifact' | 'record'> | undefined> {
  const reference = plan.reference ?? record?.references[0];
  if (record === undefined || reference === undefined || plan.tarballPath !== undefined) return undefined;
  const name = formatReference(reference);
  const image = await engine.inspect(name);
  if (image === undefined || differences(record, image).length > 0) return undefined;
  const { further } = recordedContents(record);
  if (!(await hasAll(engine, further))) return undefined;
  log.info(`The engine has this very image already: ${name} (${image.imageId}). Nothing to load.`);
  await tagFurther({ engine, log }, image, record, others(record, name));
  const facts = { source: 'engine', size: 0, loaded: false } as const;
  return { ...facts, reference: name, image, expected: record, further: further.map(namedContents) };
}

async function hasAll(engine: Engine, contents: readonly TarballContents[]): Promise<boolean> {
  for (const { references, expected } of contents) {
    for (const reference of references) {
      const image = await engine.inspect(formatReference(reference));
      if (image === undefined || differences(expected, image).length > 0) return false;
    }
  }
  return true;
}

function others(record: HandoverRecord, name: string): readonly Reference[] {
  return record.references.filter((reference) => formatReference(reference) !== name);
}

/** Bytes that the engine needs where it stores images, to load an artifact of so many bytes. */
export function spaceNeeded(info: EngineInfo, size: number): number {
  // The classic store keeps the whole tarball beside the unpacked layers while it loads.
  return info.imageStore === 'classic' ? 2 * size : size;
}

/** Where the engine stores images, if that is on this machine and can be looked at. */
export function engineFolder(info: EngineInfo): string | undefined {
  return info.dataRoot === '' || info.hostName !== hostname() ? undefined : info.dataRoot;
}

async function requireSpace(
  plan: Pick<LoadPlan, 'tarballPath'>,
  content: ArtifactContent,
  info: EngineInfo,
): Promise<void> {
  const { size } = content.artifact;
  if (plan.tarballPath !== undefined) await requireDiskSpace(plan.tarballPath, size, 'The tarball', spaceAdvice);
  const folder = engineFolder(info);
  if (folder === undefined) return;
  await requireDiskSpace(
    folder,
    spaceNeeded(info, size),
    'Loading the image into the engine',
    'Free space first: docker system prune -af; df -h.',
  );
}

interface LoadJob extends Handover {
  readonly guard: TagGuard;
  readonly info: EngineInfo;
}

async function load(plan: EachPlan, tools: LoadTools, job: LoadJob): Promise<LoadResult> {
  const { content, record, guard, info } = job;
  for (const { references } of record === undefined ? [] : [record, ...(record.further ?? [])]) {
    for (const reference of references) guard.watch(formatReference(reference));
  }
  if (plan.reference !== undefined) guard.watch(formatReference(plan.reference));
  const path = plan.tarballPath;
  await using kept = path === undefined ? undefined : await partialFile(path, spaceAdvice, tools.log);
  const { reference: wanted, overlap } = plan;
  const fed = { content, record, info, reference: wanted, overlap, onLoaded: guard.watch, tee: kept?.tee };
  const { contents, loaded, size } = await feed(tools, fed);

  const { expected, references, further } = contents();
  if (record === undefined) requireExpected(plan, expected, info.platform);
  const reference = plan.reference ?? references[0] ?? fallbackReference;
  const what = job.origin === 'artifact' ? handedOver : 'this job’s own image';
  const image = await verifiedTag(tools, reference, { expected, what }, loaded);
  if (record !== undefined) await tagFurther(tools, image, record, others(record, formatReference(reference)));
  for (const other of further) await verifyFurther(plan, tools, other, job, loaded);
  await kept?.commit();
  return {
    source: job.origin,
    reference: formatReference(reference),
    image,
    expected,
    artifact: artifactOf(job),
    record,
    size: content.downloaded() ?? size,
    loaded: true,
    further: further.map(namedContents),
  };
}

async function verifyFurther(
  plan: EachPlan,
  tools: LoadTools,
  { expected, references }: TarballContents,
  { info }: LoadJob,
  loaded: readonly string[],
): Promise<void> {
  requireExpected({ ...plan, expectedConfigDigest: undefined }, expected, info.platform);
  for (const reference of references) await verifiedTag(tools, reference, { expected, what: handedOver }, loaded);
}

function namedContents({ references, expected }: TarballContents): LoadResult['further'][number] {
  return { reference: references.map(formatReference)[0] ?? '', expected };
}
