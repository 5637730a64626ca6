import { HandoverError } from '../shared/base/errors.ts';
import type { Log } from '../shared/base/log.ts';
import type { Engine } from '../shared/docker/engine.ts';
import type { InspectedImage } from '../shared/docker/output.ts';
import { formatReference, type Reference } from '../shared/image/reference.ts';
import { differences, type ExpectedImage, requireSameImage } from './verify.ts';

/**
 * Makes sure that `reference` is the expected image, tagging it if it was loaded under another name.
 * @param what the expected image in words, for the log: `the image that was handed over`
 * @param loaded what `docker load` reported
 * @throws HandoverError `image-missing`, `image-mismatch`
 */
export async function verifiedTag(
  { engine, log }: { readonly engine: Engine; readonly log: Log },
  reference: Reference,
  { expected, what }: { readonly expected: ExpectedImage; readonly what: string },
  loaded: readonly string[],
): Promise<InspectedImage> {
  const name = formatReference(reference);
  if (!loaded.includes(engine.nameOf(name))) {
    const source = await findSame(engine, loaded, expected);
    await engine.tag(source, name);
    log.info(`It was loaded as ${loaded.join(', ')}; tagged as ${name}.`);
  }
  const image = await engine.inspect(name);
  if (image === undefined) {
    throw new HandoverError(
      'image-missing',
      `${engine.program} load reported ${loaded.join(', ') || 'nothing'}, but ${engine.program} image inspect ${name} finds no image.`,
      `Look at the engine on this runner: ${engine.program} image ls; ${engine.program} info.`,
    );
  }
  requireSameImage(name, expected, image);
  log.info(`Verified: ${name} is ${what} (${image.imageId})`);
  return image;
}

/** Gives the image its further references too, where they aren't this image yet. */
export async function tagFurther(
  { engine, log }: { readonly engine: Engine; readonly log: Log },
  image: InspectedImage,
  expected: ExpectedImage,
  references: readonly Reference[],
): Promise<void> {
  for (const name of references.map(formatReference)) {
    const found = await engine.inspect(name);
    if (found === undefined || differences(expected, found).length > 0) await engine.tag(image.imageId, name);
    log.info(`It is ${name}, too.`);
  }
}

async function findSame(engine: Engine, loaded: readonly string[], expected: ExpectedImage): Promise<string> {
  for (const candidate of loaded) {
    const image = await engine.inspect(candidate);
    if (image !== undefined && differences(expected, image).length === 0) return candidate;
  }
  const [first] = loaded;
  const image = first === undefined ? undefined : await engine.inspect(first);
  if (first !== undefined && image !== undefined) requireSameImage(first, expected, image);
  throw new HandoverError(
    'image-missing',
    `${engine.program} load exited with 0, but reported no image that is in the engine (${loaded.join(', ') || 'none'}).`,
    `Look at the engine on this runner: ${engine.program} image ls; ${engine.program} info.`,
  );
}
