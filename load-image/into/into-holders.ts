import { arch, hostname } from 'node:os';
import type { ArtifactContent } from '../../shared/artifacts/store.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Log, TotalBytes } from '../../shared/base/log.ts';
import { chapter, type Timeline } from '../../shared/base/timeline.ts';
import type { LentChunks } from '../../shared/bytes/chunks.ts';
import { diskSpace, requireDiskSpace } from '../../shared/bytes/disk-space.ts';
import { fanOut } from '../../shared/bytes/fan-out.ts';
import { awaitKey } from '../../shared/bytes/locks.ts';
import { type PartialFile, partialFile } from '../../shared/bytes/partial-file.ts';
import type { Holder } from '../../shared/docker/holders.ts';
import type { EngineInfo, InspectedImage } from '../../shared/docker/output.ts';
import { sweepTags } from '../../shared/docker/engine-tags.ts';
import { claimTags, guardTags, placeOf } from '../../shared/docker/tag-guard.ts';
import { type OpenedArtifact, requireOne, type ResolvedImages } from '../../shared/handed-over/opened-artifact.ts';
import { imageStores } from '../../shared/image/image-store.ts';
import { platformOf } from '../../shared/image/platform.ts';
import type { ImageContents } from '../../shared/image/manifest.ts';
import { formatReference } from '../../shared/image/reference.ts';
import { type LayoutFolder, layoutFolder } from '../../shared/layout/layout-folder.ts';
import { fetchOverlapped } from './overlap.ts';
import { findImage, type HeldImage, proveAndName, requireNames } from './prove.ts';
import { keepEarlier, onHolder, type TemporaryTags, temporaryTags } from './temporary-tags.ts';
import { wholeTarball } from './whole-tarball.ts';

// Loads an artifact's images into any number of holders: none if only files are wanted, one engine, or the nodes of a cluster. A single
// holder that can pull fetches the missing layers from this step (overlap.ts). Otherwise the bytes of one download go to all holders at
// once (whole-tarball.ts), and the slowest sets the pace. Images arrive under temporary tags. They get their references once every holder
// has the right image. After an error, every holder's earlier references are restored.

export interface IntoTools {
  readonly holders: readonly Holder[];
  readonly log: Log;
  readonly timeline: Timeline;
  readonly signal: AbortSignal;
}

/** What to load, and the files to write. */
interface IntoRequest extends IntoTools {
  readonly opened: OpenedArtifact;
  readonly info: EngineInfo;
  /** Whether the engine may pull layers one by one. */
  readonly overlap: boolean;
  readonly tarballPath: string | undefined;
  readonly layoutPath: string | undefined;
}

/** Images that every holder has. */
interface HeldImages {
  readonly images: ResolvedImages<HeldImage>;
  /** The main image in the first holder; undefined without a holder. */
  readonly image: InspectedImage | undefined;
  /** Whether any holder lacked an image. */
  readonly loaded: boolean;
  /** Total bytes downloaded, including by a failed attempt. */
  readonly size: number;
}

/** Returns the facts about the first holder, or about this machine if there is no holder. */
export async function hostInfo([first]: readonly Holder[]): Promise<EngineInfo> {
  if (first !== undefined) return first.engine.info();
  const platform = platformOf('linux', arch());
  return { platform, imageStore: imageStores.containerd, dataRoot: '', hostName: '' };
}

/** Returns how many artifacts of these sizes, in bytes, to load at once: as many as the engine has space for, or one for several nodes. */
export async function chooseAtOnce(
  holders: readonly Holder[],
  info: EngineInfo,
  sizes: readonly number[],
): Promise<number> {
  if (holders.length > 1) return 1;
  const folder = engineFolder(info);
  const space = folder === undefined ? undefined : await diskSpace(folder);
  const needs = sizes.map((size) => info.imageStore.sizesWhileLoading * size);
  return fittingLoads(needs, space?.freeBytes);
}

// Each load holds about 20 MB of its download in memory. More loads at once aren't faster, and memory use must stay constant.
const maxConcurrent = 3;

/**
 * Returns the number of images to load at once: as many as fit on the disk even if the largest ones load together, but at least one.
 * @param needs bytes that each load needs on the disk
 * @param freeBytes bytes free there; undefined when unknown
 * @internal
 */
