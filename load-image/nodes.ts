import { arch } from 'node:os';
import { HandoverError } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Timeline } from '../shared/base/timeline.ts';
import type { LentChunks } from '../shared/bytes/chunks.ts';
import { fanOut } from '../shared/bytes/fan-out.ts';
import { awaitKey } from '../shared/bytes/locks.ts';
import { partialFile } from '../shared/bytes/partial-file.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { ImageNode } from '../shared/docker/image-nodes.ts';
import { type OwnNames, ownNames } from '../shared/docker/own-names.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import { claimTags } from '../shared/docker/tag-claims.ts';
import { guardTags, type TagGuard } from '../shared/docker/tag-guard.ts';
import { isDigest } from '../shared/image/digest.ts';
import { imageStores } from '../shared/image/image-store.ts';
import { platformOf } from '../shared/image/platform.ts';
import { formatReference } from '../shared/image/reference.ts';
import { layoutFolder } from '../shared/layout/layout-folder.ts';
import { layoutImages, wholeSize, wordFor } from './feed.ts';
import type { Handover } from '../shared/handed-over/find.ts';
import type { Identity } from '../shared/handed-over/identity.ts';
import { findHere, proveAndName, requireNames } from './name.ts';
import { type EachPlan, fallbackReference } from './plan/plan.ts';
import type { LoadResult } from './result.ts';
import { requireExpected } from './verify.ts';
import { chooseRecorded, type PassedImage, wholeTarball } from './whole-tarball.ts';

// An image on its way past the engine: into every node of a cluster at once, from one download, with no file in between; or into
// no node at all, where a layout or a tarball is all that is wanted. The nodes take the whole tarball, under names of ours, each at
// its own pace, and the slowest sets it. An image gets its own name on a node when it has been proved there. If anything goes wrong on any
// node, every node gets back what it had.

interface Tools {
  readonly log: Log;
  readonly timeline: Timeline;
  readonly signal: AbortSignal;
  readonly nodes: readonly ImageNode[];
}

interface Holders {
  readonly engine: Engine;
  readonly nodes?: readonly ImageNode[] | undefined;
}

/** All that are to hold the image. */
export function enginesOf({ engine, nodes }: Holders): readonly Engine[] {
  return nodes === undefined ? [engine] : nodes.map((node) => node.engine);
}

/** What is known of the place that the image goes to; where that is none, of the machine that this runs on. */
export async function hostInfo(holders: Holders): Promise<EngineInfo> {
  const [first] = enginesOf(holders);
  if (first !== undefined) return first.info();
  return {
    version: '',
    platform: platformOf('linux', arch()),
    imageStore: imageStores.containerd,
    dataRoot: '',
    hostName: '',
  };
}

/** The image where it goes, and what the nodes call it. */
interface Placed {
  readonly identity: Identity;
  readonly references: PassedImage['references'];
}

/**
 * Brings an artifact's images into every node, and writes what else is wanted of them.
 * @throws HandoverError of any code of the consumer, naming the node if it is one's; then no name and no file is left behind
 */
export async function loadIntoNodes(
  plan: EachPlan,
  tools: Tools,
  handover: Handover,
  info: EngineInfo,
): Promise<LoadResult> {
  const { log, timeline, nodes } = tools;
  await using turn = new AsyncDisposableStack();
  turn.use(await takeTurn(tools));
  const { lacking, result } = await nameWhereHere(plan, tools, handover, info);
  if (result !== undefined) return result;
  const title =
    nodes.length === 0 ? 'Download' : `Load into ${String(lacking.length)} of ${String(nodes.length)} nodes`;
  return await log.chapter(title, () =>
    timeline.measure(nodes.length === 0 ? 'Download' : 'Download and load', () =>
      passThrough(plan, tools, handover, info, lacking),
    ),
  );
}

interface Found {
  /** The nodes that don't have all of the images yet. */
  readonly lacking: readonly ImageNode[];
  /** What happened where every node has them. */
  readonly result?: LoadResult;
}

/** Names the images, if every node has all of them already. */
async function nameWhereHere(plan: EachPlan, tools: Tools, handover: Handover, info: EngineInfo): Promise<Found> {
  const { nodes, log } = tools;
  const images = knownImages(plan, handover);
  // Looked at only when they are claimed: another step may be about to take a reference back.
  await using claim = new AsyncDisposableStack();
  claim.use(await claimOnAll(tools, images));
  const lacking = await lackingNodes(plan, tools, handover, info);
  if (lacking.length > 0 || nodes.length === 0) return { lacking };
  await using ours = await ownNamesOn(nodes, [], log);
  await using guards = new AsyncDisposableStack();
  const named = await nameOnAll(tools, { images, loaded: undefined, names: ours.names, guards, info });
  named.keep();
  for (const { references } of images) log.info(`Every node has this very image already: ${nameOf(references)}.`);
  return { lacking, result: resultOf(tools, handover, images, { image: named.image, loaded: false, size: 0 }) };
}

