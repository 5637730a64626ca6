import { access, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildInputs } from '../inputs.ts';
import { buildArguments, type BuildSecret, type PassedSecret, withoutGhaCache } from '../plan/build-arguments.ts';
import type { PushPlan } from '../plan/push-plan.ts';
import { pushFromEngine, type PushWay } from '../push.ts';
import { HandoverError, messageOf } from '../../shared/base/errors.ts';
import type { Log } from '../../shared/base/log.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import type { BuildStep } from '../../shared/docker/build-progress.ts';
import { type Buildx } from '../../shared/docker/buildx.ts';
import { setupBuildxHint } from '../../shared/base/errors.ts';
import type { Engine } from '../../shared/docker/engine.ts';
import type { Registry } from '../../shared/docker/registry.ts';
import type { Digest } from '../../shared/image/digest.ts';
import { formatPlatform, type Platform } from '../../shared/image/platform.ts';
import { isImageId } from '../../shared/image/reference.ts';
import type { LayerCompression } from '../../shared/layout/compress-layer.ts';
import type { ReplacedLayer } from '../../shared/layout/read-layout.ts';
import { writeOciLayout } from '../../shared/layout/write-layout.ts';
import { buildAndPush } from './from-build.ts';

/**
 * Local references that a reader may have meant: the same repository under another tag, or the same text in another
 * case. Both sides are as docker prints them.
 */
export function nearMisses(wanted: string, local: readonly string[]): readonly string[] {
  const repository = (reference: string): string => reference.slice(0, tagColon(reference)).toLowerCase();
  const last = (reference: string): string => repository(reference).split('/').at(-1) ?? '';
  const same = local.filter((reference) => repository(reference) === repository(wanted));
  return same.length > 0 ? same : local.filter((reference) => last(reference) === last(wanted));
}

function tagColon(reference: string): number {
  const colon = reference.lastIndexOf(':');
  return colon > reference.lastIndexOf('/') ? colon : reference.length;
}

/** What getting an image into an OCI layout needs. */
export interface SourceTools {
  readonly engine: Engine;
  readonly buildx: Buildx;
  readonly registry: Registry;
  readonly log: Log;
  /** A folder of our own for layouts and secrets. */
  readonly tempDir: string;
}

export interface BuildRequest {
  readonly build: BuildInputs;
  readonly secrets: readonly BuildSecret[];
  readonly platform: Platform;
  readonly layout: LayoutRequest;
  readonly push: PushPlan | undefined;
  /** Whether the steps are judged before anything is pushed. */
  readonly requireCache: boolean;
}

/** The OCI layout to write, and how new layers are stored in it. */
export interface LayoutRequest {
  readonly directory: string;
  readonly compression: LayerCompression;
}

/** An image that is in its OCI layout. */
export interface SourcedImage {
  /** The Dockerfile's steps. */
  readonly steps: readonly BuildStep[];
  /** Layers that were compressed on the way. */
  readonly replaced?: ReadonlyMap<Digest, ReplacedLayer>;
  readonly push?: PushWay;
  /** What a push still needs, or is being removed; to be disposed of at the end. */
  readonly kept?: AsyncDisposable;
}

/**
 * Builds the image into an OCI layout: straight from BuildKit where the builder can (field-notes M1: four times as
 * fast as its tarball exporter), else through the engine's store and `docker save`. Where it can, it pushes in the
 * same build.
 * @throws HandoverError `invalid-input` for a secret's file that isn't there, `builder-unsupported`, `build-failed`, `docker-unavailable`
 */
export async function buildIntoLayout(tools: SourceTools, request: BuildRequest): Promise<SourcedImage> {
  const { buildx, log } = tools;
  const secrets = await writeSecrets(tools.tempDir, request.secrets);
  // Asked beside the builder: each question takes a tenth of a second. A builder of its own needs no answer.
  const info = tools.engine.info();
  info.catch(() => undefined);
  const builder = await buildx.builder(request.build.builder);
  const direct = builder.driver !== 'docker' || (await info).imageStore === 'containerd';
  log.info(`Builder ${builder.name} (driver ${builder.driver}): ${direct ? 'OCI layout' : 'load and docker save'}`);
  if (direct) return buildAndPush(tools, request, secrets);
  requireOnePlatform(request.push);
  const build = withoutRemoteCaches(request.build, log);
  const idFile = join(tools.tempDir, 'image-id');
  const args = buildArguments(build, [request.platform], [{ kind: 'engine', idFile }], secrets);
  const { steps } = await buildx.build(args, log.info);
  return { steps, ...(await saveOnce(tools, (await readFile(idFile, 'utf8')).trim(), request)) };
}