export function fittingLoads(needs: readonly number[], freeBytes: number | undefined): number {
  const largest = [...needs].sort((one, other) => other - one).slice(0, maxConcurrent);
  let sum = 0;
  const fitting = largest.filter((bytes) => (sum += bytes) <= (freeBytes ?? Infinity));
  return Math.max(1, fitting.length);
}

/** Returns the engine's folder if it is on this machine. */
function engineFolder(info: EngineInfo): string | undefined {
  return info.dataRoot === '' || info.hostName !== hostname() ? undefined : info.dataRoot;
}

/**
 * Loads the images into all holders, verifies them there, and sets their references. Writes the wanted files.
 * @throws HandoverError with any error code of load-image, and with the node's name if a node failed. No reference or file is left behind.
 */
export async function loadInto(request: IntoRequest): Promise<HeldImages> {
  const { holders } = request;
  await using turn = new AsyncDisposableStack();
  turn.use(await takeTurn(request));
  const lacking = await nameWhereHeld(request);
  if ('images' in lacking) return lacking;
  await requireSpace(request);
  const isLoad = holders.length > 0;
  const ofNodes = `Load into ${String(lacking.length)} of ${String(holders.length)} nodes`;
  const title = !isLoad ? 'Download' : holders.some(({ node }) => node === undefined) ? 'Load' : ofNodes;
  const span = (result: HeldImages | undefined): string =>
    !isLoad ? 'Download' : result?.size === 0 ? 'Load' : 'Download and load';
  return await chapter(request, title, () => receive(request, lacking), span);
}

/**
 * Waits until it's this image's turn, because nodes load one image at a time. In containerd, an import waits while another import writes
 * the same blob. Two images with a common layer could then wait for each other, each on a different node.
 */
async function takeTurn({ log, holders, signal }: IntoTools): Promise<AsyncDisposable | undefined> {
  if (holders.length <= 1) return undefined;
  const nodes = holders.map(({ node }) => node);
  const names = nodes.join(', ');
  return awaitKey(`nodes ${nodes.join()}`, {
    signal,
    onWait: (owner) => log.info(`Waiting for another image to finish loading into ${names}: ${owner} has the turn.`),
    onGiveUp: (owner) => log.warning(`Loading into ${names} without waiting any longer: ${owner} is taking too long.`),
  });
}

/** Hint if the disk is full. */
const spaceAdvice = 'Set `tarball` to a path on a filesystem with more space, or leave it empty: then no file is kept.';

const layoutAdvice = 'Set `oci-layout` to a path on a filesystem with more space.';

/** @throws HandoverError `not-enough-space` */
async function requireSpace({ holders, tarballPath, layoutPath, info, opened }: IntoRequest): Promise<void> {
  const { size } = opened.content.artifact;
  if (tarballPath !== undefined) await requireDiskSpace(tarballPath, size, 'The tarball', spaceAdvice);
  if (layoutPath !== undefined) await requireDiskSpace(layoutPath, size, 'The OCI layout', layoutAdvice);
  const folder = engineFolder(info);
  if (folder === undefined) return;
  const advice = `Free space first: ${holders[0]?.engine.program ?? 'docker'} system prune -af; df -h.`;
  const needed = info.imageStore.sizesWhileLoading * size;
  await requireDiskSpace(folder, needed, 'Loading the image into the engine', advice);
}

/**
 * Sets the references if every holder already has all images.
 * @returns the holders that lack an image, or all holders if files are wanted; otherwise the images
 */
async function nameWhereHeld(request: IntoRequest): Promise<HeldImages | readonly Holder[]> {
  const { holders, log, opened, info, tarballPath, layoutPath } = request;
  const { images, content } = opened;
  if (images === undefined || (tarballPath ?? layoutPath) !== undefined) return holders;
  // The references are claimed first, because another step may be about to restore one.
  await using claim = new AsyncDisposableStack();
  claim.use(await claimReferences(request, images));
  const names = await Promise.all(holders.map((holder) => onHolder(holder, () => namesOf(holder, images, info))));
  const lacking = holders.filter((_, at) => names[at] === undefined);
  if (lacking.length > 0 || holders.length === 0) return lacking;
  const nodes = holders.filter(({ node }) => node !== undefined);
  await using temporary = await temporaryTags(nodes, () => [], log);
  const where = nodes.length === 0 ? 'The engine already has' : 'Every node already has';
  for (const name of names[0] ?? []) log.info(`${where} this image: ${name}. Nothing to load.`);
  const image = await nameOnAll(request, { images, names, temporary });
  for (const { engine, node } of holders)
    if (node === undefined) await sweepTags({ engine, log }, image?.repoTags ?? []);
  return { images, image, loaded: false, size: content.downloaded() ?? 0 };
}

