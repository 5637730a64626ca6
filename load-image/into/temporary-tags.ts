import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import { type EngineTags, engineTags } from '../../shared/docker/engine-tags.ts';
import type { Holder } from '../../shared/docker/holders.ts';
import type { InspectedImage, ListedImage } from '../../shared/docker/output.ts';
import { isDigest } from '../../shared/image/digest.ts';
import { formatReference } from '../../shared/image/reference.ts';
import type { HeldImage } from './prove.ts';

/** Temporary tags in several holders; removed on dispose. */
export interface TemporaryTags extends AsyncDisposable {
  /** The repository of the tags, which is the same in all holders. */
  readonly repository: string;
  of(holder: Holder): EngineTags;
}

/** @param arrived returns the images that were loaded under temporary tags */
export async function temporaryTags(
  holders: readonly Holder[],
  arrived: () => readonly HeldImage[],
  log: Log,
): Promise<TemporaryTags> {
  const own = await Promise.all(
    holders.map((holder) =>
      onHolder(holder, async () => [holder, await engineTags({ engine: holder.engine, log })] as const),
    ),
  );
  // The first holder's tags are disposed of last, because all holders use their repository.
  const all = new AsyncDisposableStack();
  for (const [{ engine, node }, tags] of own) {
    if (node !== undefined) all.defer(() => removeDigests(engine, tags.before, arrived(), log));
    all.use(tags);
  }
  const byHolder = new Map(own);
  return {
    repository: own[0]?.[1].repository ?? 'nowhere',
    of: (holder) => {
      const tags = byHolder.get(holder);
      if (tags === undefined) throw new RangeError(`no temporary tags for ${holder.node ?? 'the engine'}`);
      return tags;
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/**
 * Tags the images that currently have the references, because containerd removes an image without a reference.
 * @returns the image of each inspected reference
 */
export async function keepEarlier(
  holder: Holder,
  images: readonly HeldImage[],
  temporary: TemporaryTags,
): Promise<ReadonlyMap<string, InspectedImage | undefined>> {
  const { engine, node } = holder;
  const inspected = new Map<string, InspectedImage | undefined>();
  if (node === undefined) return inspected;
  const tags = temporary.of(holder);
  const references = new Set(images.flatMap((image) => image.references.map(formatReference)));
  for (const [position, reference] of [...references].entries()) {
    const image = await engine.inspect(reference);
    inspected.set(reference, image);
    if (image === undefined) continue;
    const name = `${tags.repository}/before:${String(position + 1)}`;
    tags.add(name);
    await engine.tag(reference, name);
  }
  return inspected;
}

/** Removes the digest by which Kubernetes lists an image, if the image has no other reference. */
async function removeDigests(
  engine: Engine,
  before: readonly ListedImage[],
  images: readonly HeldImage[],
  log: Log,
): Promise<void> {
  if (images.length === 0) return;
  const after = await engine.forCleanUp.images().catch(() => []);
  const had = new Set(before.map(({ reference }) => reference));
  for (const { identity } of images) {
    const its = after.filter(({ imageId }) => imageId === identity.manifestDigest);
    const names = its.flatMap(({ reference }) => reference ?? []);
    if (!names.every((name) => isDigest(name) && !had.has(name))) continue;
    for (const name of names)
      await engine.untag(name).catch((error: unknown) => {
        log.warning(`The reference ${name} could not be removed: ${String(error)}`);
      });
  }
}

/** Runs `work`, and adds the node's name to any error. */
export async function onHolder<T>({ node }: Holder, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HandoverError) || node === undefined) throw error;
    throw new HandoverError(error.code, `On the node ${node}: ${error.message}`, error.hint, error);
  }
}
