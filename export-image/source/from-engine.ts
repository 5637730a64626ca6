import { stat } from 'node:fs/promises';
import type { LayoutPlan } from '../plan/plan.ts';
import type { LayoutTools } from '../tools.ts';
import type { TarballContents } from '../upload.ts';
import type { CacheWriting } from './build-caches.ts';
import { HandoverError, invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { kindOf } from '../../shared/bytes/files.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { ImageContents } from '../../shared/image/manifest.ts';
import { isImageId } from '../../shared/image/reference.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';

/**
 * Returns the local references that the user may have meant: another tag of the same repository, or different capitalization. They are in
 * the form that docker prints.
 * @internal
 */
export function nearMisses(wanted: string, local: readonly string[]): readonly string[] {
  const repository = (reference: string): string => reference.replace(/:[^:/]*$/, '').toLowerCase();
  const last = (reference: string): string => repository(reference).split('/').at(-1) ?? '';
  const same = local.filter((reference) => repository(reference) === repository(wanted));
  return same.length > 0 ? same : local.filter((reference) => last(reference) === last(wanted));
}

/** An OCI layout with all images of the export. */
export interface FilledLayout extends TarballContents {
  readonly steps: readonly BuildStep[];
  readonly caches: CacheWriting;
}

export type GivenPath = readonly [input: string, path: string];

/**
 * Rejects pipes and devices among the paths that buildx opens: it would wait for a pipe's writer, and read a device endlessly. buildx
 * itself reports all other problems. Some of the values are not paths, such as a Git repository.
 * @throws HandoverError `invalid-input`
 */
export async function requireNoPipes(given: readonly GivenPath[]): Promise<void> {
  for (const [input, path] of given) {
    const found = await stat(path).catch(() => undefined);
    // An SSH agent is a socket.
    if (found === undefined || found.isFile() || found.isDirectory() || found.isSocket()) continue;
    throw invalidInput(
      `The input \`${input}\` points to ${quoteForeign(path)}, which is ${kindOf(found)}, not a file.`,
      'Write its content to a file first, and use the path of that file.',
    );
  }
}

/** Returns whether the builder can export OCI layouts. If not, it loads images into the engine. */
export async function exportsLayouts(
  { buildx, engine, log }: LayoutTools,
  builderName: string | undefined,
): Promise<boolean> {
  // The engine and the builder are queried at the same time, because each query takes a tenth of a second. If the builder is outside the
  // engine, the engine's response is not needed.
  const info = engine.info();
  info.catch(() => undefined);
  const { name, driver } = await buildx.builder(builderName);
  const exports = driver !== 'docker' || (await info).imageStore.exportsLayouts;
  log.info(`Builder ${name} (driver ${driver}): ${exports ? 'OCI layout' : 'load and docker save'}`);
  return exports;
}

/**
 * Saves an image of this engine into the OCI layout.
 * @param name a reference with a tag or digest, or an image ID
 * @returns the image, and its name or full ID
 * @throws HandoverError `image-not-found`, with the local references and similar ones
 */
export async function saveIntoLayout(
  { engine, layout, log }: LayoutTools,
  name: string,
  { platform, compression }: Pick<LayoutPlan, 'platform' | 'compression'>,
): Promise<{ readonly image: ImageContents; readonly id: string }> {
  const found = await engine.inspect(name);
  if (found === undefined) throw await notFound(engine, name);
  log.info(`Found ${name} (${found.imageId})`);
  const id = isImageId(name) ? found.imageId : name;
  const replaced = await writeOciLayout(engine.save(id), layout, compression.saved);
  return { image: await readOciLayout(layout, platform, replaced), id };
}

async function notFound(engine: Engine, name: string): Promise<HandoverError> {
  const local = (await engine.images()).flatMap(({ reference }) =>
    reference?.includes('@') === false ? [reference] : [],
  );
  const near = nearMisses(engine.nameOf(name), local);
  const shown = local.slice(0, 20).join(', ') || 'none';
  return new HandoverError(
    'image-not-found',
    `There is no image ${name} in this engine.` +
      (near.length > 0 ? ` It has ${near.join(', ')}.` : '') +
      ` Local images: ${shown}${local.length > 20 ? ` and ${String(local.length - 20)} more` : ''}.`,
    missingHint(name, near),
  );
}

function missingHint(name: string, near: readonly string[]): string {
  if (isImageId(name)) {
    return 'Use the reference instead: an image has a different ID in each engine and image store. A build without `load: true` leaves no image here.';
  }
  return near.length > 0
    ? 'Correct the tag in `source-image`, or build with that tag.'
    : 'Build it in this job first, with `load: true` if docker/build-push-action builds it.';
}
