import { type Outcome, requireAll, sideBySide } from '../shared/handed-over/side-by-side.ts';
import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError } from '../shared/base/errors.ts';
import { namedLog } from '../shared/base/log.ts';
import { namedTimeline } from '../shared/base/timeline.ts';
import { diskSpace } from '../shared/bytes/disk-space.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import { recordName } from '../shared/image/record.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { claimDigests, type MappedImage, mappedImages, mappedLoad } from './digests.ts';
import { type Handover, openHandovers } from '../shared/handed-over/find.ts';
import { type FromTools, loadFrom } from './from/from.ts';
import { engineFolder, loadHandover, type LoadTools, spaceNeeded } from './load-image.ts';
import type { LoadResult } from './result.ts';
import { enginesOf, hostInfo, takesTurns } from './nodes.ts';
import type { DigestsPlan, ImagesPlan } from './plan/images-plan.ts';
import type { EachPlan } from './plan/plan.ts';
import { differences, requireExpected } from './verify.ts';

// Each load holds parts of its download, some 20 MB: more at once aren't faster, and memory has to stay flat.
const most = 3;

/**
 * How many images are loaded at once: as many as the disk takes even when the largest come together, but at least one.
 * @param needs bytes that each load needs on the disk
 * @param freeBytes bytes that are free there; undefined when that can't be told
 * @internal
 */
export function loadsAtOnce(needs: readonly number[], freeBytes: number | undefined): number {
  const largest = [...needs].sort((one, other) => other - one).slice(0, most);
  let sum = 0;
  const fitting = largest.filter((bytes) => (sum += bytes) <= (freeBytes ?? Infinity));
  return Math.max(1, fitting.length);
}

export interface ImagesTools extends FromTools {
  /** Opens the artifacts of this job's own run, for the mapping. */
  readonly ownStore: () => ArtifactStore;
}

/** What happened. */
export interface ImagesResult {
  /** One for each artifact, sorted by name; several for an artifact with several images. */
  readonly images: readonly MappedImage[];
  /** The same when they were loaded; none when only their records were read. */
  readonly loaded: readonly LoadResult[];
  /** Where the mapping was uploaded to. */
  readonly digests: Artifact | undefined;
}

/**
 * Loads one image, or several side by side; or only reads what their records say. Uploads the mapping if asked to.
 * @param fallback what to pull when the one image's artifact isn't there
 * @throws HandoverError of any code of the consumer, naming every image that failed. Those that were verified stay
 */
export async function loadImages(
  plan: ImagesPlan,
  fallback: Reference | undefined,
  tools: ImagesTools,
): Promise<ImagesResult> {
  if (plan.kind === 'one') {
    const { artifactName } = plan.plan;
    return withDigests(plan.digests, tools, [artifactName], async () => {
      const loaded = await loadFrom(plan.plan, tools, fallback);
      return { images: mappedLoad(artifactName, loaded), loaded: [loaded] };
    });
  }
  const { log, timeline } = tools;
  const opened = await log.chapter('Find the artifacts', () =>
    timeline.measure('Find', () => openHandovers(plan.wanted, tools)),
  );
  const names = opened.map(({ name }) => name);
  return withDigests(plan.digests, tools, names, async () =>
    plan.kind === 'several'
      ? loadedResult(await loadSideBySide(plan.each, tools, opened))
      : { images: await readMapping(plan.each, opened), loaded: [] },
  );
}

function loadedResult(loaded: readonly LoadResult[]): Omit<ImagesResult, 'digests'> {
  return { images: loaded.flatMap((result) => mappedLoad(result.artifact?.name ?? result.reference, result)), loaded };
}

async function withDigests(
  plan: DigestsPlan | undefined,
  { ownStore, log }: ImagesTools,
  names: readonly string[],
  work: () => Promise<Omit<ImagesResult, 'digests'>>,
): Promise<ImagesResult> {
  if (plan === undefined) return { ...(await work()), digests: undefined };
  await using store = ownStore();
  const claim = await claimDigests(store, plan, names);
  const result = await work();
  const digests = await claim.upload(result.images);
  log.info(`Uploaded the digests as the artifact "${digests.name}" (id ${String(digests.id)})`);
  return { ...result, digests };
}

