import type { Artifact, ArtifactStore } from '../shared/artifacts/store.ts';
import { HandoverError, messageOf } from '../shared/base/errors.ts';
import { namedLog } from '../shared/base/log.ts';
import { namedTimeline } from '../shared/base/timeline.ts';
import { diskSpace } from '../shared/bytes/disk-space.ts';
import type { EngineInfo } from '../shared/docker/output.ts';
import { recordName } from '../shared/image/record.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { claimDigests, type MappedImage, mappedLoad, mappedRecord } from './digests.ts';
import { openHandovers } from './find.ts';
import { loadOrPull } from './from/fallback.ts';
import type { FromTools } from './from/from.ts';
import {
  engineFolder,
  type Handover,
  loadHandover,
  type LoadResult,
  type LoadTools,
  spaceNeeded,
} from './load-image.ts';
import type { DigestsPlan, ImagesPlan } from './plan/images-plan.ts';
import type { EachPlan } from './plan/plan.ts';
import { differences, requireExpected } from './verify.ts';

// Each load holds parts of its download, some 20 MB: more at once aren't faster, and memory has to stay flat.
const most = 3;

/**
 * How many images are loaded at once: as many as the disk takes even when the largest come together, but at least one.
 * @param needs bytes that each load needs on the disk
 * @param freeBytes bytes that are free there; undefined when that can't be told
 */
export function loadsAtOnce(needs: readonly number[], freeBytes: number | undefined): number {
  const largest = [...needs].sort((one, other) => other - one).slice(0, most);
  let sum = 0;
  const fitting = largest.filter((bytes) => (sum += bytes) <= (freeBytes ?? Infinity));
  return Math.max(1, fitting.length);
}

/** What became of one of several works, by its name. */
export type Outcome<T> =
  | { readonly name: string; readonly ok: true; readonly value: T }
  | { readonly name: string; readonly ok: false; readonly error: unknown };

/**
 * Does the next work for each that has gone well so far, `atOnce` at a time. One that fails doesn't hinder the others.
 * @returns the outcomes in the same order
 */
export async function sideBySide<T, U>(
  before: readonly Outcome<T>[],
  atOnce: number,
  work: (value: T, name: string) => Promise<U>,
): Promise<readonly Outcome<U>[]> {
  const after: Outcome<U>[] = [];
  const waiting = before.entries();
  const worker = async (): Promise<void> => {
    for (const [position, outcome] of waiting) after[position] = await next(outcome, work);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return after;
}

async function next<T, U>(outcome: Outcome<T>, work: (value: T, name: string) => Promise<U>): Promise<Outcome<U>> {
  if (!outcome.ok) return outcome;
  const { name, value } = outcome;
  try {
    return { name, ok: true, value: await work(value, name) };
  } catch (error) {
    return { name, ok: false, error };
  }
}

/**
 * The values, if all went well.
 * @param done what went well, as a participle: `loaded`
 * @throws HandoverError that names every one that failed: of their code when all have the same, else `load-failed`
 */
export function requireAll<T>(outcomes: readonly Outcome<T>[], done: string): readonly T[] {
  const failures = outcomes.flatMap((outcome) => (outcome.ok ? [] : [outcome]));
  const [first] = failures;
  if (first === undefined) return outcomes.flatMap((outcome) => (outcome.ok ? [outcome.value] : []));
  const defect = failures.find(({ error }) => !(error instanceof HandoverError));
  if (defect !== undefined || outcomes.length === 1) throw (defect ?? first).error;

  const known = failures.flatMap(({ name, error }) => (error instanceof HandoverError ? [{ name, error }] : []));
  const codes = new Set(known.map(({ error }) => error.code));
  const [code = 'load-failed'] = codes;
  const well = outcomes.flatMap(({ ok, name }) => (ok ? [name] : []));
  const rest = well.length === 0 ? '' : ` Verified and ${done}: ${well.join(', ')}.`;
  throw new HandoverError(
    codes.size === 1 ? code : 'load-failed',
    `${String(known.length)} of ${String(outcomes.length)} images could not be ${done}.${rest}` +
      known.map(({ name, error }) => `\n- ${name}: ${error.message} (${error.code})`).join(''),
    [...new Set(known.map(({ error }) => error.hint))].join(' '),
    messageOf(first.error),
  );
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
      const loaded = await loadOrPull(plan.plan, fallback, tools);
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
  const read = await sideBySide(opened, 1, ({ content: { artifact }, record }) => {
    if (record === undefined) throw withoutRecord(artifact);
    requireExpected(expectations, record, record.platform);
    return Promise.resolve(mappedRecord(artifact, record));
  });
  return requireAll(read, 'read').flat();
}

function withoutRecord({ name }: Artifact): HandoverError {
  return new HandoverError(
    'image-not-found',
    `The artifact "${name}" has no ${recordName}: which image it holds is known only when it is loaded.`,
    'Make the artifact with export-image, or load it: remove `load: false`.',
  );
}

async function loadSideBySide(
  each: EachPlan,
  tools: LoadTools,
  opened: readonly Outcome<Handover>[],
): Promise<readonly LoadResult[]> {
  const { engine, log, timeline } = tools;
  const handovers = opened.flatMap((outcome) => (outcome.ok ? [outcome.value] : []));
  requireOwnReferences(handovers);
  const info = await engine.info();
  const atOnce = await chooseAtOnce(info, handovers);
  const title = `Load ${String(opened.length)} images, at most ${String(atOnce)} at once`;
  const loaded = await log.chapter(title, () =>
    sideBySide(opened, atOnce, (handover, name) => {
      const named = { ...tools, log: namedLog(log, name), timeline: namedTimeline(timeline, name) };
      return loadHandover(each, named, handover, info);
    }),
  );
  return requireAll(await sideBySide(loaded, 1, (result) => requireStillThere(tools, result)), 'loaded');
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
async function requireStillThere({ engine }: LoadTools, result: LoadResult): Promise<LoadResult> {
  for (const { reference, expected } of [result, ...result.further]) {
    const image = await engine.inspect(reference);
    if (image !== undefined && differences(expected, image).length === 0) continue;
    throw new HandoverError(
      'image-mismatch',
      `${reference} was loaded and verified, but is ${image === undefined ? 'gone' : 'another image'} now.`,
      'Two artifacts may hold images of the same reference: give each its own, or load them in different jobs.',
    );
  }
  return result;
}
