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

/** A cache that is written after the image. */
export interface LaterCache {
  /** Its `cache-to` line. */
  readonly line: string;
  /** Returns the command that writes a cache of the build, all of whose steps are cached. */
  readonly commandOf: (line: string) => BuildCommand;
  /** The build's steps and caches, if it may have made layers that aren't in the image. */
  readonly stages?: BuiltStages;
}

/** What decides whether other stages have new layers. */
interface BuiltStages {
  readonly steps: readonly BuildStep[];
  /** The `cache-from` lines. */
  readonly cacheFrom: readonly string[];
}

/** Writes caches after the image is built. No failure is thrown. */
export interface CacheWriting {
  /** Starts writing, unless it has started before. */
  begin(): void;
  /** Waits for the end. Returns a sentence for each cache that was not read or not written. */
  problems(): Promise<readonly string[]>;
}

/**
 * Writes caches one after another, because they share the builder and most of their blobs. The end of the export stops it.
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
 * Writes a cache. The layers of this job's own Actions cache are stored first, many blocks at a time. BuildKit finds them there, and writes
 * what is missing and its index. If storing fails, BuildKit writes everything, as without it.
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
  return `an upload broke off, so a layer is missing: ${failure.why}`;
}

/** The layers of stages that aren't in the image, as a folder that BuildKit writes. */
interface OtherStages extends AsyncDisposable {
  /** Undefined if BuildKit would have to download layers for it. */
  readonly written: Promise<WrittenStages | undefined>;
}

interface WrittenStages {
  readonly folder: string;
  /** Layers in the cache, which the folder has as empty files only. */
  readonly known: readonly Digest[];
}

/** Returns whether a build ran steps of several stages. Most layers of a single stage are in the image. */
function ranStages(stages: BuiltStages | undefined): boolean {
  const ran = (stages?.steps ?? []).filter(({ cached }) => !cached);
  return new Set(ran.map(({ name }) => /^\[(?:([^\]]+) )?\d+\/\d+\]/.exec(name)?.[1])).size > 1;
}

/**
 * Returns the layers that the builder may lack, because it has only found their steps in a cache; undefined if they are unknown. Of an
 * executed step, the builder has all layers.
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

// Layers of other stages are often larger than the image. The image is more important than the cache.
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
    // BuildKit writes only the blobs whose files the folder lacks (containerd, plugins/content/local/store.go: writer).
    await mkdir(to, { recursive: true });
    for (const name of await readdir(from)) await link(join(from, name), join(to, name));
    for (const digest of known) await (await open(blobPath(directory, digest), 'a')).close();
    const why = await buildx.writeCache(commandOf(folderCache(directory)), ends);
    if (why !== undefined) throw new Error(why);
    return { folder: directory, known };
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
