import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildInputs } from '../inputs.ts';
import { buildArguments, type BuildSecret, type Exporter, type PassedSecret } from '../plan/build-arguments.ts';
import { cachesRead, planCacheWrites, withoutGhaCache } from '../plan/cache.ts';
import { type BuildPlan, isPushedByItsBuild } from '../plan/plan.ts';
import type { PushPlan } from '../plan/push-plan.ts';
import { pinned, pushFromEngine } from '../push.ts';
import type { LayoutTools } from '../tools.ts';
import { cacheWriting } from './build-caches.ts';
import { exportsLayouts, type FilledLayout, type GivenPath, requireNoPipes } from './from-engine.ts';
import { HandoverError, invalidInput, messageOf, setupBuildxHint } from '../../shared/base/errors.ts';
import { isObject, parseJson } from '../../shared/base/json.ts';
import type { Log } from '../../shared/base/log.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { openFile } from '../../shared/bytes/files.ts';
import type { BuildCommand, BuildOutcome } from '../../shared/docker/buildx.ts';
import { engineTags } from '../../shared/docker/engine-tags.ts';
import { isDigest } from '../../shared/image/digest.ts';
import { formatPlatform, type Platform } from '../../shared/image/platform.ts';
import { formatReference, type PinnedReference } from '../../shared/image/reference.ts';
import type { ReplacedLayers } from '../../shared/layout/read-layout.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';

/** A finished build. Its image can be read from the OCI layout. */
interface Built extends Omit<FilledLayout, 'images' | 'attestations'> {
  /** Layers that were compressed during a save. */
  readonly replaced?: ReplacedLayers;
}

/**
 * Builds the image into an OCI layout. If the builder can, BuildKit writes it directly (four times as fast as its tarball exporter).
 * Otherwise, it comes from the engine's store through `docker save`. If possible, the same build also pushes.
 * @throws HandoverError `invalid-input` for a missing secret file, `builder-unsupported`, `build-failed`, `docker-unavailable`
 */
export async function buildIntoLayout(tools: LayoutTools, plan: BuildPlan): Promise<Built> {
  const { buildx, engine, kept, log, tempDir } = tools;
  const { push, source } = plan;
  await requireNoPipes(pathsOf(source.build));
  const secrets = await writeSecrets(tempDir, source.secrets);
  if (await exportsLayouts(tools, source.build.builder)) return buildAndPush(tools, plan, secrets);
  requirePlainImage(plan);
  const { build, problems } = withoutRemoteCaches(source.build, tools);
  const idFile = join(tempDir, 'image-id');
  await using held = new AsyncDisposableStack();
  const names = held.use(await engineTags(tools));
  const name = `${names.repository}:built`;
  names.add(name);
  const args = buildArguments(build, [plan.platform], [{ kind: 'engine', idFile, name }], secrets);
  const { steps, unreadCaches } = await buildx.build({ name: 'build', args }, log.info);
  const id = (await readFile(idFile, 'utf8')).trim();
  const replaced = await writeOciLayout(engine.save(id), tools.layout, plan.compression.saved);
  const caches = cacheWriting(tools, [], [...problems, ...missed(unreadCaches, build, log)]);
  const tag = kept.use(held.move());
  if (push !== undefined) return { steps, caches, replaced, push: () => pushFromEngine(tools, id, push) };
  // The temporary tag is removed while the last layer is uploaded.
  const removed = tag.disposeAsync();
  removed.catch(() => undefined); // rethrown on dispose
  kept.defer(() => removed);
  return { steps, caches, replaced };
}

function pathsOf({ context, file, buildContexts, ssh }: BuildInputs): readonly GivenPath[] {
  const valueOf = (item: string): string => item.slice(item.indexOf('=') + 1);
  const files = file === undefined ? [] : [file, join(context, file)];
  return [
    ['context', context],
    ...files.map((path) => ['file', path] as const),
    ...buildContexts.map((item) => ['build-contexts', layoutIndex(valueOf(item))] as const),
    ...ssh.map((item) => ['ssh', valueOf(item)] as const),
  ];
}

// buildx opens the index of a layout.
function layoutIndex(context: string): string {
  const layout = /^oci-layout:\/\/([^@:]+)/.exec(context)?.[1];
  return layout === undefined ? context : join(layout, 'index.json');
}

// `docker save` and `docker push` handle one platform, without attestations.
function requirePlainImage({ push, attestations }: BuildPlan): void {
  const listed = push?.listedPlatforms ?? [];
  if (!attestations.areWanted && listed.length === 0) return;
  const lack = attestations.areWanted
    ? 'has no attestations (`provenance`, `sbom`)'
    : `can't build for the platforms of \`push-platforms\`: ${listed.map(formatPlatform).join(', ')}`;
  throw new HandoverError(
    'builder-unsupported',
    `The docker driver on the classic image store ${lack}.`,
    setupBuildxHint,
  );
}

// BuildKit in an engine with the classic store reads only registry and inline caches, and writes only inline ones.
function withoutRemoteCaches(
  build: BuildInputs,
  { log, cacheService }: LayoutTools,
): { readonly build: BuildInputs; readonly problems: readonly string[] } {
  const { withImage, problems } = planCacheWrites(build.cacheTo, cacheService, false);
  const { caches, asked } = withoutGhaCache(build.cacheFrom);
  if (caches.length < build.cacheFrom.length) {
    const tell = asked ? log.notice : log.info;
    tell(
      `The docker driver on the classic image store can't read cache-from type=gha, so it is ignored. ${setupBuildxHint}`,
    );
  }
  return { build: { ...build, cacheFrom: caches, cacheTo: withImage }, problems };
}

