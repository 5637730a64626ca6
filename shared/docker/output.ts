import {
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  parseJson,
  stringMapOf,
  stringOr,
  stringsOf,
} from '../base/json.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import { dockerStore, type ImageStore, imageStores } from '../image/image-store.ts';
import { type Platform, platformIn, platformOf, samePlatform } from '../image/platform.ts';

// Pure readers of what docker, podman and ctr print.

export interface EngineInfo {
  readonly platform: Platform;
  readonly imageStore: ImageStore;
  /** The engine's data folder, on the engine's machine. */
  readonly dataRoot: string;
  /** Name of the engine's machine. */
  readonly hostName: string;
}

/** An image in one engine, as in `docker image inspect`. */
export interface InspectedImage {
  /** The image ID in this engine's store. */
  readonly imageId: string;
  readonly repoTags: readonly string[];
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
  readonly labels: Readonly<Record<string, string>>;
  /** Inspect's `Config`, which containers use. */
  readonly config: JsonObject;
  readonly created?: string | undefined;
  /** The config digest in the engine's own reading of the manifest; undefined if the engine doesn't return it. */
  readonly configDigest?: Digest | undefined;
  /** Whether the engine has all of its content, as its manifest names it; undefined if that is unknown. */
  readonly isWhole?: boolean | undefined;
}

/** Reads `docker info --format '{{json .}}'`, or the API's SystemInfo; undefined without an engine. */
export function parseInfo(text: string): EngineInfo | undefined {
  const info = parseJson(text);
  if (!isObject(info)) return undefined;
  if (stringOr(info['ServerVersion'], '') === '') return undefined;
  const status = JSON.stringify(info['DriverStatus'] ?? []);
  return {
    platform: platformOf(stringOr(info['OSType'], ''), stringOr(info['Architecture'], '')),
    imageStore: dockerStore(status),
    dataRoot: stringOr(info['DockerRootDir'], ''),
    hostName: stringOr(info['Name'], ''),
  };
}

/** Reads `docker image inspect --format '{{json .}}'` of one image, or the API's ImageInspect; undefined for anything else. */
export function parseInspect(text: string): InspectedImage | undefined {
  const image = parseJson(text);
  return isObject(image) ? inspectedImage(image) : undefined;
}

/** Returns whether the engine has all content of an image for a platform; undefined without a list of manifests. */
function hasAll(manifests: unknown, platform: Platform): boolean | undefined {
  if (!Array.isArray(manifests)) return undefined;
  const available = manifests.flatMap((manifest: unknown) => {
    if (!isObject(manifest) || !isObject(manifest['ImageData'])) return [];
    const { Platform: found } = manifest['ImageData'];
    return isObject(found) && samePlatform(platform, platformIn(found)) ? [manifest['Available'] === true] : [];
  });
  return available.includes(true);
}

/** The same for parsed JSON. */
function inspectedImage(image: JsonObject): InspectedImage | undefined {
  if (typeof image['Id'] !== 'string') return undefined;
  const rootFs = objectOf(image['RootFS']);
  const config = objectOf(image['Config']);
  const platform = platformOf(
    stringOr(image['Os'], ''),
    stringOr(image['Architecture'], ''),
    stringOr(image['Variant'], undefined),
  );
  return {
    imageId: image['Id'],
    repoTags: stringsOf(image['RepoTags']),
    platform,
    diffIds: stringsOf(rootFs['Layers']).filter(isDigest),
    labels: stringMapOf(config['Labels']),
    config,
    created: stringOr(image['Created'], undefined),
    // The containerd store returns a descriptor since Docker 28. Since 29.1.2 it also returns one for an image whose layers are only
    // unpacked for another manifest (moby 2e3a23c8ec). It only lists manifests over its API, since Docker 28.
    isWhole: image['Descriptor'] === undefined ? true : hasAll(image['Manifests'], platform),
  };
}

/**
 * Reads the references and image IDs that `docker load` prints. With the containerd store, a failed unpack of a stored image is only
 * printed, and load exits with 0 (moby daemon/containerd/image_exporter.go).
 */
export function parseLoadOutput(text: string) {
  const lines = text.split(/[\r\n]+/);
  const loaded = lines.flatMap((line) => /^Loaded image(?: ID)?: (.+)$/.exec(line.trim())?.[1] ?? []);
  return { loaded, unpackError: lines.find((line) => line.includes('Error unpacking image'))?.trim() };
}

/** For `image ls --digests --format`. */
export const listingFormat = '{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}';

/** A name of an image in an engine. */
export interface ListedImage {
  readonly reference: string | undefined;
  readonly imageId: string;
}

