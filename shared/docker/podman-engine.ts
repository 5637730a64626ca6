import { HandoverError } from '../base/errors.ts';
import { isObject, objectsOf, parseJson, stringOr } from '../base/json.ts';
import { makeTempDir } from '../bytes/files.ts';
import { isDigest } from '../image/digest.ts';
import { imageStores } from '../image/image-store.ts';
import { platformOf } from '../image/platform.ts';
import { registryOf } from '../image/reference.ts';
import { type DockerCli, lastLine, must } from './cli.ts';
import { commandEngine, type Engine, inspectWith, loadInto, requireSupportedEngine, saveFrom } from './engine.ts';
import { type EngineInfo, type InspectedImage, inspectedImage } from './output.ts';

/**
 * Podman as an engine. It has no daemon, so this step removes its temporary files.
 * @param tempRoot folder for them. A load needs up to twice the tarball's size.
 */
export function podmanEngine(cli: DockerCli, tempRoot: string): Engine {
  const common = commandEngine(cli);
  return {
    ...common,
    get forCleanUp() {
      return podmanEngine(cli.forCleanUp, tempRoot);
    },
    nameOf: podmanName,
    info: () => info(cli),
    inspect: (image) => inspectWith(cli, ['image', 'inspect', image], parsePodmanInspect),
    load: async (chunks) => {
      await using temp = await makeTempDir(tempRoot);
      return await loadInto(cli, chunks, temp.path);
    },
    // It only accepts whole tarballs.
    pull: undefined,
    save: (image) => save(cli, tempRoot, image),
    tag: (image, reference) => common.tag(image, podmanName(reference)),
    untag: (reference) => common.untag(podmanName(reference)),
    release: async (reference) => {
      await must(cli.forCleanUp, 'image-missing', ['image', 'untag', podmanName(reference), podmanName(reference)]);
    },
  };
}

async function info(cli: DockerCli): Promise<EngineInfo> {
  const output = await cli.query(['info', '--format', 'json']);
  const parsed = output.exitCode === 0 ? parsePodmanInfo(output.stdout) : undefined;
  if (parsed !== undefined) return requireSupportedEngine(parsed);
  throw new HandoverError(
    'docker-unavailable',
    `Podman fails: ${lastLine(output) || `podman info exited with ${String(output.exitCode)}`}`,
    'Run `podman info` in an earlier step, and fix what it reports.',
  );
}

// The Docker format keeps the config. `oci-archive` would convert it (without the health check), which gives another image.
async function* save(cli: DockerCli, tempRoot: string, image: string): AsyncGenerator<Buffer> {
  await using temp = await makeTempDir(tempRoot);
  yield* saveFrom(cli, ['save', '--format', 'docker-archive', image], temp.path);
}

// Readers of podman's output, where it differs from docker's.

/** Reads `podman info --format json`; undefined for anything else. @internal */
export function parsePodmanInfo(text: string): EngineInfo | undefined {
  const info = parseJson(text);
  if (!isObject(info) || !isObject(info['host'])) return undefined;
  const { host } = info;
  const store = isObject(info['store']) ? info['store'] : {};
  return {
    platform: platformOf(stringOr(host['os'], ''), stringOr(host['arch'], '')),
    imageStore: imageStores.podman,
    dataRoot: stringOr(store['graphRoot'], ''),
    hostName: stringOr(host['hostname'], ''),
  };
}

/** Reads `podman image inspect` of one image; undefined for anything else. Podman omits the `sha256:` of an ID. @internal */
export function parsePodmanInspect(text: string): InspectedImage | undefined {
  const [image] = objectsOf(parseJson(text));
  if (image === undefined || typeof image['Id'] !== 'string') return undefined;
  const digest = `sha256:${image['Id']}`;
  return inspectedImage({ ...image, Id: isDigest(digest) ? digest : image['Id'] });
}

/**
 * Returns a reference in the form of podman's list. One without a registry is under `localhost/`, as in `podman tag`. Image IDs are
 * returned unchanged.
 * @internal
 */
export function podmanName(reference: string): string {
  return registryOf(reference) !== undefined || isDigest(reference) ? reference : `localhost/${reference}`;
}