/** Returns the unread caches that deserve a notice. The default Actions cache is optional, so it is only logged. */
function missed(unread: readonly string[], { cacheFrom }: BuildInputs, log: Log): readonly string[] {
  const { asked } = withoutGhaCache(cacheFrom);
  const isMissed = (problem: string): boolean => asked || !problem.startsWith('type=gha ');
  for (const problem of unread) if (!isMissed(problem)) log.info(problem);
  return unread.filter(isMissed);
}

// Each value is written to a separate file.
async function writeSecrets(tempDir: string, secrets: readonly BuildSecret[]): Promise<readonly PassedSecret[]> {
  return Promise.all(
    secrets.map(async (secret, position) => {
      if (secret.from === 'src') await requireSecretFile(secret);
      if (secret.from !== 'value') return secret;
      const place = join(tempDir, `secret-${String(position)}`);
      await writeFile(place, secret.value, { mode: 0o600 });
      return { id: secret.id, from: 'src', place } as const;
    }),
  );
}

async function requireSecretFile({ id, place }: PassedSecret): Promise<void> {
  const file = await openFile(place).catch((error: unknown) => {
    throw invalidInput(
      `The file of the secret "${quoteForeign(id)}" is "${quoteForeign(place)}", which can't be read: ${messageOf(error)}.`,
      'Correct its path in `secret-files`; it is relative to the workspace. An earlier step must write the file.',
    );
  });
  await file.close();
}

/**
 * Builds into the OCI layout, and also pushes from the same build if that is planned. If only the push fails, the build is repeated from
 * its cache, for the layout only.
 * @throws HandoverError `build-failed`
 */
async function buildAndPush(tools: LayoutTools, plan: BuildPlan, secrets: readonly PassedSecret[]): Promise<Built> {
  const { buildx, cacheService, layout: directory, log, registry, tempDir } = tools;
  const { platform, push, attestations, source } = plan;
  const writes = planCacheWrites(source.build.cacheTo, cacheService, true);
  const build = { ...source.build, cacheTo: writes.withImage };
  const references = (push?.references ?? plan.tags).map(formatReference);
  const listed = push?.listedPlatforms ?? [];
  const pushedPlatforms = listed.length > 0 ? listed : [platform];
  const command = (
    inputs: BuildInputs,
    platforms: readonly Platform[],
    exporters: readonly Exporter[],
  ): BuildCommand => ({ name: 'build', args: buildArguments(inputs, platforms, exporters, secrets) });
  const run = (...request: Parameters<typeof command>): Promise<BuildOutcome> =>
    buildx.build(command(...request), log.info, push === undefined ? [] : references);
  const attested = { attestations, references };
  const compression = plan.compression.built;
  const layout: Exporter = {
    ...{ kind: 'oci-layout', directory, compression },
    ...(push === undefined ? { attested } : {}),
  };
  const metadataFile = join(tempDir, 'pushed.json');
  const pushed: Exporter = { kind: 'registry', metadataFile, compression, attested };
  const pushes = isPushedByItsBuild(plan);
  const { steps, pushFailure, unreadCaches } = await run(build, [platform], pushes ? [layout, pushed] : [layout]);
  const stages = { steps, cacheFrom: cachesRead(build.cacheFrom) };
  const commandOf = (line: string): BuildCommand =>
    command({ ...outOfCache(build), cacheTo: [line] }, pushedPlatforms, [{ kind: 'nothing' }]);
  const caches = cacheWriting(
    tools,
    writes.afterImage.map((line) => ({ line, commandOf, stages })),
    [...missed(unreadCaches, build, log), ...writes.problems],
  );
  if (push === undefined) return { steps, caches };
  // The first build has written the caches, except those of the other platforms.
  const again = { ...outOfCache(build), cacheTo: listed.length > 0 ? build.cacheTo : [] };
  const pushLater = (): Promise<PinnedReference> =>
    registry.attempt(async () => {
      const outcome = await run(again, pushedPlatforms, [pushed]);
      if (outcome.pushFailure !== undefined) throw outcome.pushFailure;
      return (await readPushed(metadataFile, push)) ?? noDigest();
    }, pushFailure);
  if (pushes && pushFailure === undefined)
    return { steps, caches, push: (await readPushed(metadataFile, push)) ?? pushLater };
  if (pushFailure !== undefined) {
    log.info('The image was built, but not pushed. It is handed over first.');
    await rm(directory, { recursive: true, force: true });
    await run(outOfCache(build), [platform], [layout]);
  }
  return { steps, caches, push: pushLater };
}

// Building without a cache, or on a newer base image, would produce a different image.
function outOfCache(build: BuildInputs): BuildInputs {
  return { ...build, noCache: false, pull: false };
}

function noDigest(): never {
  throw new HandoverError(
    'builder-unsupported',
    'docker buildx build pushed the image, but reported no digest.',
    'Use a newer builder: update docker/setup-buildx-action.',
  );
}

/** Reads the digest of the pushed manifest or manifest list from buildx's `--metadata-file`. */
async function readPushed(metadataFile: string, push: PushPlan): Promise<PinnedReference | undefined> {
  const metadata = parseJson(await readFile(metadataFile, 'utf8'));
  const digest = isObject(metadata) ? metadata['containerimage.digest'] : undefined;
  return isDigest(digest) ? pinned(push, digest) : undefined;
}
