import { link, mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { folderCache, notWritten, ownLayers, ownScopes } from '../plan/cache.ts';
import type { LayoutTools } from '../tools.ts';
import { formatBytes, formatDuration } from '../../shared/base/text.ts';
import { requireDiskSpace } from '../../shared/bytes/disk-space.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import type { BuildCommand } from '../../shared/docker/buildx.ts';
import type { ActionsCache, CacheBlob } from '../../shared/cache/actions-cache.ts';
import type { Digest } from '../../shared/image/digest.ts';
import { completeLayers } from '../../shared/layout/arriving-layers.ts';
import { blobPath } from '../../shared/layout/read-layout.ts';
import { messageOf } from '../../shared/base/errors.ts';

/** A cache that is written after the image is built. */
export interface LaterCache {
  /** The cache's `cache-to` line. */
  readonly line: string;
  /** Returns the command that writes a cache of the build. All of the build's steps are already cached. */
  readonly commandOf: (line: string) => BuildCommand;
  /** The build's steps and caches, if it may have created layers that aren't in the image. */
  readonly stages?: BuiltStages;
}

/** The facts that decide whether other stages have new layers. */
interface BuiltStages {
  readonly steps: readonly BuildStep[];
  /** The `cache-from` lines. */
  readonly cacheFrom: readonly string[];
}

/** Writes caches after the image is built. Failures are reported, not thrown. */
export interface CacheWriting {
  /** Starts writing, unless it has already started. */
  begin(): void;
  /** Waits until writing has ended. Returns a sentence for each cache that was not read or not written. */
  problems(): Promise<readonly string[]>;
}

/**
 * Writes caches one after another, because they share the builder and most of their blobs. Writing stops when the export ends.
 * @param problems a sentence for each cache that was not read, or can't be written
 */
export function cacheWriting(
  tools: LayoutTools,
  caches: readonly LaterCache[],
  problems: readonly string[],
): CacheWriting {
  const stop = new AbortController();
  let work: Promise<readonly string[]> | undefined;
  let isWriting = caches.length > 0;
  const begin = (): Promise<readonly string[]> =>
    (work ??= writeAll(tools, caches, stop.signal).finally(() => (isWriting = false)));
  tools.kept.defer(async () => {
    stop.abort();
    await work;
  });
  return {
    begin: () => void begin(),
    problems: async () => {
      const written = begin();
      if (isWriting) tools.log.info('The image is handed over. Waiting for the build cache.');
      return [...problems, ...(await written)];
    },
  };
}

async function writeAll(
  tools: LayoutTools,
  caches: readonly LaterCache[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const cache of caches) {
    if (signal.aborted) break;
    const began = performance.now();
    const why = await writeCache(tools, cache, signal).catch(messageOf);
    if (why !== undefined) problems.push(notWritten(cache.line, why));
    else tools.log.info(`Wrote the build cache in ${formatDuration(performance.now() - began)}`);
  }
  return problems;
}

/**
 * Writes a cache. For this job's own Actions cache, the layers are stored first, many blocks at a time. BuildKit finds them there, and
 * writes only the missing layers and its index. If storing fails, BuildKit writes everything.
 * @returns why it failed; undefined if the cache was written
 */
async function writeCache(tools: LayoutTools, cache: LaterCache, signal: AbortSignal): Promise<string | undefined> {
  const { actionsCache, buildx, log } = tools;
  const layers = ownLayers(cache.line);
  if (actionsCache === undefined || layers === undefined) return buildx.writeCache(cache.commandOf(cache.line), signal);
  const began = performance.now();
  const more =
    layers === 'all' && ranStages(cache.stages) ? otherStages(tools, actionsCache, cache, signal) : undefined;
  const { count, bytes, failure } = await actionsCache.store(layersOf(tools.layout, more), signal);
  await more?.[Symbol.asyncDispose]();
  const duration = formatDuration(performance.now() - began);
  if (count > 0) log.info(`Stored ${String(count)} layers of the build cache, ${formatBytes(bytes)}, in ${duration}`);
  if (failure !== undefined) log.info(`BuildKit writes the other layers of the build cache: ${failure.why}`);
  const why = await buildx.writeCache(cache.commandOf(cache.line), signal);
  if (why !== undefined || failure?.isUnfinished !== true) return why;
  return `an upload was interrupted, so a layer is missing: ${failure.why}`;
}

/** A folder to which BuildKit writes the layers of stages that aren't in the image. */
interface OtherStages extends AsyncDisposable {
  /** Undefined if BuildKit would have to download layers for it. */
  readonly written: Promise<WrittenStages | undefined>;
}

interface WrittenStages {
  readonly folder: string;
  /** Layers that are already in the cache. In the folder, they are only empty files. */
  readonly known: readonly Digest[];
}

/** Returns whether a build ran steps of several stages. After a build with a single stage, most layers are in the image. */
function ranStages(stages: BuiltStages | undefined): boolean {
  const ran = (stages?.steps ?? []).filter(({ cached }) => !cached);
  return new Set(ran.map(({ name }) => /^\[(?:([^\]]+) )?\d+\/\d+\]/.exec(name)?.[1])).size > 1;
}

