import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, invalidInput, messageOf } from '../shared/base/errors.ts';
import { namedLog } from '../shared/base/log.ts';
import { formatBytes } from '../shared/base/text.ts';
import { chapter, namedTimeline } from '../shared/base/timeline.ts';
import type { Holder } from '../shared/docker/holders.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import { findArtifacts, type FoundArtifact } from '../shared/handed-over/find.ts';
import { resolveArtifact } from '../shared/handed-over/opened-artifact.ts';
import { type Outcome, requireAll, sideBySide } from '../shared/handed-over/side-by-side.ts';
import { isId, isPattern, isWanted } from '../shared/image/artifact-name.ts';
import { recordName } from '../shared/image/record.ts';
import { formatReference } from '../shared/image/reference.ts';
import { type MappedImage, mappedImages, withDigests } from './digests.ts';
import { chooseAtOnce, hostInfo } from './into/into-holders.ts';
import { differences } from './into/prove.ts';
import { loadArtifact, loadImage, type LoadResult, type LoadTools } from './load-image.ts';
import type { EachPlan, ImagesPlan } from './plan/plan.ts';

export type ImagesTools = LoadTools & {
  /** Opens the artifact store of this job's run, for the mapping. */
  readonly ownStore: () => ArtifactStore;
};

export interface ImagesResult {
  /** Sorted by the artifact's name. */
  readonly images: readonly MappedImage[];
  /** Empty if only the records were read. */
  readonly loaded: readonly LoadResult[];
  /** The artifact with the mapping. */
  readonly digests: Artifact | undefined;
  /** Names of the artifacts that were removed. */
  readonly removed: readonly string[];
}

/**
 * Loads one image, or several at once, or only reads their digests. If planned, uploads the mapping and removes the artifacts.
 * @throws HandoverError with any error code of load-image; the message lists every image that failed. Verified images are kept.
 */
export async function loadImages(plan: ImagesPlan, tools: ImagesTools): Promise<ImagesResult> {
  if (plan.kind === 'removal')
    return { images: [], loaded: [], digests: undefined, removed: await removeArtifacts(plan.wanted, tools) };
  const result = await loadAndMap(plan, tools);
  if (!plan.remove) return { ...result, removed: [] };
  // A pattern may also match the mapping, or an artifact that another job has uploaded in the meantime.
  const names = plan.wanted.some(isPattern)
    ? result.images.flatMap(({ artifact }) => artifact?.name ?? [])
    : plan.wanted;
  const removed = await removeArtifacts(names, tools).catch((error: unknown) => {
    tools.log.warning(`The image is here, but its artifact was not removed: ${messageOf(error)}`);
    return [];
  });
  return { ...result, removed };
}

/** Removes artifacts of this run, from all of its attempts, and returns their names. */
async function removeArtifacts(
  wanted: readonly string[],
  { ownStore, log }: Pick<ImagesTools, 'ownStore' | 'log'>,
): Promise<readonly string[]> {
  await using store = ownStore();
  const artifacts = (await store.list()).filter((artifact) => wanted.some((one) => isWanted(one, artifact)));
  for (const artifact of artifacts) {
    await store.remove(artifact);
    log.info(`Removed the artifact "${artifact.name}" (id ${String(artifact.id)}, ${formatBytes(artifact.size)})`);
  }
  if (artifacts.length === 0) log.warning(`This run has no artifact ${wanted.join(', ')}: there is nothing to remove.`);
  return [...new Set(artifacts.map(({ name }) => name))];
}

async function loadAndMap(plan: ImagesPlan, tools: ImagesTools): Promise<Omit<ImagesResult, 'removed'>> {
  if (plan.kind === 'one') {
    const [artifactName = ''] = plan.wanted;
    const name = await nameOf(artifactName, tools);
    return withDigests(plan.digests, [name], tools, async () => {
      const loaded = await loadImage({ ...plan.each, artifactName }, tools, plan.fallback);
      return { images: mappedLoad(loaded, name), loaded: [loaded] };
    });
  }
  const found = await chapter(tools, 'Find the artifacts', () => findArtifacts(plan.wanted, tools), 'Find');
  const names = found.map(({ name }) => name);
  return withDigests(plan.digests, names, tools, async () => {
    if (plan.kind === 'mapping') return { images: await readMapping(plan.each, found), loaded: [] };
    const loaded = await loadSideBySide(plan.each, tools, found);
    return { images: loaded.flatMap((result) => mappedLoad(result)), loaded };
  });
}