function claimOnAll(
  { nodes, log, signal }: Tools,
  images: readonly Pick<Placed, 'references'>[],
): Promise<AsyncDisposable> {
  return claimTags(
    nodes.map(({ name }) => `node ${name}`),
    images.flatMap(({ references }) => references),
    { log, signal },
  );
}

/**
 * Whether images go there one after the other. A containerd lets an import wait while another one writes the same blob. Two images
 * that share a layer would wait for ever: on one node the first for the second, on another the second for the first, and neither
 * goes on before all of its nodes do.
 */
export function takesTurns(nodes: readonly ImageNode[] | undefined): boolean {
  return nodes !== undefined && nodes.length > 1;
}

async function takeTurn({ log, nodes, signal }: Tools): Promise<AsyncDisposable | undefined> {
  if (!takesTurns(nodes)) return undefined;
  const names = nodes.map(({ name }) => name);
  return awaitKey(`nodes ${names.join()}`, {
    signal,
    onWait: (holder) => {
      log.info(`Waiting for another image to finish loading into ${names.join(', ')}: ${holder} has the turn.`);
    },
    onGiveUp: (holder) => {
      log.warning(`Loading into ${names.join(', ')} without a turn: ${holder} has had it for too long.`);
    },
  });
}

async function passThrough(
  plan: EachPlan,
  tools: Tools,
  { content, record, ...handover }: Handover,
  info: EngineInfo,
  lacking: readonly ImageNode[],
): Promise<LoadResult> {
  const { log, nodes } = tools;
  const { tarballPath, layoutPath, reference } = plan;
  await using kept =
    tarballPath === undefined ? undefined : await partialFile(tarballPath, 'Set `tarball` to another path.', log);
  await using layout = layoutPath === undefined ? undefined : await layoutFolder(layoutPath, log);
  let size = 0;
  const passedBy: PassedImage[] = [];
  // Disposed of after the guards: an image that loses its name again has to have one of ours still.
  await using ours = await ownNamesOn(nodes, passedBy, log);
  const request = {
    ...{ content, record, known: handover.known, reference, platform: info.platform, repository: ours.repository },
    ...{ tee: kept?.tee, teeLayer: layout?.tee, needsManifest: nodes.length > 0 },
  };
  const images = await log.progress(wordFor(content), wholeSize(content, record), async (passed) => {
    const tarball = wholeTarball(request, (bytes) => {
      size += bytes;
      passed(bytes);
    });
    const take = (node: ImageNode) => (chunks: LentChunks) =>
      onNode(node, () => node.engine.load(chunks, () => undefined));
    await fanOut(tarball.chunks, lacking.map(take)).finally(() => {
      passedBy.push(...tarball.images());
      for (const { loadedAs } of passedBy) for (const node of lacking) ours.names.get(node)?.add(loadedAs);
    });
    return tarball.images();
  });
  for (const [position, { identity }] of images.entries())
    requireExpected(position === 0 ? plan : { ...plan, expectedConfigDigest: undefined }, identity, info.platform);
  await using guards = new AsyncDisposableStack();
  guards.use(await claimOnAll(tools, images));
  const named = await nameOnAll(tools, { images, loaded: lacking, names: ours.names, guards, info });
  await layout?.commit(layoutImages(images));
  await kept?.commit();
  named.keep();
  const facts = { image: named.image, loaded: nodes.length > 0, size: content.downloaded() ?? size };
  return { ...resultOf(tools, { ...handover, content, record }, images, facts), layoutPath };
}

/** The nodes that don't have all of the images yet; all of them, where a file is wanted or nobody knows which images they are. */
async function lackingNodes(
  plan: EachPlan,
  { nodes }: Tools,
  handover: Handover,
  info: EngineInfo,
): Promise<readonly ImageNode[]> {
  const images = knownImages(plan, handover);
  if (images.length === 0 || plan.tarballPath !== undefined || plan.layoutPath !== undefined) return nodes;
  const lacks = await Promise.all(
    nodes.map((node) =>
      onNode(node, async () => {
        for (const { identity, references } of images)
          if ((await findHere({ engine: node.engine, info }, identity, references)) === undefined) return [node];
        return [];
      }),
    ),
  );
  return lacks.flat();
}

function knownImages({ reference }: EachPlan, { known = [] }: Handover): readonly Placed[] {
  return chooseRecorded(known, reference).map(({ chosen, references }) => ({ identity: chosen.identity, references }));
}

interface Naming {
  readonly images: readonly (Placed & Partial<Pick<PassedImage, 'loadedAs'>>)[];
  /** The nodes that have them under names of ours; undefined where none has. */
  readonly loaded: readonly ImageNode[] | undefined;
  readonly names: ReadonlyMap<ImageNode, OwnNames>;
  /** Puts back what was there before, unless `keep` is called. */
  readonly guards: AsyncDisposableStack;
  readonly info: EngineInfo;
}

