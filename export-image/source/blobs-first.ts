import { link, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { folderCache, ownLayers } from '../plan/cache.ts';
import type { SourceTools } from './from-engine.ts';
import { formatBytes, formatDuration } from '../../shared/base/text.ts';
import { requireDiskSpace } from '../../shared/bytes/disk-space.ts';
import type { BuildCommand } from '../../shared/docker/buildx.ts';
import type { CacheBlob } from '../../shared/cache/actions-cache.ts';
import type { Digest } from '../../shared/image/digest.ts';
import { completeLayers } from '../../shared/layout/arriving-layers.ts';

/** A cache to write after the image. */
export interface CacheRequest {
  readonly cache: string;
  /** The image's OCI layout, complete. */
  readonly layout: string;
  /** Returns the command that writes a cache of this build, all of whose steps are cached. */
  readonly commandOf: (cache: string) => BuildCommand;
  /** Whether this build ran every step, so the builder has all layers and needn't download any. */
  readonly isNew: boolean;
}

type Tools = Pick<SourceTools, 'buildx' | 'actionsCache' | 'log' | 'tempDir'>;

/**
 * Writes a cache. The layers of this job's own Actions cache are stored first, many blocks at a time. BuildKit finds them there, and writes
 * what is missing and its index. If storing fails, BuildKit writes everything, as without it.
 * @returns why it failed; undefined if the cache was written
 */
export async function writeCache(
  tools: Tools,
  request: CacheRequest,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { actionsCache, buildx, log } = tools;
  const layers = ownLayers(request.cache);
  if (actionsCache !== undefined && layers !== undefined) {
    const began = performance.now();
    const more = layers === 'all' && request.isNew ? otherStages(tools, request, signal) : undefined;
    const { count, bytes, failure } = await actionsCache.store(layersOf(request.layout, more), signal);
    await more?.[Symbol.asyncDispose]();
    const duration = formatDuration(performance.now() - began);
    if (count > 0) log.info(`Stored ${String(count)} layers of the build cache, ${formatBytes(bytes)}, in ${duration}`);
    if (failure !== undefined) log.info(`BuildKit writes the other layers of the build cache: ${failure.why}`);
    const why = await buildx.writeCache(request.commandOf(request.cache), signal);
    return (
      why ?? (failure?.isUnfinished === true ? `an upload broke off, so a layer is missing: ${failure.why}` : undefined)
    );
  }
  return buildx.writeCache(request.commandOf(request.cache), signal);
}

/** The layers of stages that aren't in the image, as a folder that BuildKit writes. */
interface OtherStages extends AsyncDisposable {
  readonly written: Promise<string>;
}

async function* layersOf(layout: string, more: OtherStages | undefined): AsyncGenerator<CacheBlob> {
  const seen = new Set<Digest>();
  for (const folder of [() => Promise.resolve(layout), ...(more === undefined ? [] : [() => more.written])]) {
    for await (const layer of completeLayers(await folder(), seen)) {
      seen.add(layer.digest);
      yield layer;
    }
  }
}

// Layers of other stages are often larger than the image. The image is more important than the cache.
const roomBytes = 4 * 1024 ** 3;

function otherStages(
  { buildx, tempDir }: Tools,
  { layout, commandOf }: CacheRequest,
  signal: AbortSignal,
): OtherStages {
  const folder = mkdtemp(join(tempDir, 'cache-'));
  const stop = new AbortController();
  const write = async (): Promise<string> => {
    const directory = await folder;
    await requireDiskSpace(tempDir, roomBytes, 'The build cache', 'Free space in RUNNER_TEMP.');
    const blobsOf = (each: string): string => join(each, 'blobs', 'sha256');
    const [from, to] = [blobsOf(layout), blobsOf(directory)];
    // BuildKit writes only the blobs that the folder lacks (containerd content.Copy).
    await mkdir(to, { recursive: true });
    for (const name of await readdir(from)) await link(join(from, name), join(to, name));
    const why = await buildx.writeCache(commandOf(folderCache(directory)), AbortSignal.any([signal, stop.signal]));
    if (why !== undefined) throw new Error(why);
    return directory;
  };
  const written = write();
  written.catch(() => undefined); // thrown where it is read
  return {
    written,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await written.catch(() => undefined);
      await rm(await folder, { recursive: true, force: true });
    },
  };
}