/** Returns the name of a wanted artifact, for the mapping. Only an id needs a lookup. */
async function nameOf(wanted: string, { store }: Pick<ImagesTools, 'store'>): Promise<string> {
  if (!isId(wanted)) return wanted;
  return (await store.list()).find((artifact) => isWanted(wanted, artifact))?.name ?? wanted;
}

function mappedLoad(
  { reference, identity, further, artifact, record }: LoadResult,
  name = artifact?.name ?? reference,
): readonly MappedImage[] {
  return mappedImages(name, artifact, record, [{ reference, identity }, ...further]);
}

async function readMapping(each: EachPlan, found: readonly Outcome<FoundArtifact>[]): Promise<readonly MappedImage[]> {
  const read = await sideBySide(found, 1, (artifact) => {
    // No engine is involved: the platform is compared when the image is loaded.
    const { content, record, images } = resolveArtifact(artifact, { ...each, host: undefined });
    if (images === undefined)
      throw new HandoverError(
        'image-not-found',
        `The artifact "${content.artifact.name}" has no ${recordName} with the position of its image’s config, so its image can be identified only by loading it.`,
        'Create the artifact with export-image, or remove `load: false` to load it.',
      );
    const named = images.map(({ identity, references }) => ({ identity, reference: formatReference(references[0]) }));
    return Promise.resolve(mappedImages(content.artifact.name, content.artifact, record, named));
  });
  return requireAll(read, 'read').flat();
}

async function loadSideBySide(
  each: EachPlan,
  tools: LoadTools,
  found: readonly Outcome<FoundArtifact>[],
): Promise<readonly LoadResult[]> {
  const { log, timeline, holders } = tools;
  const artifacts = found.flatMap((outcome) => (outcome.ok ? [outcome.value] : []));
  requireOwnReferences(artifacts);
  const info = await hostInfo(holders);
  const sizes = artifacts.map(({ content }) => content.artifact.size);
  const atOnce = await chooseAtOnce(holders, info, sizes);
  const title = `Load ${String(found.length)} images, at most ${String(atOnce)} at once`;
  const loaded = await log.chapter(title, () =>
    sideBySide(found, atOnce, (artifact, name) => {
      const named = { ...tools, log: namedLog(log, name), timeline: namedTimeline(timeline, name) };
      return loadArtifact(each, named, artifact, info);
    }),
  );
  return requireAll(await sideBySide(loaded, 1, (result) => requireStillThere(holders, info, result)), 'loaded');
}

// If two images had the same reference, only the one that is loaded last would keep it.
function requireOwnReferences(artifacts: readonly FoundArtifact[]): void {
  const owners = new Map<string, { readonly name: string; readonly configDigest: string }>();
  for (const { content, record } of artifacts) {
    for (const reference of record?.references.map(formatReference) ?? []) {
      const mine = { name: content.artifact.name, configDigest: record?.configDigest ?? '' };
      const owner = owners.get(reference) ?? mine;
      owners.set(reference, owner);
      if (owner.configDigest !== mine.configDigest)
        throw invalidInput(
          `The artifacts "${owner.name}" and "${mine.name}" hold different images under the same reference, ${reference}.`,
          'Give each export its own reference, such as `image: ${{ matrix.component }}:local`, or load them in different jobs.',
        );
    }
  }
}

// Without a record, an artifact's reference is known only during its load. By then, another image may have been verified under the same
// reference.
async function requireStillThere(
  holders: readonly Holder[],
  info: EngineInfo,
  result: LoadResult,
): Promise<LoadResult> {
  for (const { engine } of holders) {
    for (const { reference, identity } of [result, ...result.further]) {
      const image = await engine.inspect(reference);
      if (image !== undefined && differences(identity, image, info.imageStore).length === 0) continue;
      throw new HandoverError(
        'image-mismatch',
        `${reference} was loaded and verified, but is ${image === undefined ? 'gone' : 'another image'} now.`,
        'Two artifacts may contain images with the same reference. Give each image its own, or load them in different jobs.',
      );
    }
  }
  return result;
}
