import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildInputs } from '../inputs.ts';
import { buildArguments, type Exporter, type PassedSecret } from '../plan/build-arguments.ts';
import type { PushPlan } from '../plan/push-plan.ts';
import type { PushWay } from '../push.ts';
import type { BuildRequest, SourcedImage, SourceTools } from './image-source.ts';
import { HandoverError, type RegistryFailure } from '../../shared/base/errors.ts';
import { isObject, parseJson } from '../../shared/base/json.ts';
import type { BuildOutcome } from '../../shared/docker/buildx.ts';
import { type Digest, isDigest } from '../../shared/image/digest.ts';
import type { Platform } from '../../shared/image/platform.ts';
import { formatReference } from '../../shared/image/reference.ts';

type Build = (
  build: BuildInputs,
  platforms: readonly Platform[],
  exporters: readonly Exporter[],
) => Promise<BuildOutcome>;

/**
 * Builds into the OCI layout, and pushes in the same build where that is one image and nothing is to be judged first.
 * When only the push fails, the same build is done again for the layout alone, out of its cache.
 * @throws HandoverError `build-failed`
 */
export async function buildAndPush(
  tools: SourceTools,
  request: BuildRequest,
  secrets: readonly PassedSecret[],
): Promise<SourcedImage> {
  const { build, platform, push } = request;
  const references = push?.references.map(formatReference) ?? [];
  const run: Build = (inputs, platforms, exporters) =>
    tools.buildx.build(buildArguments(inputs, platforms, exporters, secrets), tools.log.info, references);
  const layout: Exporter = { kind: 'oci-layout', ...request.layout };
  if (push === undefined) return { steps: (await run(build, [platform], [layout])).steps };

  const metadataFile = join(tools.tempDir, 'pushed.json');
  const registry = { kind: 'registry', references, metadataFile, compression: request.layout.compression } as const;
  const later = (failed?: RegistryFailure): PushWay => ({
    kind: 'to-do',
    push: () => tools.registry.attempt(() => pushOutOfCache(run, build, push, platform, registry), failed),
  });
  if (push.listedPlatforms.length > 0 || request.requireCache) {
    return { steps: (await run(build, [platform], [layout])).steps, push: later() };
  }
  const { steps, pushFailure } = await run(build, [platform], [layout, registry]);
  if (pushFailure === undefined) {
    const digest = await pushedDigest(registry.metadataFile);
    return { steps, push: digest === undefined ? later() : { kind: 'done', digest } };
  }
  tools.log.info('The image is built, but not pushed: it is handed over first.');
  await rm(request.layout.directory, { recursive: true, force: true });
  await run(outOfCache(build), [platform], [layout]);
  return { steps, push: later(pushFailure) };
}

// What was built once is not to be built anew, nor on another base: it would be another image.
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
  // The handover's build has written the cache, but for the further platforms.
  const inputs = { ...outOfCache(build), cacheTo: several ? build.cacheTo : [] };
  const { pushFailure } = await run(inputs, several ? push.listedPlatforms : [platform], [registry]);
  if (pushFailure !== undefined) throw pushFailure;
  const digest = await pushedDigest(registry.metadataFile);
  if (digest !== undefined) return digest;
  throw new HandoverError(
    'builder-unsupported',
    'docker buildx build pushed the image, but told no digest of it.',
    'Use a newer builder: update docker/setup-buildx-action.',
  );
}

/** Reads what buildx tells of a push (`--metadata-file`): the manifest's digest, or the manifest list's. */
async function pushedDigest(metadataFile: string): Promise<Digest | undefined> {
  const metadata = parseJson(await readFile(metadataFile, 'utf8'));
  const digest = isObject(metadata) ? metadata['containerimage.digest'] : undefined;
  return isDigest(digest) ? digest : undefined;
}