/** Gives the images their own names on all nodes. */
async function nameOnAll(
  { log, nodes }: Tools,
  { images, loaded, names, guards, info }: Naming,
): Promise<{ readonly image: InspectedImage | undefined; readonly keep: () => void }> {
  const kept: TagGuard[] = [];
  const name = async (node: ImageNode): Promise<InspectedImage | undefined> => {
    const { engine } = node;
    await keepBefore(node, images, names.get(node));
    const guard = guardTags(engine, log.warning);
    guards.use(guard);
    kept.push(guard);
    let first: InspectedImage | undefined;
    for (const { identity, references, loadedAs } of images) {
      const found = loaded?.includes(node) === true ? loadedAs : await findHere({ engine, info }, identity, references);
      const what = `the image that was handed over, on ${node.name}`;
      const request = { name: found ?? nameOf(references), identity, references };
      const image = await proveAndName({ engine, log, info }, request, what, guard);
      first ??= image;
    }
    // Of two images that claim one name, the last one has it.
    if (images.length > 1) await requireNames({ engine, info }, images);
    return first;
  };
  const outcomes = await Promise.allSettled(nodes.map((node) => onNode(node, () => name(node))));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  const [first] = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  return {
    image: first,
    keep: () => {
      for (const guard of kept) guard.keep();
    },
  };
}

/** Keeps what has one of the names now under one of ours, until all is settled: containerd drops what has none. */
async function keepBefore({ engine }: ImageNode, images: readonly Placed[], own: OwnNames | undefined): Promise<void> {
  if (own === undefined) return;
  const references = images.flatMap((image) => image.references.map(formatReference));
  for (const [position, reference] of [...new Set(references)].entries()) {
    if ((await engine.inspect(reference)) === undefined) continue;
    const name = `${own.repository}/before:${String(position + 1)}`;
    own.add(name);
    await engine.tag(reference, name);
  }
}

interface NamesOnNodes extends AsyncDisposable {
  /** One for all nodes. */
  readonly repository: string;
  readonly names: ReadonlyMap<ImageNode, OwnNames>;
}

/** @param passed the images, as soon as they are known */
async function ownNamesOn(nodes: readonly ImageNode[], passed: readonly Placed[], log: Log): Promise<NamesOnNodes> {
  await using all = new AsyncDisposableStack();
  const names = await Promise.all(nodes.map((node) => onNode(node, () => namesOn(node, passed, log))));
  // The first is disposed of last: all use its repository.
  for (const own of names) all.use(own);
  const held = all.move();
  return {
    repository: names[0]?.repository ?? 'nowhere',
    names: new Map(nodes.flatMap((node, at) => (names[at] === undefined ? [] : [[node, names[at]]]))),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Names of ours on a node; with them goes, if it is all that an image has beside them, the name that Kubernetes gave it. */
async function namesOn({ engine }: ImageNode, passed: readonly Placed[], log: Log): Promise<OwnNames> {
  const before = new Set((await engine.images()).map(({ reference }) => reference));
  const own = await ownNames({ engine, log });
  return {
    ...own,
    [Symbol.asyncDispose]: async () => {
      await own[Symbol.asyncDispose]();
      const after = await engine.forCleanUp.images().catch(() => []);
      for (const { identity } of passed) {
        const its = after.filter(({ imageId }) => imageId === identity.manifestDigest);
        const names = its.flatMap(({ reference }) => reference ?? []);
        if (!names.every((name) => isDigest(name) && !before.has(name))) continue;
        for (const name of names)
          await engine.untag(name).catch((error: unknown) => {
            log.warning(`The reference ${name} stays: ${String(error)}`);
          });
      }
    },
  };
}

/** Names the node in whatever goes wrong there. */
async function onNode<T>({ name }: ImageNode, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HandoverError)) throw error;
    throw new HandoverError(error.code, `On the node ${name}: ${error.message}`, error.hint, error);
  }
}

function resultOf(
  { nodes }: Tools,
  { content, record }: Handover,
  images: readonly Placed[],
  facts: Pick<LoadResult, 'image' | 'loaded' | 'size'>,
): LoadResult {
  const [first, ...others] = images.map(({ identity, references }) => ({ reference: nameOf(references), identity }));
  if (first === undefined) throw new RangeError('an artifact without an image');
  const source = facts.loaded || nodes.length === 0 ? 'artifact' : 'engine';
  const { artifact } = content;
  return { ...first, ...facts, source, artifact, record, nodes: nodes.map(({ name }) => name), further: others };
}

function nameOf(references: PassedImage['references']): string {
  return formatReference(references[0] ?? fallbackReference);
}
