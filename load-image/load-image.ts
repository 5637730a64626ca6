import { hostname } from 'node:os';
import type { ArtifactContent } from '../shared/artifacts/store.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import { requireDiskSpace } from '../shared/bytes/disk-space.ts';
import { partialFile } from '../shared/bytes/partial-file.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import type { ImageNode } from '../shared/docker/image-nodes.ts';
import { claimTags, placeOf } from '../shared/docker/tag-claims.ts';
import { guardTags, type TagGuard } from '../shared/docker/tag-guard.ts';
import { imagesOf } from '../shared/image/record.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { layoutFolder } from '../shared/layout/layout-folder.ts';
import { type ArrivedImage, type ArrivedImages, feed, layoutImages } from './feed.ts';
import { findHandover, type FindTools, type Handover } from '../shared/handed-over/find.ts';
import type { Identity, KnownImage } from '../shared/handed-over/identity.ts';
import { findHere, proveAndName, requireNames } from './name.ts';
import { sweepNames } from '../shared/docker/own-names.ts';
import { hostInfo, loadIntoNodes } from './nodes.ts';
import { type EachPlan, fallbackReference, type LoadPlan } from './plan/plan.ts';
import type { LoadResult } from './result.ts';
import { requireExpected } from './verify.ts';
import { chooseRecorded } from './whole-tarball.ts';

export interface LoadTools extends FindTools {
  readonly engine: Engine;
  readonly log: Log;
  readonly timeline: Timeline;
  /** Where the image goes to instead of into the engine. */
  readonly nodes?: readonly ImageNode[] | undefined;
  readonly signal: AbortSignal;
}

const spaceAdvice = 'Set `tarball` to a path on a filesystem with more space, or leave it empty: then no file is kept.';

const layoutAdvice = 'Set `oci-layout` to a path on a filesystem with more space.';

/**
 * Finds the artifact, loads its image, and proves that it is the one handed over.
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadImage(plan: LoadPlan, tools: LoadTools): Promise<LoadResult> {
  const { log, timeline } = tools;
  const found = log.chapter('Find the artifact', () =>
    timeline.measure('Find', () => findHandover(plan.artifactName, tools)),
  );
  found.catch(() => undefined); // thrown below; an engine that isn't there comes first
  const info = await hostInfo(tools);
  return loadHandover(plan, tools, await found, info);
}

/**
 * The same for an artifact that has been opened: is it what is expected, is it here already, else feed it to the engine, prove
 * it, and only then name it.
 * @throws HandoverError of any code of the consumer; then no tag and no file is left behind
 */
export async function loadHandover(
  plan: EachPlan,
  tools: LoadTools,
  handover: Handover,
  info: EngineInfo,
): Promise<LoadResult> {
  const { log, timeline } = tools;
  const { content, record, known } = handover;
  const claimed = claimedImage(handover, plan.reference);
  // What is only claimed may be reason enough to load nothing; never to load it.
  if (claimed !== undefined) requireExpected(plan, claimed, info.platform);
  const { nodes } = tools;
  if (nodes !== undefined) {
    await requireSpace(plan, content, undefined);
    return loadIntoNodes(plan, { ...tools, nodes }, handover, info);
  }
  const here = await nameIfHere(plan, { ...tools, info }, handover);
  if (here !== undefined) return here;

  await requireSpace(plan, content, info);
  return await log.chapter('Load', () =>
    timeline.measure(
      (result) => (result?.size === 0 ? 'Load' : 'Download and load'),
      async () => {
        const path = plan.tarballPath;
        await using kept = path === undefined ? undefined : await partialFile(path, spaceAdvice, log);
        const { reference, overlap, layoutPath } = plan;
        await using layout = layoutPath === undefined ? undefined : await layoutFolder(layoutPath, log);
        const tees = { tee: kept?.tee, teeLayer: layout?.tee };
        const job = { content, record, known, info, reference, overlap, ...tees };
        await using arrival = await feed(tools, job);
        // Disposed of first: an image that loses its name again has to have one of ours still, to go with it.
        await using guard = await claimedGuard({ ...tools, info }, arrival.images);
        const arrived = { images: arrival.images, loaded: true, size: content.downloaded() ?? arrival.size };
        const result = await finish(plan, { ...tools, info }, handover, arrived, guard);
        await layout?.commit(layoutImages(arrival.images));
        await kept?.commit();
        guard.keep();
        return { ...result, layoutPath };
      },
    ),
  );
}

/** The image that is meant, as far as it is known before anything is loaded. */
function claimedImage({ known, record }: Handover, reference: Reference | undefined): Claim | undefined {
  if (known !== undefined) return chooseRecorded(known, reference)[0]?.chosen.identity;
  return record === undefined ? undefined : chooseRecorded(imagesOf(record), reference)[0]?.chosen;
}

