import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import type { Log, TotalBytes } from '../shared/base/log.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import type { Reference } from '../shared/image/reference.ts';
import type { AllContents, TarballStream } from './foreign-tarball.ts';
import { findMissingLayers } from './overlap/missing-layers.ts';
import { loadOverlapped, type Told, wordFor } from './overlap/overlap.ts';
import { openTarball, recordedContents } from './tarball-stream.ts';

export interface FeedJob {
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
  readonly info: EngineInfo;
  /** The reference asked for. */
  readonly reference: Reference | undefined;
  /** Whether the engine may fetch layers one by one. */
  readonly overlap: boolean;
  /** Told of each reference and ID that the engine loaded, even when the load fails. */
  readonly onLoaded: (loaded: string) => void;
  /** Sees the tarball as it is in the artifact; undefined when no file is wanted. */
  readonly tee: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
}

/** What the engine was fed. */
export interface Fed {
  /** What it says of the image. */
  readonly contents: () => AllContents;
  /** References and IDs that the engine says it loaded. */
  readonly loaded: readonly string[];
  /** Bytes that were downloaded, also by an attempt that came to nothing. */
  readonly size: number;
}

interface FeedTools {
  readonly engine: Engine;
  readonly log: Log;
}

/**
 * Feeds the engine the artifact's tarball: only the layers it lacks where that can be done, else the whole.
 * @throws HandoverError `load-failed`, `artifact-corrupt`, `transfer-failed`, `tarball-invalid`
 */
export async function feed(tools: FeedTools, job: FeedJob): Promise<Fed> {
  let size = 0;
  const told = {
    loaded: job.onLoaded,
    bytes: (bytes: number): void => {
      size += bytes;
    },
  };
  const { content, record, tee } = job;
  // A file is wanted whole, and without a record nobody knows where layers lie.
  const byLayer = record === undefined || tee !== undefined ? undefined : await feedLayers(tools, job, record, told);
  if (byLayer !== undefined) return { ...byLayer, size };
  const wanted = { reference: job.reference, platform: job.info.platform };
  const open = (onBytes: (bytes: number) => void): TarballStream =>
    openTarball({ content, record, wanted, tee }, onBytes);
  const whole = await send(tools, wholeMove(content, record), told, open);
  return { ...whole, size };
}

/** @returns undefined when the whole tarball has to be sent */
async function feedLayers(
  tools: FeedTools,
  { content, info, overlap }: FeedJob,
  record: HandoverRecord,
  told: Told,
): Promise<Omit<Fed, 'size'> | undefined> {
  const loaded = overlap ? await loadOverlapped({ ...tools, info }, content, record, told) : undefined;
  if (loaded !== undefined) return { loaded, contents: () => recordedContents(record) };
  const missing = await findMissingLayers(tools, info, content, record);
  if (missing === undefined) return undefined;
  try {
    return await send(
      tools,
      { what: wordFor(content), total: record.tarballSize - missing.skippedBytes },
      told,
      missing.open,
    );
  } catch (error) {
    if (!(error instanceof HandoverError) || error.code !== 'load-failed') throw error;
    tools.log.info(`The layers that the engine had may be gone (${error.message}): sending all.`);
    return undefined;
  }
}

/** What is moved, in words for the log, and how much. */
interface Move {
  readonly what: string;
  readonly total: TotalBytes;
}

function wholeMove(content: ArtifactContent, record: HandoverRecord | undefined): Move {
  // Where it isn't here, the artifact's digest takes reading all of it.
  const total = content.downloaded() === undefined ? content.artifact.size : record?.tarballSize;
  return { what: wordFor(content), total: total ?? 'unknown' };
}

async function send(
  { engine, log }: FeedTools,
  { what, total }: Move,
  told: Told,
  open: (onBytes: (bytes: number) => void) => TarballStream,
): Promise<Omit<Fed, 'size'>> {
  return log.progress(what, total, async (passed) => {
    const tarball = open((bytes) => {
      told.bytes(bytes);
      passed(bytes);
    });
    const loaded = await engine.load(tarball.chunks, told.loaded);
    return { contents: () => tarball.image(), loaded };
  });
}
