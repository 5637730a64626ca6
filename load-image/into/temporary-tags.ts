import { HandoverError } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import type { Holder } from '../../shared/docker/holders.ts';
import { type EngineTags, engineTags } from '../../shared/docker/engine-tags.ts';
import { isDigest } from '../../shared/image/digest.ts';
import type { InspectedImage } from '../../shared/docker/output.ts';
import { formatReference } from '../../shared/image/reference.ts';
import type { ResolvedImage } from '../../shared/handed-over/opened-artifact.ts';

/** Temporary tags in several holders; removed on dispose. */
export interface TemporaryTags extends AsyncDisposable {
  /** The same repository in all holders. */
  readonly repository: string;
  of(holder: Holder): EngineTags;
  /**
   * Tags the images that have the references now, because containerd removes an image without a reference.
   * @returns the image of each reference that was inspected
   */
  keepEarlier(
    holder: Holder,
    images: readonly Pick<ResolvedImage, 'identity' | 'references'>[],
  ): Promise<ReadonlyMap<string, InspectedImage | undefined>>;
}

/** @param arrived returns the images that were loaded under temporary tags */
export async function temporaryTags(
  holders: readonly Holder[],
  arrived: () => readonly Pick<ResolvedImage, 'identity' | 'references'>[],
  log: Log,
): Promise<TemporaryTags> {
  await using all = new AsyncDisposableStack();
  const own = await Promise.all(
    holders.map((holder) =>
      onHolder(holder, async () => {
        const tags =
          holder.node === undefined ? await engineTags({ ...holder, log }) : await nodeTags(holder, arrived, log);
        return [holder, tags] as const;
      }),
    ),
  );
  // The first is disposed of last, because all holders use its repository.
  for (const [, tags] of own) all.use(tags);
  const byHolder = new Map(own);
  const of = (holder: Holder): EngineTags => {
    const tags = byHolder.get(holder);
    if (tags === undefined) throw new RangeError(`no temporary tags for ${holder.node ?? 'the engine'}`);
    return tags;
  };
  const held = all.move();
  const repository = own[0]?.[1].repository ?? 'nowhere';
  return {
    repository,
    of,
    keepEarlier: async (holder, images) => {
      const { engine, node } = holder;
      const inspected = new Map<string, InspectedImage | undefined>();
      if (node === undefined) return inspected;
      const references = new Set(images.flatMap((image) => image.references.map(formatReference)));
      for (const [position, reference] of [...references].entries()) {
        inspected.set(reference, await engine.inspect(reference));
        if (inspected.get(reference) === undefined) continue;
        const name = `${of(holder).repository}/before:${String(position + 1)}`;
        of(holder).add(name);
        await engine.tag(reference, name);
      }
      return inspected;
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Removes also the digest by which Kubernetes lists an image, if the image has no other reference. */
async function nodeTags(
  { engine }: Holder,
  arrived: () => readonly Pick<ResolvedImage, 'identity' | 'references'>[],
  log: Log,
): Promise<EngineTags> {
  const own = await engineTags({ engine, log });
  const before = new Set(own.before.map(({ reference }) => reference));
  return {
    ...own,
    [Symbol.asyncDispose]: async () => {
      await own[Symbol.asyncDispose]();
      if (arrived().length === 0) return;
      const after = await engine.forCleanUp.images().catch(() => []);
      for (const { identity } of arrived()) {
        const its = after.filter(({ imageId }) => imageId === identity.manifestDigest);
        const names = its.flatMap(({ reference }) => reference ?? []);
        if (!names.every((name) => isDigest(name) && !before.has(name))) continue;
        for (const name of names)
          await engine.untag(name).catch((error: unknown) => {
            log.warning(`The reference ${name} could not be removed: ${String(error)}`);
          });
      }
    },
  };
}

/** Adds the node's name to any error there. */
export async function onHolder<T>({ node }: Holder, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HandoverError) || node === undefined) throw error;
    throw new HandoverError(error.code, `On the node ${node}: ${error.message}`, error.hint, error);
  }
}
