import { mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { ExportedImage } from '../upload.ts';
import {
  bakeArguments,
  bakeCacheArguments,
  type BakeOutput,
  bakePrintArguments,
  type BakeSource,
  isComposeFile,
  withoutBuildTags,
} from '../plan/bake.ts';
import { type CacheWrites, planCacheWrites } from '../plan/cache.ts';
import type { BakePlan } from '../plan/plan.ts';
import { cacheWriting, type LaterCache } from './build-caches.ts';
import { exportsLayouts, type FilledLayout, requireNoPipes, saveIntoLayout } from './from-engine.ts';
import type { LayoutTools } from '../tools.ts';
import { HandoverError, invalidInput, setupBuildxHint } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { BakeTarget, BuildCommand } from '../../shared/docker/buildx.ts';
import { engineTags, type EngineTags } from '../../shared/docker/engine-tags.ts';
import type { ImageContents } from '../../shared/image/manifest.ts';
import { formatReference, parseTaggedReference, type TaggedReference } from '../../shared/image/reference.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';

// One command builds all targets of a bake file, so their shared steps are built once. Each target writes its own OCI layout, because
// buildx locks a layout's index. All layouts share one folder of blobs, so a layer that is in six images is handed over once.

/** @throws HandoverError `invalid-input` for targets that don't exist or have no name; `builder-unsupported`, `build-failed` */
export async function bakeIntoLayout(tools: LayoutTools, plan: BakePlan): Promise<FilledLayout> {
  const { buildx, layout, log } = tools;
  const { source, platform } = plan;
  await requireNoPipes(source.files.map((file) => ['bake-files', file.replace(/^cwd:\/\//, '')]));
  const direct = await exportsLayouts(tools, source.builder);
  const found = await findTargets(tools, source);
  const targets = namedTargets(found.filter(({ isLinked }) => isLinked !== true));
  // If several targets have the same definition, only one is built.
  const isBuilt = ({ name, isLinked }: BakeTarget): boolean =>
    isLinked === true || targets.some((target) => target.name === name);
  const writes = found
    .filter(isBuilt)
    .flatMap(({ name, cacheTo = [] }): readonly TargetCaches[] =>
      cacheTo.length === 0 ? [] : [{ target: name, ...planCacheWrites(cacheTo, tools.cacheService, direct) }],
    );
  for (const { name, references } of targets) log.info(`${name}: ${references.map(formatReference).join(', ')}`);
  await using names = direct ? undefined : await engineTags(tools);
  const outputs: TargetOutput[] = [];
  for (const target of targets)
    outputs.push(
      names === undefined
        ? await layoutOutput(tools, plan, target, outputs.length)
        : engineOutput(tools, plan, target, outputs.length, names),
    );
  const withImage = writes.map(({ target, withImage: cacheTo }) => ({ target, cacheTo }));
  const args = bakeArguments(source, platform, outputs, { written: layout, caches: withImage });
  const { steps, unreadCaches } = await buildx.build({ name: 'bake', args, workdir: source.workdir }, log.info);
  const images: ExportedImage[] = [];
  for (const { readImage, references } of outputs) images.push({ image: await readImage(), references });
  const problems = new Set([...unreadCaches, ...writes.flatMap((caches) => caches.problems)]);
  const caches = cacheWriting(tools, laterCaches(plan, writes), [...problems]);
  const [first, ...further] = images;
  if (first !== undefined) return { steps, images: [first, ...further], caches };
  throw new HandoverError('builder-unsupported', 'docker buildx bake built no image.', setupBuildxHint);
}

interface NamedTarget {
  readonly name: string;
  readonly references: readonly TaggedReference[];
  readonly definition: string;
}

/** A target's `cache-to`. BuildKit also writes the caches of targets that others are built on. */
interface TargetCaches extends CacheWrites {
  readonly target: string;
}

interface TargetOutput extends BakeOutput, Pick<NamedTarget, 'references'> {
  /** Reads the built image. */
  readonly readImage: () => Promise<ImageContents>;
}

/**
 * Returns the targets to build, with all of their names.
 * @throws HandoverError `invalid-input`
 */
async function findTargets({ buildx, layout }: LayoutTools, source: BakeSource): Promise<readonly BakeTarget[]> {
  const { targets: names, workdir } = source;
  const place = await stat(workdir).catch(() => undefined);
  if (place?.isDirectory() !== true) {
    throw invalidInput(
      `There is no folder ${quoteForeign(workdir)} to run docker buildx bake in.`,
      'Correct `workdir` or `bake-files`; check out the repository before this step.',
    );
  }
  const found = await buildx.targets({ name: 'bake', args: bakePrintArguments(source), workdir }, names);
  const files = source.files.length === 0 ? await defaultFiles(workdir) : source.files;
  const lastComposeFile = files.findLastIndex(isComposeFile);
  if (lastComposeFile === -1) return found;
  const override = join(layout, 'without-build-tags.yaml');
  await mkdir(layout, { recursive: true });
  await writeFile(
    override,
    withoutBuildTags(found.filter(({ isLinked }) => isLinked !== true).map(({ name }) => name)),
  );
  const withOverride = files.toSpliced(lastComposeFile + 1, 0, override);
  const args = bakePrintArguments({ ...source, files: withOverride });
  const images = await buildx.targets({ name: 'bake', args, workdir }, names);
  await rm(override);
  return found.map((target) => {
    const image = images.find(({ name }) => name === target.name)?.tags ?? [];
    return { ...target, tags: [...image, ...target.tags] };
  });
}

// The files that buildx reads by default (bake/bake.go, defaultFilenames).
const foundByBuildx = [
  ...['compose.yaml', 'compose.yml', 'docker-compose.yml', 'docker-compose.yaml'],
  ...['docker-bake.json', 'docker-bake.hcl', 'docker-bake.override.json', 'docker-bake.override.hcl'],
] as const;

async function defaultFiles(workdir: string): Promise<readonly string[]> {
  const there = await Promise.all(
    foundByBuildx.map(async (name) => (await stat(resolve(workdir, name)).catch(() => undefined)) !== undefined),
  );
  return foundByBuildx.filter((_, position) => there[position]);
}

/**
 * Returns the images to build. Targets with the same name and definition, such as a web and a worker service, are one image.
 * @throws HandoverError `invalid-input` for a target without a name, and for targets that share a name but are built differently
 * @internal
 */
export function namedTargets(targets: readonly BakeTarget[]): readonly NamedTarget[] {
  const images: NamedTarget[] = [];
  for (const { name, tags, definition } of targets) {
    if (tags.length === 0) {
      throw invalidInput(
        `The target ${name} has no tags in the bake file, so its image has no name.`,
        `Give it \`tags\` there (\`image:\` in a compose file), or with \`bake-set: ${name}.tags=app:local\`.`,
      );
    }
    const image = { name, references: unique(tags.map(parseTaggedReference)), definition };
    const mates = images.filter(({ references }) => sharedName(references, image.references) !== undefined);
    const [first = image, ...further] = mates;
    const stranger = mates.find((mate) => mate.definition !== definition);
    if (stranger !== undefined) {
      throw invalidInput(
        `${sharedName(stranger.references, image.references) ?? ''} is the name of the targets ${stranger.name} and ${name}, which are built differently.`,
        'Give each target `tags` of its own in the bake file (`image:` in a compose file), or build both the same way.',
      );
    }
    const merged = { ...first, references: unique([first, ...further, image].flatMap(({ references }) => references)) };
    if (first === image) images.push(image);
    else images.splice(images.indexOf(first), 1, merged);
    for (const mate of further) images.splice(images.indexOf(mate), 1);
  }
  return images;
}

function unique(references: readonly TaggedReference[]): readonly TaggedReference[] {
  return [...new Map(references.map((one) => [formatReference(one), one])).values()];
}

function sharedName(some: readonly TaggedReference[], others: readonly TaggedReference[]): string | undefined {
  const names = new Set(others.map(formatReference));
  return some.map(formatReference).find((name) => names.has(name));
}

async function layoutOutput(
  { layout }: LayoutTools,
  { platform, compression }: BakePlan,
  { name: target, references }: NamedTarget,
  position: number,
): Promise<TargetOutput> {
  const blobs = join(layout, 'blobs');
  const directory = join(layout, 'targets', target);
  await mkdir(join(blobs, 'sha256'), { recursive: true });
  await mkdir(directory, { recursive: true });
  await symlink(blobs, join(directory, 'blobs'));
  const exporter = { kind: 'oci-layout', directory, compression: compression.built } as const;
  const readImage = (): Promise<ImageContents> => readOciLayout(directory, platform);
  return { target, references, name: `baked:${String(position)}`, exporter, readImage };
}

function engineOutput(
  tools: LayoutTools,
  plan: BakePlan,
  { name: target, references }: NamedTarget,
  position: number,
  names: EngineTags,
): TargetOutput {
  const name = `${names.repository}:${String(position)}`;
  names.add(name);
  const readImage = async (): Promise<ImageContents> => (await saveIntoLayout(tools, name, plan)).image;
  return { target, references, name, exporter: 'engine', readImage };
}

function laterCaches({ source, platform }: BakePlan, writes: readonly TargetCaches[]): readonly LaterCache[] {
  return writes.flatMap(({ target, afterImage }) => {
    const commandOf = (line: string): BuildCommand => {
      const caches = writes.map((each) => ({ target: each.target, cacheTo: each.target === target ? [line] : [] }));
      const args = bakeCacheArguments(source, platform, target, caches);
      return { name: 'bake', args, workdir: source.workdir };
    };
    // `stages` is not set: bake would need permission to write the other stages' layers to a folder.
    return afterImage.map((line) => ({ line, commandOf }));
  });
}