async function readMapping(each: EachPlan, opened: readonly Outcome<Handover>[]): Promise<readonly MappedImage[]> {
  // The engine has no say here: its platform is looked at when the image is loaded.
  const expectations = { ...each, checkPlatform: false };
  const read = await sideBySide(opened, 1, ({ content: { artifact }, record, known }) => {
    if (known === undefined) throw unknownImage(artifact);
    const [first] = known;
    if (first !== undefined) requireExpected(expectations, first.identity, first.identity.platform);
    return Promise.resolve(mappedImages(artifact, record, known));
  });
  return requireAll(read, 'read').flat();
}

function unknownImage({ name }: Artifact): HandoverError {
  return new HandoverError(
    'image-not-found',
    `The artifact "${name}" has no ${recordName} that tells where its image’s config lies: which image it holds is known only when it is loaded.`,
    'Make the artifact with export-image, or load it: remove `load: false`.',
  );
}

async function loadSideBySide(
  each: EachPlan,
  tools: LoadTools,
  opened: readonly Outcome<Handover>[],
): Promise<readonly LoadResult[]> {
  const { log, timeline } = tools;
  const handovers = opened.flatMap((outcome) => (outcome.ok ? [outcome.value] : []));
  requireOwnReferences(handovers);
  const info = await hostInfo(tools);
  const atOnce = takesTurns(tools.nodes) ? 1 : await chooseAtOnce(info, handovers);
  const title = `Load ${String(opened.length)} images, at most ${String(atOnce)} at once`;
  const loaded = await log.chapter(title, () =>
    sideBySide(opened, atOnce, (handover, name) => {
      const named = { ...tools, log: namedLog(log, name), timeline: namedTimeline(timeline, name) };
      return loadHandover(each, named, handover, info);
    }),
  );
  return requireAll(await sideBySide(loaded, 1, (result) => requireStillThere(tools, info, result)), 'loaded');
}

async function chooseAtOnce(info: EngineInfo, handovers: readonly Handover[]): Promise<number> {
  const folder = engineFolder(info);
  const space = folder === undefined ? undefined : await diskSpace(folder);
  return loadsAtOnce(
    handovers.map(({ content }) => spaceNeeded(info, content.artifact.size)),
    space?.freeBytes,
  );
}

// Of two images with the same reference, the one that is loaded last would win.
function requireOwnReferences(handovers: readonly Handover[]): void {
  const owners = new Map<string, { readonly name: string; readonly configDigest: string }>();
  for (const { content, record } of handovers) {
    for (const reference of record?.references.map(formatReference) ?? []) {
      const mine = { name: content.artifact.name, configDigest: record?.configDigest ?? '' };
      const owner = owners.get(reference) ?? mine;
      owners.set(reference, owner);
      if (owner.configDigest !== mine.configDigest) throw sameReference(reference, owner.name, mine.name);
    }
  }
}

function sameReference(reference: string, one: string, other: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `The artifacts "${one}" and "${other}" hold different images under the same reference, ${reference}.`,
    'Give each export a reference of its own, such as `image: ${{ matrix.component }}:local`, or load them in different jobs.',
  );
}

// An artifact without a record tells its reference only while it is loaded, when another may just have been verified.
async function requireStillThere(tools: LoadTools, info: EngineInfo, result: LoadResult): Promise<LoadResult> {
  const images = [result, ...result.further];
  const places = enginesOf(tools).flatMap((engine) => images.map((image) => ({ engine, ...image })));
  for (const { engine, reference, identity } of places) {
    const image = await engine.inspect(reference);
    if (image !== undefined && differences(identity, image, info.imageStore).length === 0) continue;
    throw new HandoverError(
      'image-mismatch',
      `${reference} was loaded and verified, but is ${image === undefined ? 'gone' : 'another image'} now.`,
      'Two artifacts may hold images of the same reference: give each its own, or load them in different jobs.',
    );
  }
  return result;
}
