import type { Log } from '../base/log.ts';
import { isDead, livingName, livingNamePattern } from '../bytes/locks.ts';
import type { Engine } from './engine.ts';
import type { ListedImage } from './output.ts';

// An image gets into the engine under a random name that nobody else has: one that is loaded, until it is proved and named; one that
// is built, until it is saved. Whatever goes wrong, it goes with that name, unless it was in the engine before, perhaps without any
// name. What steps that were killed left under such names goes with the next step on the same machine.

/** Names of ours in an engine. They are taken away when this is disposed of. */
export interface OwnNames extends AsyncDisposable {
  /** A repository that no host and no other step has. */
  readonly repository: string;
  /** A name for the repository that the engine pulls from this step. */
  readonly loopbackName: string;
  /** Has a name of ours taken away at the end. It need not be there by then. */
  add(name: string): void;
}

// No host is ever called so (RFC 2606, section 2).
const host = 'image-handover.invalid';
const loopback = 'handover-';
const owner = new RegExp(`^(?:${host}/|127\\.0\\.0\\.1:\\d+/${loopback})(${livingNamePattern})`);

interface Tools {
  readonly engine: Engine;
  readonly log: Log;
}

/** @throws HandoverError `image-missing` when the engine can't list its images */
export async function ownNames({ engine, log }: Tools): Promise<OwnNames> {
  const before = await engine.images();
  await sweep({ engine, log }, namesOf(before));
  const here = new Set(before.map(({ imageId }) => imageId));
  const own = await livingName();
  const added: string[] = [];
  return {
    repository: `${host}/${own.name}`,
    loopbackName: `${loopback}${own.name}`,
    add: (name) => void added.push(name),
    [Symbol.asyncDispose]: async () => {
      for (const name of added.splice(0).reverse()) {
        await takeAway(engine, here, name).catch((error: unknown) => {
          log.warning(`The reference ${name} stays in the engine: ${String(error)}`);
        });
      }
      await own[Symbol.asyncDispose]();
    },
  };
}

async function takeAway({ forCleanUp }: Engine, here: ReadonlySet<string>, name: string): Promise<void> {
  const image = await forCleanUp.inspect(name);
  if (image === undefined) return;
  if (!here.has(image.imageId) || image.repoTags.some((tag) => tag !== name)) return forCleanUp.untag(name);
  // Without a name before, and without one in the end. A name with a digest can't be released: it takes a tag beside it.
  if (!name.includes('@')) return forCleanUp.release(name);
  const tag = `${name.replace(/@.*/, '')}:1`;
  await forCleanUp.tag(name, tag);
  await forCleanUp.untag(name);
  if ((await forCleanUp.inspect(tag)) !== undefined) await forCleanUp.release(tag);
}

/**
 * Takes away what killed steps left. What goes wrong in it is no trouble of this load.
 * @param found names of the image that was found: a listing of the containerd store leaves out a name by digest beside a tag
 */
export async function sweepNames(tools: Tools, found: readonly string[]): Promise<void> {
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
    log.info(`A step that was killed left ${name} in the engine: it is taken away.`);
    await engine.untag(name).catch(() => undefined);
  }
}
