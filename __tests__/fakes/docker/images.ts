import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { extract } from 'tar-stream';
import { podmanName } from '../../../shared/docker/engine.ts';
import { emptyState, type FakeImage, type FakeState } from './state.ts';

/** An engine error, with the status and message of its API (moby, daemon and errdefs). */
export class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export function noSuchImage(name: string): Refusal {
  return new Refusal(404, `No such image: ${name}`);
}

/** The images of a fake engine, used by its API and by the docker and podman commands. */
export class FakeImages {
  #state: FakeState;

  constructor(initial: Partial<FakeState>) {
    this.#state = { ...emptyState, ...initial };
  }

  get state(): FakeState {
    return this.#state;
  }

  set(change: Partial<FakeState>): void {
    this.#state = { ...this.#state, ...change };
  }

  called(call: readonly string[]): void {
    this.set({ calls: [...this.#state.calls, call] });
  }

  find(name: string, isPodman = false): FakeImage | undefined {
    const candidates = isPodman ? [name, podmanName(name), `docker.io/library/${name}`] : [name];
    return candidates
      .map((candidate) =>
        this.#state.images.find((image) => [image.imageId, ...image.tags, ...(image.pinned ?? [])].includes(candidate)),
      )
      .find((image) => image !== undefined);
  }

  require(name: string, isPodman = false): FakeImage {
    const image = this.find(name, isPodman);
    if (image === undefined) throw noSuchImage(name);
    return image;
  }

  info(): object {
    const { state } = this;
    const containerd = [['driver-type', 'io.containerd.snapshotter.v1']];
    const status = { DriverStatus: state.store === 'containerd' ? containerd : [['Backing Filesystem', 'extfs']] };
    const host = { OSType: state.osType, Architecture: state.architecture, Name: 'elsewhere' };
    return { ServerVersion: '28.5.2', ...host, ...status, DockerRootDir: '/var/lib/docker' };
  }

  /** Returns ImageInspect, with the manifests if requested. */
  inspect(name: string, isPodman: boolean, manifests: boolean): object {
    const image = this.require(name, isPodman);
    const answer = {
      Id: isPodman ? image.imageId.replace('sha256:', '') : image.imageId,
      RepoTags: image.tags,
      RepoDigests: image.pinned ?? [],
      Os: 'linux',
      Architecture: image.architecture,
      RootFS: { Type: 'layers', Layers: image.diffIds },
      Config: image.config ?? { Labels: image.labels },
      Created: image.created ?? '2026-01-01T00:00:00Z',
      Size: 1,
    };
    if (isPodman || this.#state.store === 'classic') return answer;
    const platform = { os: 'linux', architecture: image.architecture };
    const manifest = { ID: image.imageId, Available: true, Kind: 'image', ImageData: { Platform: platform } };
    return { ...answer, Descriptor: { digest: image.imageId }, ...(manifests ? { Manifests: [manifest] } : {}) };
  }

  /** Returns the API's image list. */
  list(): readonly object[] {
    return this.#state.images.map(({ imageId, tags, pinned = [] }) => ({
      Id: imageId,
      RepoTags: tags,
      RepoDigests: pinned,
    }));
  }

  tag(source: string, reference: string, isPodman = false): void {
    const { imageId } = this.require(source, isPodman);
    this.#change((images) =>
      images.map((other) => {
        const tags = other.tags.filter((name) => name !== reference);
        return { ...other, tags: other.imageId === imageId ? [...tags, reference] : tags };
      }),
    );
  }

  /** Removes an image or a tag. Returns the API's list of removed items. */
  remove(name: string, isPodman = false): readonly object[] {
    if (this.#state.fail === 'keeps-references' && name.includes('@'))
      throw new Refusal(409, 'conflict: unable to remove repository reference');
    const { imageId } = this.require(name, isPodman);
    this.#change((images) =>
      images.flatMap((image) => {
        if (image.imageId !== imageId) return [image];
        const tags = image.tags.filter((tag) => tag !== name);
        const pinned = image.pinned?.filter((reference) => reference !== name) ?? [];
        return imageId !== name && tags.length + pinned.length > 0 ? [{ ...image, tags, pinned }] : [];
      }),
    );
    return [{ Untagged: name }, ...(this.find(imageId) === undefined ? [{ Deleted: imageId }] : [])];
  }