/** Returns the holder's name for each image; undefined if it lacks an image. */
async function namesOf(
  { engine }: Holder,
  images: readonly HeldImage[],
  info: EngineInfo,
): Promise<readonly string[] | undefined> {
  const names: string[] = [];
  for (const { identity, references } of images) {
    const name = await findImage({ engine, info }, identity, references);
    if (name === undefined) return undefined;
    names.push(name);
  }
  return names;
}

/** Claims the references of the images in every holder. */
function claimReferences(
  { holders, info, log, signal }: IntoRequest,
  images: readonly HeldImage[],
): Promise<AsyncDisposable> {
  return claimTags(
    holders.map(({ node }) => (node === undefined ? placeOf(info) : `node ${node}`)),
    images.flatMap(({ references }) => references),
    { log, signal },
  );
}

/** An image under its temporary tag. Its contents are set if the whole tarball was loaded. */
interface ArrivedImage extends HeldImage {
  readonly name: string;
  readonly contents?: ImageContents;
}

interface Receiving extends IntoRequest {
  readonly lacking: readonly Holder[];
  readonly temporary: TemporaryTags;
  readonly kept: PartialFile | undefined;
  readonly layout: LayoutFolder | undefined;
  readonly onBytes: (bytes: number) => void;
}

async function receive(request: IntoRequest, lacking: readonly Holder[]): Promise<HeldImages> {
  const { holders, log, opened, tarballPath, layoutPath } = request;
  await using kept = tarballPath === undefined ? undefined : await partialFile(tarballPath, spaceAdvice, log);
  await using layout = layoutPath === undefined ? undefined : await layoutFolder(layoutPath, log);
  let size = 0;
  const onBytes = (bytes: number): void => void (size += bytes);
  let arrived: readonly ArrivedImage[] = [];
  // Disposed of after the guards: an image that loses its references still needs its temporary tag, and is removed with it.
  await using temporary = await temporaryTags(holders, () => arrived, log);
  const receiving = { ...request, lacking, temporary, kept, layout, onBytes };
  const images = (await pullOverlapped(receiving)) ?? (await loadWhole(receiving));
  arrived = images;
  await using claim = new AsyncDisposableStack();
  claim.use(await claimReferences(request, images));
  const tags = images.map(({ name }) => name);
  const names = holders.map((holder) => (lacking.includes(holder) ? tags : undefined));
  const image = await nameOnAll(request, { images, names, temporary }, async () => {
    // In a layout, one reference is enough for each image.
    await layout?.commit(
      images.flatMap(({ contents, references: [reference] }) =>
        contents === undefined ? [] : [{ image: contents, references: [reference] }],
      ),
    );
    await kept?.commit();
  });
  return { images, image, loaded: holders.length > 0, size: opened.content.downloaded() ?? size };
}

/** @returns undefined if the whole tarball must be loaded */
async function pullOverlapped(request: Receiving): Promise<ResolvedImages<ArrivedImage> | undefined> {
  const { log, opened, info, overlap, tarballPath, layoutPath, temporary, onBytes } = request;
  const { content, images } = opened;
  const [holder, ...others] = request.holders;
  // Files can be written only from the whole tarball.
  if (!overlap || holder === undefined || others.length > 0) return undefined;
  if (images === undefined || (tarballPath ?? layoutPath) !== undefined) return undefined;
  const tools = { engine: holder.engine, log, info };
  const arrived: ArrivedImage[] = [];
  for (const { identity, references, ranged } of images) {
    if (ranged === undefined) return undefined;
    const fetch = { image: ranged, names: temporary.of(holder), word: wordFor(content), onBytes };
    const name = await fetchOverlapped(tools, fetch);
    if (name === undefined) return undefined;
    arrived.push({ identity, references, name });
  }
  return requireOne(arrived);
}

