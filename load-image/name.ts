import { HandoverError } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { EngineInfo, InspectedImage } from '../shared/docker/output.ts';
import type { TagGuard } from '../shared/docker/tag-guard.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import type { Identity } from '../shared/handed-over/identity.ts';
import { differences, imageIdOf, requireSameImage } from './verify.ts';

interface Tools {
  readonly engine: Engine;
  readonly log: Log;
  readonly info: EngineInfo;
}

/**
 * The image, if the engine has it, under one of the references or under any other name.
 * @returns what the engine knows it by
 */
export async function findHere(
  { engine, info }: Omit<Tools, 'log'>,
  identity: Identity,
  references: readonly Reference[],
): Promise<string | undefined> {
  const imageId = imageIdOf(identity, info.imageStore);
  const names = [...references.map(formatReference), ...(imageId === undefined ? [] : [imageId])];
  for (const name of names) {
    const found = await engine.inspect(name);
    if (found !== undefined && differences(identity, found, info.imageStore).length === 0) return name;
  }
  return undefined;
}

/**
 * Proves that what the engine knows by this name is the image, and only then calls it by its references; each of them is
 * looked at once more, with the engine's own command.
 * @param what the image in words, for the log: `the image that was handed over`
 * @param guard puts the references back unless all turns out well
 * @returns the image under its first reference
 * @throws HandoverError `image-missing`, `image-mismatch`
 */
export async function proveAndName(
  { engine, log, info }: Tools,
  {
    name,
    identity,
    references,
  }: { readonly name: string; readonly identity: Identity; readonly references: readonly Reference[] },
  what: string,
  guard: TagGuard,
): Promise<InspectedImage> {
  const [first] = references.map(formatReference);
  const image = await inspect(engine, name);
  requireSameImage(first ?? name, identity, image, info.imageStore);
  const named: InspectedImage[] = [];
  for (const reference of references.map(formatReference)) {
    const before = reference === name ? image : await engine.inspect(reference);
    const hasIt = before !== undefined && differences(identity, before, info.imageStore).length === 0;
    const found = hasIt ? before : await guard.tag(name, reference, { imageId: image.imageId, before });
    if (found === undefined) throw missing(engine, reference);
    requireSameImage(reference, identity, found, info.imageStore);
    named.push(found);
  }
  const [last = image] = (await confirmed({ engine, info }, identity, references)) ?? named;
  log.info(`Verified: ${first ?? name} is ${what} (${last.imageId})`);
  for (const reference of references.slice(1)) log.info(`It is ${formatReference(reference)}, too.`);
  return last;
}

/** The last word is the engine's own command's. Undefined where that has been asked already. */
async function confirmed(
  { engine, info }: Omit<Tools, 'log'>,
  identity: Identity,
  references: readonly Reference[],
): Promise<readonly InspectedImage[] | undefined> {
  const names = references.map(formatReference);
  if (engine.confirm === undefined || names.length === 0) return undefined;
  const images = await engine.confirm(names);
  for (const [position, image] of images.entries())
    requireSameImage(names[position] ?? '', identity, image, info.imageStore);
  return images;
}

/**
 * Looks once more whether each of the images has all of its references.
 * @throws HandoverError `image-missing`, `image-mismatch`
 */
export async function requireNames(
  { engine, info }: Omit<Tools, 'log'>,
  images: readonly { readonly identity: Identity; readonly references: readonly Reference[] }[],
): Promise<void> {
  for (const { identity, references } of images)
    for (const name of references.map(formatReference))
      requireSameImage(name, identity, await inspect(engine, name), info.imageStore);
}

async function inspect(engine: Engine, name: string): Promise<InspectedImage> {
  const image = await engine.inspect(name);
  if (image !== undefined) return image;
  throw missing(engine, name);
}

function missing(engine: Engine, name: string): HandoverError {
  return new HandoverError(
    'image-missing',
    `${engine.program} said that all was well, but ${engine.program} image inspect ${name} finds no image.`,
    `Look at the engine: ${engine.program} image ls; ${engine.program} ${engine.program === 'ctr' ? 'version' : 'info'}.`,
  );
}