  /** Imports an empty image under a name, which is removed from any other image. */
  importEmpty(reference: string): string {
    const imageId = `sha256:${createHash('sha256').update(reference).digest('hex')}`;
    this.#change((images) => [
      ...images.map((image) => ({ ...image, tags: image.tags.filter((tag) => tag !== reference) })),
      { imageId, tags: [reference], diffIds: [], architecture: 'amd64', labels: {} },
    ]);
    return imageId;
  }

  /** Returns the registry's next planned failure, if any. */
  nextFailure(): string | undefined {
    const { registry } = this.#state;
    const [failure, ...failures] = registry.failures;
    this.set({ registry: { ...registry, failures } });
    return failure;
  }

  pushed(names: readonly string[]): void {
    const { registry } = this.#state;
    this.set({ registry: { ...registry, pushed: [...registry.pushed, ...names] } });
  }

  add(image: FakeImage): void {
    this.#change((images) => [...images, image]);
  }

  /** Pulls an image from the fake registry. */
  pull(name: string): void {
    const image = this.#state.registry.images[name];
    const failure = this.nextFailure() ?? (image === undefined ? 'manifest unknown: manifest unknown' : undefined);
    if (failure !== undefined || image === undefined) throw new Refusal(404, String(failure));
    this.#change((images) => {
      const others = images.map((other) => ({ ...other, tags: other.tags.filter((tag) => tag !== name) }));
      const same = others.find((other) => other.imageId === image.imageId);
      const named = name.includes('@')
        ? { pinned: [...(same?.pinned ?? []), name] }
        : { tags: [...(same?.tags ?? []), name] };
      return [...others.filter((other) => other !== same), { ...(same ?? image), ...named }];
    });
  }

  /**
   * Pulls from a real registry on the loopback interface. Like dockerd, downloads each missing blob and checks its digest.
   * @param onManifest called when the manifest has arrived; later errors are reported in the response body
   */
  async fetch(name: string, onManifest: () => void): Promise<void> {
    const [, host = '', repository = '', manifestDigest = ''] = /^([^/]+)\/(.+)@(.+)$/.exec(name) ?? [];
    const get = async (kind: string, digest: string): Promise<string> => {
      if (this.#state.fail === 'far-away') throw new Refusal(500, `dial tcp ${host}: connect: connection refused`);
      const response = await fetch(`http://${host}/v2/${repository}/${kind}/${digest}`).catch((error: unknown) => {
        throw new Refusal(500, `Get "http://${host}/v2/": ${String(error)}`);
      });
      const bytes = Buffer.from(await response.arrayBuffer());
      if (!response.ok) throw new Refusal(500, `unexpected status from GET: ${String(response.status)}`);
      const found = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
      if (found !== digest) throw new Refusal(500, `filesystem layer verification failed for digest ${digest}`);
      return bytes.toString();
    };
    const manifest = JSON.parse(await get('manifests', manifestDigest));
    onManifest();
    const config = JSON.parse(await get('blobs', manifest.config.digest));
    const diffIds: readonly string[] = config.rootfs.diff_ids;
    const layers: readonly { readonly digest: string }[] = manifest.layers;
    const missing = layers.filter((_, position) => !this.#hasLayers(diffIds.slice(0, position + 1)));
    await Promise.all(missing.map(({ digest }) => get('blobs', digest)));
    const imageId = this.#state.store === 'containerd' ? manifestDigest : manifest.config.digest;
    this.add({ imageId, tags: [], pinned: [name], ...describedBy(config) });
  }

  /**
   * Reads a tarball and keeps its images.
   * @param print called with each line of output
   */
  async load(tarball: Readable, isPodman: boolean, print: (line: string) => void): Promise<void> {
    const [files, digests] = await readTar(tarball);
    this.set({ loadedFiles: [...this.#state.loadedFiles, ...digests] });
    if (this.#state.fail === 'load')
      throw new Refusal(500, 'open /var/lib/docker/tmp/docker-import-1/repositories: no space left on device');
    const images: readonly ArchiveImage[] = JSON.parse(files.get('manifest.json')?.toString() ?? '[]');
    if (images.length === 0) throw new Refusal(500, 'invalid archive: does not contain a manifest.json');
    for (const image of images) if (!this.#loadOne(image, files, isPodman, print)) return;
  }

  /** @returns false if the load ends here */
  #loadOne(
    image: ArchiveImage,
    files: ReadonlyMap<string, Buffer>,
    isPodman: boolean,
    print: (line: string) => void,
  ): boolean {
    const text = (name: string): string => files.get(name)?.toString() ?? 'null';
    const config = JSON.parse(text(image.Config));
    const configId = `sha256:${createHash('sha256')
      .update(files.get(image.Config) ?? '')
      .digest('hex')}`;
    const manifests: readonly Descriptor[] = JSON.parse(text('index.json'))?.manifests ?? [];
    const imageManifests = manifests.filter(({ digest }) => text(`blobs/sha256/${digest.slice(7)}`).includes(configId));
    const { store, fail } = this.#state;
    const isContainerd = store === 'containerd' && !isPodman;
    // containerd uses the index if there is one.
    const tags =
      isContainerd && manifests.length > 0
        ? imageManifests.flatMap(({ annotations }) => annotations?.['io.containerd.image.name'] ?? []).map(familiar)
        : namesOf(image.RepoTags ?? [], manifests, isPodman);
    const missing = this.#missingLayer(image.Layers ?? [], config.rootfs.diff_ids, files);
    if (missing !== undefined)
      throw new Refusal(500, `open /var/lib/docker/tmp/docker-import-1/${missing}: no such file or directory`);
    if (fail === 'silent-load') return false;
    const loaded: FakeImage = {
      imageId: isContainerd ? ((imageManifests[0] ?? manifests[0])?.digest ?? 'sha256:made-here') : configId,
      tags: [...new Set([...(this.find(configId, isPodman)?.tags ?? []), ...tags])],
      ...describedBy(config),
    };
    this.#change((others) => {
      const rest = others.map((other) => ({ ...other, tags: other.tags.filter((name) => !tags.includes(name)) }));
      return [...rest.filter((other) => other.imageId !== loaded.imageId), loaded];
    });
    for (const name of tags) print(`Loaded image: ${name}`);
    if (tags.length === 0) print(`Loaded image ID: ${loaded.imageId}`);
    if (fail === 'unpack') print(`Error unpacking image ${tags.join()}: failed to extract layer: short read`);
    return true;
  }

  /** Returns the first layer that is in neither the tarball nor an image with the same layers up to that one. */
  #missingLayer(
    layers: readonly string[],
    diffIds: readonly string[],
    files: ReadonlyMap<string, Buffer>,
  ): string | undefined {
    const isHeld = (count: number): boolean =>
      this.#state.fail !== 'lost-layers' && this.#hasLayers(diffIds.slice(0, count));
    return layers.find((name, position) => !files.has(name) && !isHeld(position + 1));
  }

  /** Returns whether the first layers of any image are these. */
  #hasLayers(diffIds: readonly string[]): boolean {
    return this.#state.images.some((other) => diffIds.every((diffId, position) => diffId === other.diffIds[position]));
  }

  #change(change: (images: FakeState['images']) => FakeState['images']): void {
    this.set({ images: change(this.#state.images) });
  }
}

interface ArchiveImage {
  readonly Config: string;
  readonly RepoTags?: readonly string[] | null;
  readonly Layers?: readonly string[];
}

/** Returns what an engine reads from an image's config. */
function describedBy(config: ParsedConfig): Omit<FakeImage, 'imageId' | 'tags'> {
  return {
    diffIds: config.rootfs.diff_ids,
    architecture: config.architecture,
    labels: config.config?.Labels ?? {},
    config: config.config ?? {},
    created: config.created ?? '',
  };
}

interface ParsedConfig {
  readonly rootfs: { readonly diff_ids: readonly string[] };
  readonly architecture: string;
  readonly created?: string;
  readonly config?: { readonly Labels?: Readonly<Record<string, string>> };
}

interface Descriptor {
  readonly digest: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Shortens a name as docker does, by removing the parts that docker adds by default. */
function familiar(name: string): string {
  return name.replace(/^docker\.io\/(?:library\/)?/, '');
}

/** Returns the names that the engine reads. Podman uses containerd's name if the index has one entry, otherwise the Docker archive's. */
function namesOf(repoTags: readonly string[], manifests: readonly Descriptor[], isPodman: boolean): readonly string[] {
  if (!isPodman) return repoTags;
  const name = manifests.length === 1 ? manifests[0]?.annotations?.['io.containerd.image.name'] : undefined;
  return name === undefined ? repoTags.map(podmanName) : [name];
}

/** Reads the small files of a tar and all digests. Throws the engine's error if the tar is truncated. */
async function readTar(
  tarball: Readable,
): Promise<readonly [ReadonlyMap<string, Buffer>, ReadonlyMap<string, string>]> {
  const files = new Map<string, Buffer>();
  const digests = new Map<string, string>();
  const parser = extract();
  parser.on('entry', (header, stream, next) => {
    const parts: Buffer[] = [];
    const hash = createHash('sha256');
    stream.on('data', (part: unknown) => {
      if (!Buffer.isBuffer(part)) return;
      hash.update(part);
      if (header.size < 1 << 20) parts.push(part);
    });
    stream.on('end', () => {
      digests.set(header.name, `sha256:${hash.digest('hex')}`);
      files.set(header.name, Buffer.concat(parts));
      next();
    });
  });
  await new Promise<void>((resolve, reject) => {
    const cut = (): void => {
      reject(new Refusal(500, 'unexpected EOF'));
    };
    parser.on('finish', resolve);
    parser.on('error', cut);
    tarball.on('error', cut);
    tarball.pipe(parser);
  });
  return [files, digests];
}