async function loadWhole(receiving: Receiving): Promise<ResolvedImages<ArrivedImage>> {
  const { holders, log, opened, info, lacking, temporary, kept, layout, onBytes } = receiving;
  const { platform } = info;
  const { repository } = temporary;
  const needsManifest = holders.some(({ node }) => node !== undefined);
  const request = { opened, platform, repository, tee: kept?.tee, teeLayer: layout?.tee, needsManifest };
  return log.progress(wordFor(opened.content), wholeSize(opened), async (count) => {
    const tarball = wholeTarball(request, (bytes) => {
      onBytes(bytes);
      count(bytes);
    });
    const loaded = await feedAll(tarball.chunks, lacking).finally(() => {
      for (const { name } of tarball.images()) for (const holder of lacking) temporary.of(holder).add(name);
    });
    if (tarball.images().length === 0) throw nothingLoaded(lacking, loaded);
    return requireOne(tarball.images());
  });
}

/** Sends the tarball to all holders, and returns what they report. */
async function feedAll(chunks: LentChunks, holders: readonly Holder[]): Promise<readonly string[]> {
  const feed = (holder: Holder) => (lent: LentChunks) => onHolder(holder, () => holder.engine.load(lent));
  const [only, ...others] = holders;
  if (only !== undefined && others.length === 0) return feed(only)(chunks);
  return (await fanOut(chunks, holders.map(feed))).flat();
}

interface Naming {
  readonly images: readonly HeldImage[];
  /** Each holder's names for the images; undefined for a holder that already had them. */
  readonly names: readonly (readonly string[] | undefined)[];
  readonly temporary: TemporaryTags;
}

/**
 * Verifies the images in all holders, and sets their references there. If that or `commit` fails, the earlier references are restored.
 * @returns the main image in the first holder
 */
async function nameOnAll(
  { log, holders, opened, info }: IntoRequest,
  { images, names, temporary }: Naming,
  commit?: () => Promise<void>,
): Promise<InspectedImage | undefined> {
  const what = opened.origin === 'artifact' ? 'the image that was handed over' : 'this job’s own image';
  await using guards = new AsyncDisposableStack();
  const naming = holders.map((holder, position) => {
    const { engine, node } = holder;
    const guard = guards.use(guardTags(engine, log.warning));
    const where = node === undefined ? '' : `, on ${node}`;
    return onHolder(holder, async () => {
      const inspected = await keepEarlier(holder, images, temporary);
      const known = names[position] ?? (await namesOf(holder, images, info)) ?? [];
      let first: InspectedImage | undefined;
      for (const [at, { identity, references }] of images.entries()) {
        const name = known[at] ?? formatReference(references[0]);
        // With several images, two can have the same reference, so earlier inspections don't count.
        const request = { name, identity, references, ...(images.length === 1 ? { inspected } : {}) };
        const image = await proveAndName({ engine, log, info }, request, `${what}${where}`, guard);
        first ??= image;
      }
      // If two images have the same reference, only the last one has it now.
      if (images.length > 1) await requireNames({ engine, info }, images);
      return { guard, first };
    });
  });
  // Nothing is restored while another holder still sets references.
  await Promise.allSettled(naming);
  const named = await Promise.all(naming);
  await commit?.();
  for (const { guard } of named) guard.keep();
  return named[0]?.first;
}

/** Returns the verb in the log for the artifact's bytes. */
function wordFor({ downloaded }: ArtifactContent): string {
  return downloaded() === undefined ? 'Downloaded' : 'Read from this machine';
}

function wholeSize({ content, record }: OpenedArtifact): TotalBytes {
  // Unless the artifact is on this machine, all of it is read to verify its digest.
  const total = content.downloaded() === undefined ? content.artifact.size : record?.tarballSize;
  return total ?? 'unknown';
}

function nothingLoaded(holders: readonly Holder[], loaded: readonly string[]): HandoverError {
  const program = holders[0]?.engine.program ?? 'docker';
  return new HandoverError(
    'load-failed',
    `${program} load ended before it had the whole tarball; it reported ${loaded.join(', ') || 'nothing'}.`,
    `Check the engine on this runner: ${program} info; df -h.`,
  );
}