/** Reads `image ls` in that format. An image that was pulled by digest may have no tag. */
export function parseListing(text: string): readonly ListedImage[] {
  return text.split('\n').flatMap((line) => {
    const [tagged = '', digest = '', imageId] = line.trim().split(' ');
    if (imageId === undefined) return [];
    const repository = tagged.slice(0, tagged.lastIndexOf(':'));
    if (!tagged.includes('<none>')) return [{ reference: tagged, imageId }];
    return [
      { reference: repository === '<none>' || !isDigest(digest) ? undefined : `${repository}@${digest}`, imageId },
    ];
  });
}

/** Reads the API's list of images, with the names that `image ls` would show; undefined for anything else. */
export function parseImages(text: string): readonly ListedImage[] | undefined {
  const images = parseJson(text);
  if (!Array.isArray(images)) return undefined;
  return objectsOf(images).flatMap((image) => {
    const imageId = stringOr(image['Id'], '');
    const tags = stringsOf(image['RepoTags']).filter((name) => !name.startsWith('<none>'));
    const repositories = new Set(tags.map((name) => name.slice(0, name.lastIndexOf(':'))));
    // A containerd store creates a name by digest for each tag.
    const pinned = stringsOf(image['RepoDigests']).filter((name) => {
      const [repository = ''] = name.split('@');
      return repository !== '<none>' && !repositories.has(repository);
    });
    const names: readonly (string | undefined)[] = [...tags, ...pinned];
    return (names.length === 0 ? [undefined] : names).map((reference) => ({ reference, imageId }));
  });
}

/** Returns whether docker's answer means that the image doesn't exist. */
export function saysNoSuchImage(stderr: string): boolean {
  return /no such image|image not known/i.test(stderr);
}

/** Reads the digest in the last line of `docker push`: `latest: digest: sha256:… size: 1234`. */
export function parsePush(text: string): Digest | undefined {
  const digest = /: digest: (\S+) size: \d+\s*$/.exec(text)?.[1];
  return isDigest(digest) ? digest : undefined;
}

/** Reads `podman info --format json`; undefined for anything else. */
export function parsePodmanInfo(text: string): EngineInfo | undefined {
  const info = parseJson(text);
  if (!isObject(info) || !isObject(info['host'])) return undefined;
  const { host } = info;
  const store = objectOf(info['store']);
  return {
    platform: platformOf(stringOr(host['os'], ''), stringOr(host['arch'], '')),
    imageStore: imageStores.podman,
    dataRoot: stringOr(store['graphRoot'], ''),
    hostName: stringOr(host['hostname'], ''),
  };
}

/** Reads `podman image inspect` of one image; undefined for anything else. Podman omits the `sha256:` of an ID. */
export function parsePodmanInspect(text: string): InspectedImage | undefined {
  const [image] = objectsOf(parseJson(text));
  if (image === undefined || typeof image['Id'] !== 'string') return undefined;
  const digest = `sha256:${image['Id']}`;
  return inspectedImage({ ...image, Id: isDigest(digest) ? digest : image['Id'] });
}

/** An image in containerd's list: a name, and its manifest or index. */
export interface CtrImage {
  readonly name: string;
  readonly target: Digest;
}

/** Reads `ctr images ls` and `ctr images check` (containerd, cmd/ctr/commands/images/images.go: REF, TYPE, DIGEST, …). */
export function parseCtrImages(text: string): readonly CtrImage[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', , target] = line.trim().split(/\s+/);
    return isDigest(target) ? [{ name, target }] : [];
  });
}

/** Reads `ctr images check`: whether all of an image's content is there (STATUS `complete (3/3)`). */
export function parseCtrCheck(text: string, name: string): boolean {
  const line = text.split('\n').find((one) => one.split(/\s/)[0] === name);
  return /\scomplete \((\d+)\/\1\)\s/.test(line ?? '');
}

/**
 * Reads `ctr content ls` of one manifest: the config digest that containerd itself read from it, in the label that keeps the config
 * (core/images/handlers.go, SetChildrenMappedLabels; core/images/mediatypes.go, ChildGCLabels).
 * @returns undefined when there is no such label
 */
export function parseCtrConfigDigest(text: string, manifest: Digest): Digest | undefined {
  const line = text.split('\n').find((one) => one.split(/\s/)[0] === manifest);
  const digest = /\bcontainerd\.io\/gc\.ref\.content\.config=([^,\s]+)/.exec(line ?? '')?.[1];
  return isDigest(digest) ? digest : undefined;
}

/** Reads the snapshotter of Kubernetes' containers from `containerd config dump` of containerd 1 or 2. Undefined if there is none. */
export function parseSnapshotter(text: string): string | undefined {
  let isImages = false;
  for (const line of text.split('\n').map((one) => one.trim())) {
    if (line.startsWith('[')) {
      isImages = /io\.containerd\.grpc\.v1\.cri['"]\.containerd\]$|io\.containerd\.cri\.v1\.images['"]\]$/.test(line);
    }
    const found = isImages ? /^snapshotter = ['"]([\w.-]+)['"]$/.exec(line)?.[1] : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
