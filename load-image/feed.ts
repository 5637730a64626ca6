import type { ArtifactContent } from '../shared/artifacts/store.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import { HandoverError } from '../shared/errors.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import type { Log } from '../shared/log.ts';
import { findMissingLayers } from './missing-layers.ts';
import { openTarball, type TarballStream } from './tarball-stream.ts';

export interface FeedJob {
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
  readonly info: EngineInfo;
  /** Told of each reference and ID that the engine loaded, even when the load fails. */
  readonly onLoaded: (loaded: string) => void;
  /** Sees the tarball as it is in the artifact; undefined when no file is wanted. */
  readonly tee: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
}

/** What the engine was fed. */
export interface Fed {
  readonly tarball: TarballStream;
  /** References and IDs that the engine says it loaded. */
  readonly loaded: readonly string[];
  /** Bytes that were downloaded. */
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
  const { content, record, info, onLoaded, tee } = job;
  const { size } = content.artifact;
  const wantsFile = tee !== undefined;
  const missing = record === undefined || wantsFile ? undefined : await findMissingLayers(tools, info, content, record);
  if (missing !== undefined) {
    try {
      return await send(tools, size - missing.skippedBytes, onLoaded, missing.open);
    } catch (error) {
      if (!(error instanceof HandoverError) || error.code !== 'load-failed') throw error;
      tools.log.info(`The layers that the engine had may be gone (${error.message}): sending all.`);
    }
  }
  return send(tools, size, onLoaded, (onBytes) => openTarball(content, record, onBytes, tee ?? ((chunks) => chunks)));
}

async function send(
  { engine, log }: FeedTools,
  total: number,
  onLoaded: (loaded: string) => void,
  open: (onBytes: (bytes: number) => void) => TarballStream,
): Promise<Fed> {
  const progress = log.progress('Downloaded', total);
  let size = 0;
  const tarball = open((bytes) => {
    size += bytes;
    progress.add(bytes);
  });
  try {
    const loaded = await engine.load(tarball.chunks, onLoaded);
    return { tarball, loaded, size };
  } finally {
    progress.done();
  }
}
