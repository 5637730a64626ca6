import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { FilledLayout, HandedOverImage } from '../hand-over.ts';
import { bakeArguments, bakeCacheArguments, bakePrintArguments } from '../plan/bake.ts';
import { type CacheWrites, classicProblems, planCacheWrites, requireClassicWrites } from '../plan/cache.ts';
import type { BakePlan } from '../plan/plan.ts';
import type { CacheBuild } from './cache-writing.ts';
import { saveIntoLayout, type SourceTools, type UsedCaches } from './from-engine.ts';
import { HandoverError, setupBuildxHint } from '../../shared/base/errors.ts';
import type { BakeTarget } from '../../shared/docker/buildx.ts';
import { ownNames } from '../../shared/docker/own-names.ts';
import {
  formatReference,
  parseTaggedReference,
  repeatedName,
  type TaggedReference,
} from '../../shared/image/reference.ts';
import { readOciLayout } from '../../shared/layout/read-layout.ts';

// The targets of a bake file are built in one go: what they share is built once, and waits for nobody. Each target writes an
// OCI layout of its own, as buildx locks a layout's index; but all of them keep their blobs in one folder, so that a layer that
// is in six images is handed over once.

/** The images of a bake file, in the layout. */
export type BakedImages = Pick<FilledLayout, 'images' | 'steps'> & { readonly caches: UsedCaches };

/** @throws HandoverError `invalid-input` for targets that aren't there or have no name; `builder-unsupported`, `build-failed` */
export async function bakeIntoLayout(tools: SourceTools, plan: BakePlan, directory: string): Promise<BakedImages> {
  const { buildx, log } = tools;
  const { source } = plan;
  const info = tools.engine.info();
  info.catch(() => undefined);
  const builder = await buildx.builder(source.builder);
  const found = await buildx.targets(bakePrintArguments(source), source.targets);
  const targets = named(found).map((target): WrittenTarget => {
    const caches = found.find(({ name }) => name === target.name)?.cacheTo ?? [];
    return { ...target, writes: planCacheWrites(caches, tools.cacheService), hasCaches: caches.length > 0 };
  });
  for (const { name, references } of targets) log.info(`${name}: ${references.map(formatReference).join(', ')}`);
  const direct = builder.driver !== 'docker' || (await info).imageStore === 'containerd';
  log.info(`Builder ${builder.name} (driver ${builder.driver}): ${direct ? 'OCI layouts' : 'load and docker save'}`);
  return direct ? bakeDirectly(tools, plan, targets, directory) : bakeByEngine(tools, plan, targets, directory);
}

interface NamedTarget {
  readonly name: string;
  readonly references: readonly TaggedReference[];
}

interface WrittenTarget extends NamedTarget {
  readonly writes: CacheWrites;
  readonly hasCaches: boolean;
}

function named(targets: readonly BakeTarget[]): readonly NamedTarget[] {
  const all = targets.map(({ name, tags }) => {
    if (tags.length === 0) {
      throw new HandoverError(
        'invalid-input',
        `The target ${name} has no tags in the bake file: its image has no name to hand it over under.`,
        `Give it \`tags\` there (\`image:\` in a compose file), or with \`bake-set: ${name}.tags=app:local\`.`,
      );
    }
    return { name, references: tags.map(parseTaggedReference) };
  });
  // A target may give one name twice.
  const each = all.map(({ references }) => [...new Map(references.map((one) => [formatReference(one), one])).values()]);
  const twice = repeatedName(each.flat());
  if (twice === undefined) return all;
  throw new HandoverError(
    'invalid-input',
    `${twice} is the name of two of the targets ${all.map(({ name }) => name).join(', ')}.`,
    'Give each target `tags` of its own in the bake file.',
  );
}

async function bakeDirectly(
  tools: SourceTools,
  { source, platform, compression }: BakePlan,
  targets: readonly WrittenTarget[],
  directory: string,
): Promise<BakedImages> {
  const blobs = join(directory, 'blobs');
  await mkdir(join(blobs, 'sha256'), { recursive: true });
  const layouts = targets.map(({ name }) => join(directory, 'targets', name));
  for (const layout of layouts) {
    await mkdir(layout, { recursive: true });
    await symlink(blobs, join(layout, 'blobs'));
  }
  const outputs = targets.map(({ name, writes, hasCaches }, position) => {
    const exporter = { kind: 'oci-layout', directory: layouts[position] ?? '', compression } as const;
    const cacheTo = hasCaches ? writes.withImage : undefined;
    return { target: name, name: `baked:${String(position)}`, exporter, cacheTo };
  });
  const { steps, unreadCaches } = await tools.buildx.bake(
    bakeArguments(source, platform, outputs, directory),
    tools.log.info,
  );
  const builds = targets.flatMap(({ name, writes }) =>
    writes.afterImage.map((cache): CacheBuild => {
      const args = bakeCacheArguments(source, platform, name, cache);
      return { cache, write: (writer) => tools.buildx.writeCache('bake', args, writer) };
    }),
  );
  const problems = [...new Set([...unreadCaches, ...targets.flatMap(({ writes }) => writes.problems)])];
  const images = await Promise.all(
    targets.map(async ({ references }, position) => ({
      image: await readOciLayout(layouts[position] ?? '', platform),
      references,
    })),
  );
  return { steps, images: requireSome(images), caches: { problems, builds } };
}

async function bakeByEngine(
  tools: SourceTools,
  { source, platform, compression }: BakePlan,
  targets: readonly WrittenTarget[],
  directory: string,
): Promise<BakedImages> {
  const { buildx, log } = tools;
  await using names = await ownNames(tools);
  const outputs = targets.map(({ name: target, writes, hasCaches }, position) => {
    const name = `${names.repository}:${String(position)}`;
    names.add(name);
    const cacheTo = hasCaches ? requireClassicWrites(writes) : undefined;
    return { target, name, exporter: 'engine', cacheTo } as const;
  });
  const problems = new Set(targets.flatMap(({ writes }) => classicProblems(writes)));
  const { steps, unreadCaches } = await buildx.bake(bakeArguments(source, platform, outputs, directory), log.info);
  const images: HandedOverImage[] = [];
  for (const [position, { references }] of targets.entries()) {
    const name = outputs[position]?.name ?? '';
    const { replaced } = await saveIntoLayout(tools, name, { directory, compression }, undefined);
    images.push({ image: await readOciLayout(directory, platform, replaced), references });
  }
  return { steps, images: requireSome(images), caches: { problems: [...unreadCaches, ...problems], builds: [] } };
}

function requireSome(images: readonly HandedOverImage[]): FilledLayout['images'] {
  const [first, ...further] = images;
  if (first !== undefined) return [first, ...further];
  throw new HandoverError('builder-unsupported', 'docker buildx bake built no image.', setupBuildxHint);
}
