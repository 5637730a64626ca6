import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { FilledLayout, HandedOverImage } from '../hand-over.ts';
import { bakeArguments, bakeCacheArguments, bakePrintArguments } from '../plan/bake.ts';
import { type CacheWrites, classicProblems, planCacheWrites, requireClassicWrites } from '../plan/cache.ts';
import type { BakePlan } from '../plan/plan.ts';
import type { CacheBuild } from './cache-writing.ts';
import { requireBakePaths } from './given-paths.ts';
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
  await requireBakePaths(source);
  const info = tools.engine.info();
  info.catch(() => undefined);
  const builder = await buildx.builder(source.builder);
  const found = await buildx.targets(bakePrintArguments(source), source.targets);
  const targets = named(found.filter(({ isLinked }) => isLinked !== true));
  const caches = found.flatMap(({ name, cacheTo = [] }): readonly TargetCaches[] =>
    cacheTo.length === 0 ? [] : [{ target: name, writes: planCacheWrites(cacheTo, tools.cacheService) }],
  );
  for (const { name, references } of targets) log.info(`${name}: ${references.map(formatReference).join(', ')}`);
  const direct = builder.driver !== 'docker' || (await info).imageStore === 'containerd';
  log.info(`Builder ${builder.name} (driver ${builder.driver}): ${direct ? 'OCI layouts' : 'load and docker save'}`);
  const wanted = { targets, caches };
  return direct ? bakeDirectly(tools, plan, wanted, directory) : bakeByEngine(tools, plan, wanted, directory);
}

interface NamedTarget {
  readonly name: string;
  readonly references: readonly TaggedReference[];
}

/** A target's `cache-to`: BuildKit writes that of a target that others are built on, too. */
interface TargetCaches {
  readonly target: string;
  readonly writes: CacheWrites;
}

interface WantedTargets {
  readonly targets: readonly NamedTarget[];
  /** Of those that have any. */
  readonly caches: readonly TargetCaches[];
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
  { targets, caches }: WantedTargets,
  directory: string,
): Promise<BakedImages> {
  const blobs = join(directory, 'blobs');
  await mkdir(join(blobs, 'sha256'), { recursive: true });
  const layouts = targets.map(({ name }) => join(directory, 'targets', name));
  for (const layout of layouts) {
    await mkdir(layout, { recursive: true });
    await symlink(blobs, join(layout, 'blobs'));
  }
  const outputs = targets.map(({ name }, position) => {
    const exporter = { kind: 'oci-layout', directory: layouts[position] ?? '', compression } as const;
    return { target: name, name: `baked:${String(position)}`, exporter };
  });
  const withImage = caches.map(({ target, writes }) => ({ target, cacheTo: writes.withImage }));
  const { steps, unreadCaches } = await tools.buildx.bake(
    bakeArguments(source, platform, outputs, { written: directory, caches: withImage }),
    tools.log.info,
  );
  const builds = caches.flatMap(({ target, writes }) =>
    writes.afterImage.map((cache): CacheBuild => {
      const others = caches.flatMap((other) => (other.target === target ? [] : [{ ...other, cacheTo: [] }]));
      const args = bakeCacheArguments(source, platform, target, [{ target, cacheTo: [cache] }, ...others]);
      return { cache, write: (writer) => tools.buildx.writeCache('bake', args, writer) };
    }),
  );
  const problems = [...new Set([...unreadCaches, ...caches.flatMap(({ writes }) => writes.problems)])];
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
  { targets, caches }: WantedTargets,
  directory: string,
): Promise<BakedImages> {
  const { buildx, log } = tools;
  await using names = await ownNames(tools);
  const outputs = targets.map(({ name: target }, position) => {
    const name = `${names.repository}:${String(position)}`;
    names.add(name);
    return { target, name, exporter: 'engine' } as const;
  });
  const written = caches.map(({ target, writes }) => ({ target, cacheTo: requireClassicWrites(writes) }));
  const problems = new Set(caches.flatMap(({ writes }) => classicProblems(writes)));
  const { steps, unreadCaches } = await buildx.bake(
    bakeArguments(source, platform, outputs, { written: directory, caches: written }),
    log.info,
  );
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
