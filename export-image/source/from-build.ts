import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildInputs } from '../inputs.ts';
import { type Attestations, isPushedByItsBuild, type PushPlan } from '../plan/push-plan.ts';
import {
  buildArguments,
  type BuildSecret,
  cachesRead,
  type Exporter,
  type PassedSecret,
  withoutGhaCache,
} from '../plan/build-arguments.ts';
import { planCacheWrites } from '../plan/cache.ts';
import { pushFromEngine, type PushState } from '../push.ts';
import { cacheBuilds } from './build-caches.ts';
import { requireBuildPaths } from './given-paths.ts';
import { exportsLayouts, type LayoutRequest, type SourcedImage, type SourceTools } from './from-engine.ts';
import {
  HandoverError,
  invalidInput,
  messageOf,
  type RegistryFailure,
  setupBuildxHint,
} from '../../shared/base/errors.ts';
import { isObject, parseJson } from '../../shared/base/json.ts';
import type { Log } from '../../shared/base/log.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { openFile } from '../../shared/bytes/files.ts';
import type { BuildCommand, BuildOutcome } from '../../shared/docker/buildx.ts';
import { engineTags } from '../../shared/docker/engine-tags.ts';
import { type Digest, isDigest } from '../../shared/image/digest.ts';
import { formatPlatform, type Platform } from '../../shared/image/platform.ts';
import { formatReference, type TaggedReference } from '../../shared/image/reference.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';

export interface BuildRequest {
  readonly build: BuildInputs;
  readonly secrets: readonly BuildSecret[];
  readonly platform: Platform;
  readonly layout: LayoutRequest;
  readonly push: PushPlan | undefined;
  readonly attestations: Attestations;
  /** The image's references for later jobs to push. */
  readonly tags: readonly TaggedReference[];
  /** Whether the steps are checked before anything is pushed. */
  readonly requireCache: boolean;
}

/**
 * Builds the image into an OCI layout: directly from BuildKit if the builder can (four times as fast as its tarball exporter), otherwise
 * through the engine's store and `docker save`. If possible, the same build pushes.
 * @throws HandoverError `invalid-input` for a missing file of a secret, `builder-unsupported`, `build-failed`, `docker-unavailable`
 */
export async function buildIntoLayout(tools: SourceTools, request: BuildRequest): Promise<SourcedImage> {
  const { buildx, log } = tools;
  await requireBuildPaths(request.build);
  const secrets = await writeSecrets(tools.tempDir, request.secrets);
  if (await exportsLayouts(tools, request.build.builder)) return buildAndPush(tools, request, secrets);
  requirePlainImage(request);
  const { build, problems } = withoutRemoteCaches(request.build, tools);
  const idFile = join(tools.tempDir, 'image-id');
  await using held = new AsyncDisposableStack();
  const names = held.use(await engineTags(tools));
  const name = `${names.repository}:built`;
  names.add(name);
  const args = buildArguments(build, [request.platform], [{ kind: 'engine', idFile, name }], secrets);
  const { steps, unreadCaches } = await buildx.build({ name: 'build', args }, log.info);
  const caches = { problems: [...problems, ...missed(unreadCaches, build, log)], builds: [] };
  return { steps, caches, ...(await saveOnce(tools, (await readFile(idFile, 'utf8')).trim(), request, held.move())) };
}

// `docker save` writes one plain image, and `docker push` sends one.
function requirePlainImage({ push, attestations }: BuildRequest): void {
  if (attestations.areWanted) {
    throw new HandoverError(
      'builder-unsupported',
      'The docker driver on the classic image store has no attestations (`provenance`, `sbom`).',
      setupBuildxHint,
    );
  }
  if (push === undefined || push.listedPlatforms.length === 0) return;
  throw new HandoverError(
    'builder-unsupported',
    "The docker driver on the classic image store can't build for the platforms of `push-platforms`: " +
      `${push.listedPlatforms.map(formatPlatform).join(', ')}.`,
    setupBuildxHint,
  );
}

// BuildKit inside an engine with the classic store imports from `registry` and inline caches only, and exports none but inline ones.
function withoutRemoteCaches(
  build: BuildInputs,
  { log, cacheService }: SourceTools,
): { readonly build: BuildInputs; readonly problems: readonly string[] } {
  const { withImage, problems } = planCacheWrites(build.cacheTo, cacheService, false);
  const { caches, asked } = withoutGhaCache(build.cacheFrom);
  if (caches.length < build.cacheFrom.length) {
    const tell = asked ? log.notice : log.info;
    tell(
      `The docker driver on the classic image store can't read cache-from type=gha: it is left out. ${setupBuildxHint}`,
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
      'Correct its path in `secret-files`; it is relative to the workspace. A step before this one has to write the file.',
    );
  });
  await file.close();
}