function requireOnePlatform(push: PushPlan | undefined): void {
  if (push === undefined || push.listedPlatforms.length === 0) return;
  throw new HandoverError(
    'builder-unsupported',
    "The docker driver on the classic image store can't build for the platforms of `push-platforms`: " +
      `${push.listedPlatforms.map(formatPlatform).join(', ')}.`,
    setupBuildxHint,
  );
}

// BuildKit inside an engine with the classic store imports from `registry` and inline caches only, and exports none.
function withoutRemoteCaches(build: BuildInputs, log: Log): BuildInputs {
  if (build.cacheTo.length > 0) {
    throw new HandoverError(
      'builder-unsupported',
      `The docker driver on the classic image store can't write a build cache (cache-to: ${quoteForeign(build.cacheTo.join(' '))}).`,
      `${setupBuildxHint} Or remove \`cache-to\`.`,
    );
  }
  const { caches, asked } = withoutGhaCache(build.cacheFrom);
  if (caches.length < build.cacheFrom.length) {
    const tell = asked ? log.notice : log.info;
    tell(
      `The docker driver on the classic image store can't read cache-from type=gha: it is left out. ${setupBuildxHint}`,
    );
  }
  return { ...build, cacheFrom: caches };
}

// Each value in a file of its own, byte for byte.
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
  await access(place).catch((error: unknown) => {
    throw new HandoverError(
      'invalid-input',
      `The file of the secret "${quoteForeign(id)}" is "${quoteForeign(place)}", which can't be read: ${messageOf(error)}.`,
      'Correct its path in `secret-files`; it is relative to the workspace. A step before this one has to write the file.',
    );
  });
}

// The build gave the image no tag: removing it by ID afterwards leaves the engine as it was.
async function saveOnce(
  tools: SourceTools,
  imageId: string,
  { layout, push }: BuildRequest,
): Promise<Omit<SourcedImage, 'steps'>> {
  await using kept = new AsyncDisposableStack();
  kept.defer(() => removeUntagged(tools, imageId));
  const replaced = await writeOciLayout(tools.engine.save(imageId), layout.directory, layout.compression);
  if (push !== undefined) {
    return { replaced, push: { kind: 'to-do', push: () => pushFromEngine(tools, imageId, push) }, kept: kept.move() };
  }
  // Removed while the last layer is uploaded.
  const removed = kept.disposeAsync();
  removed.catch(() => undefined); // thrown when it is disposed of
  return { replaced, kept: { [Symbol.asyncDispose]: () => removed } };
}

async function removeUntagged({ engine, log }: SourceTools, imageId: string): Promise<void> {
  const image = await engine.inspect(imageId);
  if (image?.repoTags.length !== 0) return;
  await engine.untag(imageId).catch((error: unknown) => {
    log.info(`The built image stays in the engine: ${String(error)}`);
  });
}

/**
 * Saves an image of this engine into an OCI layout.
 * @param name a reference with a tag or digest, or an image ID
 * @throws HandoverError `image-not-found`, listing what is there and what comes near
 */
export async function saveIntoLayout(
  tools: SourceTools,
  name: string,
  layout: LayoutRequest,
  push: PushPlan | undefined,
): Promise<SourcedImage> {
  const found = await tools.engine.inspect(name);
  if (found === undefined) throw await notFound(tools.engine, name);
  tools.log.info(`Found ${name} (${found.imageId})`);
  const image = isImageId(name) ? found.imageId : name;
  const replaced = await writeOciLayout(tools.engine.save(image), layout.directory, layout.compression);
  if (push === undefined) return { steps: [], replaced };
  return { steps: [], replaced, push: { kind: 'to-do', push: () => pushFromEngine(tools, image, push) } };
}

async function notFound(engine: Engine, name: string): Promise<HandoverError> {
  const local = [...(await engine.references()).keys()];
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
    return 'Give the reference instead: an image has another ID in each engine and image store, and a build without `load: true` leaves none here.';
  }
  return near.length > 0
    ? 'Correct the tag in `source-image`, or build with that tag.'
    : 'Build it in this job first, with `load: true` if docker/build-push-action builds it.';
}