/**
 * Returns the layers that the builder may lack because it only found their steps in a cache; undefined if they are unknown. The builder has
 * all layers of an executed step.
 */
async function knownLayers(
  actionsCache: ActionsCache,
  { steps, cacheFrom }: BuiltStages,
  signal: AbortSignal,
): Promise<readonly Digest[] | undefined> {
  if (steps.every(({ cached }) => !cached)) return [];
  const scopes = ownScopes(cacheFrom) ?? [];
  const listed = await Promise.all(scopes.map((scope) => actionsCache.listed(scope, signal)));
  const found = listed.filter((layers) => layers !== undefined);
  return found.length === 0 ? undefined : found.flat();
}

async function* layersOf(layout: string, more: OtherStages | undefined): AsyncGenerator<CacheBlob> {
  const seen = new Set<Digest>();
  for await (const layer of completeLayers(layout, seen)) {
    seen.add(layer.digest);
    yield layer;
  }
  const others = await more?.written;
  if (others !== undefined) yield* completeLayers(others.folder, new Set([...seen, ...others.known]));
}

// Required free space, in bytes. Layers of other stages are often larger than the image, and the image is more important than the cache.
const roomBytes = 4 * 1024 ** 3;

function otherStages(
  { buildx, layout, tempDir }: LayoutTools,
  actionsCache: ActionsCache,
  { commandOf, stages }: LaterCache,
  signal: AbortSignal,
): OtherStages {
  const folder = mkdtemp(join(tempDir, 'cache-'));
  const stop = new AbortController();
  const ends = AbortSignal.any([signal, stop.signal]);
  const write = async (): Promise<WrittenStages | undefined> => {
    const directory = await folder;
    const known = stages === undefined ? undefined : await knownLayers(actionsCache, stages, ends);
    if (known === undefined) return undefined;
    await requireDiskSpace(tempDir, roomBytes, 'The build cache', 'Free space in RUNNER_TEMP.');
    const blobsOf = (each: string): string => join(each, 'blobs', 'sha256');
    const [from, to] = [blobsOf(layout), blobsOf(directory)];
    // BuildKit writes only blobs that are missing from the folder (containerd, plugins/content/local/store.go: writer).
    await mkdir(to, { recursive: true });
    for (const name of await readdir(from)) await link(join(from, name), join(to, name));
    for (const digest of known) await (await open(blobPath(directory, digest), 'a')).close();
    const why = await buildx.writeCache(commandOf(folderCache(directory)), ends);
    if (why !== undefined) throw new Error(why);
    return { folder: directory, known };
  };
  const written = write();
  written.catch(() => undefined); // rethrown to the code that awaits it
  return {
    written,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await written.catch(() => undefined);
      await rm(await folder, { recursive: true, force: true });
    },
  };
}
