import type { TarballStream } from '../foreign-tarball.ts';
import { tellSkipped } from '../skipped-layers.ts';
import { recordedContents } from '../tarball-stream.ts';
import type { ArtifactContent, ReadRange } from '../../shared/artifacts/store.ts';
import type { Log } from '../../shared/base/log.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { EngineInfo } from '../../shared/docker/output.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { partialTarballChunks, planPartialTarball } from './partial-tarball.ts';

/** Only what the engine lacks of an image. */
export interface MissingLayers {
  /** Bytes that needn't be downloaded. */
  readonly skippedBytes: number;
  /** @param onBytes told of each part that has come, in bytes */
  readonly open: (onBytes: (bytes: number) => void) => TarballStream;
}

/**
 * Looks which layers of the image the engine lacks.
 * @returns undefined when all have to be sent. The containerd store wants every blob in the form it has in this tarball, and
 *   doesn't tell in which form it has them: it is sent all.
 */
export async function findMissingLayers(
  { engine, log }: { readonly engine: Engine; readonly log: Log },
  info: EngineInfo,
  content: ArtifactContent,
  record: HandoverRecord,
): Promise<MissingLayers | undefined> {
  if (info.imageStore !== 'classic') return undefined;
  const partial = planPartialTarball(record, await engine.chains());
  const read: ReadRange | undefined = partial === undefined ? undefined : await content.ranges(record.tarballName);
  if (partial === undefined || read === undefined) return undefined;
  const { sentLayers, skippedLayers, skippedBytes } = partial;
  tellSkipped(log, { skipped: skippedLayers, layers: skippedLayers + sentLayers, bytes: skippedBytes });
  return {
    skippedBytes,
    open: (onBytes) => ({
      chunks: partialTarballChunks(partial, (start, end) => read(start, end, onBytes)),
      image: () => recordedContents(record),
    }),
  };
}