/** @param names the image's temporary tag, removed at the end */
async function saveOnce(
  tools: SourceTools,
  imageId: string,
  { layout, push }: BuildRequest,
  names: AsyncDisposableStack,
): Promise<Omit<SourcedImage, 'steps'>> {
  await using kept = names;
  const replaced = await writeOciLayout(tools.engine.save(imageId), layout.directory, layout.compression.saved);
  if (push !== undefined) {
    return { replaced, push: { kind: 'to-do', push: () => pushFromEngine(tools, imageId, push) }, kept: kept.move() };
  }
  // Removed during the upload of the last layer.
  const removed = kept.disposeAsync();
  removed.catch(() => undefined); // rethrown on dispose
  return { replaced, kept: { [Symbol.asyncDispose]: () => removed } };
}

type Build = (
  build: BuildInputs,
  platforms: readonly Platform[],
  exporters: readonly Exporter[],
) => Promise<BuildOutcome>;

/**
 * Builds into the OCI layout, and pushes with the same build where that is planned. If only the push fails, the build is repeated from its
 * cache for the layout alone.
 * @throws HandoverError `build-failed`
 */
async function buildAndPush(
  tools: SourceTools,
  request: BuildRequest,
  secrets: readonly PassedSecret[],
): Promise<SourcedImage> {
  const { platform, push, attestations } = request;
  const writes = planCacheWrites(request.build.cacheTo, tools.cacheService, true);
  const build = { ...request.build, cacheTo: writes.withImage };
  const references = (push?.references ?? request.tags).map(formatReference);
  const commandOf = (...[inputs, platforms, exporters]: Parameters<Build>): BuildCommand => ({
    name: 'build',
    args: buildArguments(inputs, platforms, exporters, secrets),
  });
  const run: Build = (inputs, platforms, exporters) =>
    tools.buildx.build(commandOf(inputs, platforms, exporters), tools.log.info, push === undefined ? [] : references);
  const several = push !== undefined && push.listedPlatforms.length > 0;
  const {
    directory,
    compression: { built: compression },
  } = request.layout;
  const attested = { attestations, references };
  const layout: Exporter = {
    ...{ kind: 'oci-layout', directory, compression },
    ...(push === undefined ? { attested } : {}),
  };
  const metadataFile = join(tools.tempDir, 'pushed.json');
  const registry = { kind: 'registry', metadataFile, compression, attested } as const;
  const pushes = isPushedByItsBuild(request);
  const { steps, pushFailure, unreadCaches } = await run(build, [platform], pushes ? [layout, registry] : [layout]);
  const stages = { steps, cacheFrom: cachesRead(build.cacheFrom) };
  const cacheCommand = (line: string): BuildCommand =>
    commandOf({ ...outOfCache(build), cacheTo: [line] }, several ? push.listedPlatforms : [platform], [
      { kind: 'nothing' },
    ]);
  const builds = cacheBuilds(tools, writes.afterImage, { layout: directory, commandOf: cacheCommand, stages });
  const caches = { problems: [...missed(unreadCaches, build, tools.log), ...writes.problems], builds };
  if (push === undefined) return { steps, caches };
  const later = (failed?: RegistryFailure): PushState => ({
    kind: 'to-do',
    push: () => tools.registry.attempt(() => pushOutOfCache(run, build, push, platform, registry), failed),
  });
  if (!pushes) return { steps, caches, push: later() };
  if (pushFailure === undefined) {
    const digest = await pushedDigest(registry.metadataFile);
    return { steps, caches, push: digest === undefined ? later() : { kind: 'done', digest } };
  }
  tools.log.info('The image is built, but not pushed: it is handed over first.');
  await rm(directory, { recursive: true, force: true });
  await run(outOfCache(build), [platform], [layout]);
  return { steps, caches, push: later(pushFailure) };
}

// A rebuild, or a newer base image, would give another image.
function outOfCache(build: BuildInputs): BuildInputs {
  return { ...build, noCache: false, pull: false };
}

async function pushOutOfCache(
  run: Build,
  build: BuildInputs,
  push: PushPlan,
  platform: Platform,
  registry: Extract<Exporter, { kind: 'registry' }>,
): Promise<Digest> {
  const several = push.listedPlatforms.length > 0;
  // The first build has written the cache, except for the other platforms.
  const inputs = { ...outOfCache(build), cacheTo: several ? build.cacheTo : [] };
  const { pushFailure } = await run(inputs, several ? push.listedPlatforms : [platform], [registry]);
  if (pushFailure !== undefined) throw pushFailure;
  const digest = await pushedDigest(registry.metadataFile);
  if (digest !== undefined) return digest;
  throw new HandoverError(
    'builder-unsupported',
    'docker buildx build pushed the image, but reported no digest.',
    'Use a newer builder: update docker/setup-buildx-action.',
  );
}

/** Reads the digest of the pushed manifest or manifest list from buildx's `--metadata-file`. */
async function pushedDigest(metadataFile: string): Promise<Digest | undefined> {
  const metadata = parseJson(await readFile(metadataFile, 'utf8'));
  const digest = isObject(metadata) ? metadata['containerimage.digest'] : undefined;
  return isDigest(digest) ? digest : undefined;
}