type Claim = Parameters<typeof requireExpected>[1];

type EngineTools = LoadTools & { readonly info: EngineInfo };

/** Images that are in the engine, and how they got there. */
interface PresentImages {
  readonly images: ArrivedImages;
  readonly loaded: boolean;
  /** Bytes that were downloaded. */
  readonly size: number;
}

/** Claims the references of images, and guards their tags. */
async function claimedGuard(
  { engine, log, info, signal }: EngineTools,
  images: readonly { readonly references: readonly Reference[] }[],
): Promise<TagGuard> {
  const references = images.flatMap((image) => image.references);
  return guardTags(engine, log.warning, await claimTags([placeOf(info)], references, { log, signal }));
}

/** Names the images, if this engine has all of them already. */
async function nameIfHere(plan: EachPlan, tools: EngineTools, handover: Handover): Promise<LoadResult | undefined> {
  const { content, known } = handover;
  if (known === undefined || plan.tarballPath !== undefined || plan.layoutPath !== undefined) return undefined;
  const chosen = chooseRecorded(known, plan.reference);
  // Looked at only now: another step may be about to take a reference back.
  await using guard = await claimedGuard(tools, chosen);
  const images = await allHere(tools, chosen);
  if (images === undefined) return undefined;
  for (const { name } of images) tools.log.info(`The engine has this very image already: ${name}. Nothing to load.`);
  const present = { images, loaded: false, size: content.downloaded() ?? 0 };
  const result = await finish(plan, tools, handover, present, guard);
  guard.keep();
  await sweepNames(tools, result.image?.repoTags ?? []);
  return result;
}

async function allHere(
  { engine, info }: EngineTools,
  chosen: ReturnType<typeof chooseRecorded<KnownImage>>,
): Promise<ArrivedImages | undefined> {
  const images: ArrivedImage[] = [];
  for (const {
    chosen: { identity },
    references,
  } of chosen) {
    const name = await findHere({ engine, info }, identity, references);
    if (name === undefined) return undefined;
    images.push({ name, identity, references });
  }
  const [first, ...further] = images;
  return first === undefined ? undefined : [first, ...further];
}

async function finish(
  plan: EachPlan,
  tools: EngineTools,
  { origin, content, record }: Handover,
  { images, loaded, size }: PresentImages,
  guard: TagGuard,
): Promise<LoadResult> {
  const what = origin === 'artifact' ? 'the image that was handed over' : 'this job’s own image';
  for (const [position, { identity }] of images.entries()) {
    // Of several images, the first is the one that a digest is expected of.
    const expectations = position === 0 ? plan : { ...plan, expectedConfigDigest: undefined };
    requireExpected(expectations, identity, tools.info.platform);
  }
  const [first, ...others] = images;
  const image = await proveAndName(tools, first, what, guard);
  for (const other of others) await proveAndName(tools, other, what, guard);
  // Of two images that claim one name, the last one has it.
  if (others.length > 0) await requireNames(tools, images);
  const artifact = origin === 'artifact' ? content.artifact : undefined;
  const facts = { source: loaded ? origin : 'engine', artifact, record, size, loaded } as const;
  return { ...facts, ...nameOf(first), image, further: others.map(nameOf) };
}

function nameOf({ references, identity }: ArrivedImage): { readonly reference: string; readonly identity: Identity } {
  return { reference: formatReference(references[0] ?? fallbackReference), identity };
}

/** Bytes that the engine needs where it stores images, to load an artifact of so many bytes. */
export function spaceNeeded(info: EngineInfo, size: number): number {
  return info.imageStore.sizesWhileLoading * size;
}

/** Where the engine stores images, if that is on this machine and can be looked at. */
export function engineFolder(info: EngineInfo): string | undefined {
  return info.dataRoot === '' || info.hostName !== hostname() ? undefined : info.dataRoot;
}

async function requireSpace(
  { tarballPath, layoutPath }: Pick<LoadPlan, 'tarballPath' | 'layoutPath'>,
  content: ArtifactContent,
  info: EngineInfo | undefined,
): Promise<void> {
  const { size } = content.artifact;
  if (tarballPath !== undefined) await requireDiskSpace(tarballPath, size, 'The tarball', spaceAdvice);
  if (layoutPath !== undefined) await requireDiskSpace(layoutPath, size, 'The OCI layout', layoutAdvice);
  const folder = info === undefined ? undefined : engineFolder(info);
  if (info === undefined || folder === undefined) return;
  await requireDiskSpace(
    folder,
    spaceNeeded(info, size),
    'Loading the image into the engine',
    'Free space first: docker system prune -af; df -h.',
  );
}
