import type { Log } from '../base/log.ts';
import { isDead, livingName, livingNamePattern } from '../bytes/locks.ts';
import type { Engine } from './engine.ts';
import type { ListedImage } from './output.ts';

// A temporary tag is a random, unique name: a loaded image has it until it is verified, and a built image until it is saved. After that,
// the tag is removed, and the image with it if it was not in the engine before. The next step on the same machine removes the temporary
// tags of killed steps.

/** Temporary tags that this step created; removed on dispose. */
export type EngineTags = Readonly<Awaited<ReturnType<typeof engineTags>>>;

// No host has this name (RFC 2606, section 2).
const host = 'image-handover.invalid';
const loopback = 'handover-';
const owner = new RegExp(`^(?:${host}/|127\\.0\\.0\\.1:\\d+/${loopback})(${livingNamePattern})`);

interface Tools {
  readonly engine: Engine;
  readonly log: Log;
}

/** @throws HandoverError `image-missing` if the engine can't list its images */
export async function engineTags({ engine, log }: Tools) {
  const before = await engine.images();
  await sweep({ engine, log }, namesOf(before));
  const here = new Set(before.map(({ imageId }) => imageId));
  const own = await livingName();
  const added: string[] = [];
  return {
    /** The images that the engine had before. */
    before,
    /** A unique repository. */
    repository: `${host}/${own.name}`,
    /** The name of the repository that the engine pulls from this step. */
    loopbackName: `${loopback}${own.name}`,
    /** Adds a temporary tag. It need not exist on dispose. */
    add: (name: string) => void added.push(name),
    [Symbol.asyncDispose]: async (): Promise<void> => {
      for (const name of added.splice(0).reverse()) {
        await takeAway(engine, here, name).catch((error: unknown) => {
          log.warning(`The reference ${name} could not be removed from the engine: ${String(error)}`);
        });
      }
      await own[Symbol.asyncDispose]();
    },
  };
}

async function takeAway({ forCleanUp }: Engine, here: ReadonlySet<string>, name: string): Promise<void> {
  const { release } = forCleanUp;
  if (release === undefined) return forCleanUp.untag(name);
  const image = await forCleanUp.inspect(name);
  if (image === undefined) return;
  if (!here.has(image.imageId) || image.repoTags.some((tag) => tag !== name)) return forCleanUp.untag(name);
  // The image was untagged before. A name with a digest can't be released, so it gets a tag first.
  if (!name.includes('@')) return release(name);
  const tag = `${name.replace(/@.*/, '')}:1`;
  await forCleanUp.tag(name, tag);
  await forCleanUp.untag(name);
  if ((await forCleanUp.inspect(tag)) !== undefined) await release(tag);
}

/**
 * Removes what killed steps left behind. Failures are ignored.
 * @param found names of the image that was found. A list of the containerd store omits names by digest of a tagged image.
 */
export async function sweepTags(tools: Tools, found: readonly string[]): Promise<void> {
  const listed = await tools.engine.images().catch(() => []);
  await sweep(tools, [...found, ...namesOf(listed)]);
}

function namesOf(images: readonly ListedImage[]): readonly string[] {
  return images.flatMap(({ reference }) => reference ?? []);
}

async function sweep({ engine, log }: Tools, names: readonly string[]): Promise<void> {
  for (const name of new Set(names)) {
    const left = owner.exec(name)?.[1];
    if (left === undefined || !(await isDead(left))) continue;
    log.info(`Removing ${name}, left behind by a killed step.`);
    await engine.untag(name).catch(() => undefined);
  }
}
