import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { extract } from 'tar-stream';
import { podmanName } from '../../../shared/docker/podman-engine.ts';
import { type FakeImage, type FakeState, updateState } from './state.ts';

// A docker command for scenarios: it records its arguments, keeps images in a file, and reads the tarball it is fed.
// Called as podman, it speaks as podman 4 does (seen in Debian's package).

const file = process.env['FAKE_DOCKER_STATE'] ?? '';
const args = process.argv.slice(2);
const isPodman = process.env['FAKE_ENGINE'] === 'podman';
const call = isPodman ? ['podman', ...args] : args;
let state = updateState(file, (now) => ({ ...now, calls: [...now.calls, call] }));

const [command = '', verb = ''] = args;
if (state.fail === 'hang-info') await sleep(30_000);
if (command === 'info') info();
else if (command === 'buildx' && verb === 'inspect') inspectBuilder();
else if (command === 'buildx' && verb === 'build') await build();
else if (command === 'buildx' && verb === 'imagetools') readManifest(args.at(-1) ?? '');
else if (command === 'push') push(args.at(-1) ?? '');
else if (command === 'pull' && (args.at(-1) ?? '').startsWith('127.0.0.1:')) await fetchImage(args.at(-1) ?? '');
else if (command === 'pull') pull(args.at(-1) ?? '');
else if (command === 'load') await load();
else if (command === 'save') process.stdout.write(readFileSync(state.saved ?? ''));
else if (command === 'import') await importImage(args[2] ?? '');
else if (command === 'image' && verb === 'inspect') inspect(args.at(-1) ?? '');
else if (command === 'image' && verb === 'tag') tag(args[2] ?? '', args[3] ?? '');
else if (command === 'image' && verb === 'rm') remove(args[2] ?? '');
else if (command === 'image' && verb === 'untag' && isPodman) remove(args[3] ?? '');
else if (command === 'image' && verb === 'ls') list();
else fail(`unknown docker command: ${args.join(' ')}`, 125);

function setImages(change: (images: FakeState['images']) => FakeState['images']): void {
  state = updateState(file, (now) => ({ ...now, images: change(now.images) }));
}

function setRegistry(change: (registry: FakeState['registry']) => FakeState['registry']): void {
  state = updateState(file, (now) => ({ ...now, registry: change(now.registry) }));
}

function fail(message: string, exitCode = 1): void {
  process.stderr.write(`${message}\n`);
  process.exitCode = exitCode;
}

function info(): void {
  if (state.fail === 'info') {
    if (isPodman) {
      fail('Error: mount /var/lib/containers/storage/overlay: operation not permitted', 125);
      return;
    }
    process.stdout.write('{"ServerErrors":["Cannot connect"]}\n');
    fail('Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?');
    return;
  }
  if (isPodman) {
    const host = {
      arch: state.architecture === 'x86_64' ? 'amd64' : state.architecture,
      os: 'linux',
      hostname: 'away',
    };
    const store = { graphRoot: '/var/lib/containers/storage' };
    process.stdout.write(JSON.stringify({ host, store, version: { Version: '4.3.1' } }, undefined, 2));
    return;
  }
  const containerd = [['driver-type', 'io.containerd.snapshotter.v1']];
  const status = { DriverStatus: state.store === 'containerd' ? containerd : [['Backing Filesystem', 'extfs']] };
  const engine = { ServerVersion: '28.5.2', OSType: state.osType, Architecture: state.architecture, Name: 'elsewhere' };
  process.stdout.write(`${JSON.stringify({ ...engine, ...status, DockerRootDir: '/var/lib/docker' })}\n`);
}

function inspectBuilder(): void {
  if (state.fail === 'buildx') fail("docker: 'buildx' is not a docker command.");
  else process.stdout.write(`Name:   ${args[2] ?? 'default'}\nDriver: ${state.driver}\n`);
}

async function build(): Promise<void> {
  for (const line of state.progress) process.stderr.write(`${line}\n`);
  if (state.fail === 'hang-build') await sleep(60_000);
  if (state.fail === 'build') {
    fail(
      'ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2',
    );
    return;
  }
  const outputs = args.filter((_, position) => args[position - 1] === '--output').join(' ');
  const directory = /dest=([^",]+)/.exec(outputs)?.[1];
  if (directory !== undefined) {
    // As BuildKit's client does, which renames each blob into place: nobody sees a part of one.
    cpSync(state.buildLayout ?? '', `${directory}.part`, { recursive: true });
    renameSync(`${directory}.part`, directory);
  }
  if (outputs.includes('push=true')) buildPushes(/"name=([^"]+)"/.exec(outputs)?.[1]?.split(',') ?? [], directory);
  const idFile = args[args.indexOf('--iidfile') + 1];
  if (args.includes('--iidfile') && idFile !== undefined) {
    writeFileSync(idFile, 'sha256:built');
    const tags = args.filter((_, position) => args[position - 1] === '--tag');
    const built = { imageId: 'sha256:built', tags, diffIds: [], architecture: 'amd64', labels: {} };
    setImages((images) => [...images, built]);
  }
}

function buildPushes(names: readonly string[], directory: string | undefined): void {
  const said = nextFailure();
  if (said === undefined) {
    const file = args[args.indexOf('--metadata-file') + 1] ?? '';
    writeFileSync(file, JSON.stringify({ 'containerimage.digest': state.registry.digest }));
    pushed(names);
    return;
  }
  const failure = `failed to push ${String(names[0])}: ${said}`;
  const times = { started: '2026-01-01T00:00:00Z', completed: '2026-01-01T00:00:01Z' };
  const exporter = { digest: 'sha256:9', name: 'exporting to image', ...times, error: failure };
  process.stderr.write(`${JSON.stringify({ vertexes: [exporter] })}\n`);
  // BuildKit stops the other output in the middle.
  if (directory !== undefined) writeFileSync(`${directory}/index.json`, '');
  fail(`ERROR: failed to build: failed to solve: ${failure}`);
}

function nextFailure(): string | undefined {
  const [failure, ...failures] = state.registry.failures;
  setRegistry((registry) => ({ ...registry, failures }));
  return failure;
}

function pushed(names: readonly string[]): void {
  setRegistry((registry) => ({ ...registry, pushed: [...registry.pushed, ...names] }));
}

function push(name: string): void {
  const failure = find(name) === undefined ? `An image does not exist locally with the tag: ${name}` : nextFailure();
  if (failure !== undefined) {
    fail(failure);
    return;
  }
  pushed([name]);
  process.stdout.write(`The push refers to repository\n${name}: digest: ${state.registry.digest} size: 523\n`);
}

function pull(name: string): void {
  const image = state.registry.images[name];
  const failure = nextFailure() ?? (image === undefined ? 'manifest unknown: manifest unknown' : undefined);
  if (failure !== undefined || image === undefined) {
    fail(`Error response from daemon: ${String(failure)}`);
    return;
  }
  setImages((images) => {
    const others = images.map((other) => ({ ...other, tags: other.tags.filter((tag) => tag !== name) }));
    const same = others.find((other) => other.imageId === image.imageId);
    const named = name.includes('@')
      ? { pinned: [...(same?.pinned ?? []), name] }
      : { tags: [...(same?.tags ?? []), name] };
    return [...others.filter((other) => other !== same), { ...(same ?? image), ...named }];
  });
}

// A registry on the loopback interface is a real one. As dockerd does: each blob that isn't here, and its digest checked.
async function fetchImage(name: string): Promise<void> {
  const [, host = '', repository = '', manifestDigest = ''] = /^([^/]+)\/(.+)@(.+)$/.exec(name) ?? [];
  const get = async (kind: string, digest: string): Promise<string> => {
    if (state.fail === 'far-away') throw new Error(`dial tcp ${host}: connect: connection refused`);
    const response = await fetch(`http://${host}/v2/${repository}/${kind}/${digest}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (!response.ok) throw new Error(`unexpected status from GET: ${String(response.status)}`);
    const found = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    if (found !== digest) throw new Error(`filesystem layer verification failed for digest ${digest}`);
    return bytes.toString();
  };
  try {
    const manifest = JSON.parse(await get('manifests', manifestDigest));
    const config = JSON.parse(await get('blobs', manifest.config.digest));
    const diffIds: readonly string[] = config.rootfs.diff_ids;
    const layers: readonly { readonly digest: string }[] = manifest.layers;
    const lacking = layers.filter((_, position) => !holds(diffIds.slice(0, position + 1)));
    await Promise.all(lacking.map(({ digest }) => get('blobs', digest)));
    const imageId = state.store === 'containerd' ? manifestDigest : manifest.config.digest;
    const { architecture } = config;
    const image = { imageId, tags: [], pinned: [name], diffIds, architecture, labels: config.config?.Labels ?? {} };
    setImages((images) => [...images, image]);
  } catch (error) {
    fail(`Error response from daemon: ${String(error)}`);
  }
}

/** Whether an image has the same layers up to here. */
function holds(diffIds: readonly string[]): boolean {
  return state.images.some((other) => diffIds.every((diffId, position) => diffId === other.diffIds[position]));
}

function readManifest(name: string): void {
  const manifest = state.registry.manifests[name];
  if (manifest === undefined) fail(`ERROR: ${name}: not found`);
  else process.stdout.write(manifest);
}

async function load(): Promise<void> {
  const [files, digests] = await readTar();
  // A pull may have run beside it.
  state = updateState(file, (now) => ({ ...now, loadedFiles: [...now.loadedFiles, ...digests] }));
  if (state.fail === 'load') {
    fail('open /var/lib/docker/tmp/docker-import-1/repositories: no space left on device');
    return;
  }
  const images: readonly ArchiveImage[] = JSON.parse(files.get('manifest.json')?.toString() ?? '[]');
  if (images.length === 0) fail('invalid archive: does not contain a manifest.json');
  for (const image of images) if (!loadOne(image, files)) return;
}

interface ArchiveImage {
  readonly Config: string;
  readonly RepoTags?: readonly string[] | null;
  readonly Layers?: readonly string[];
}

/** @returns false when the load is over */
function loadOne(image: ArchiveImage, files: ReadonlyMap<string, Buffer>): boolean {
  const text = (name: string): string => files.get(name)?.toString() ?? 'null';
  const config = JSON.parse(text(image.Config));
  const configId = `sha256:${createHash('sha256')
    .update(files.get(image.Config) ?? '')
    .digest('hex')}`;
  const manifests: readonly Descriptor[] = JSON.parse(text('index.json'))?.manifests ?? [];
  const tags = namesOf(image.RepoTags ?? [], manifests);
  const missing = lacking(image.Layers ?? [], config.rootfs.diff_ids, files);
  if (missing !== undefined) {
    fail(`open /var/lib/docker/tmp/docker-import-1/${missing}: no such file or directory`);
    return false;
  }
  if (state.fail === 'silent-load') return false;
  const own = manifests.find(({ digest }) => text(`blobs/sha256/${digest.slice(7)}`).includes(configId));
  const loaded: FakeImage = {
    imageId:
      state.store === 'containerd' && !isPodman ? ((own ?? manifests[0])?.digest ?? 'sha256:made-here') : configId,
    tags: [...new Set([...(find(configId)?.tags ?? []), ...tags])],
    diffIds: config.rootfs.diff_ids,
    architecture: config.architecture,
    labels: config.config?.Labels ?? {},
    config: config.config ?? {},
    created: config.created ?? '',
  };
  setImages((others) => {
    const rest = others.map((other) => ({ ...other, tags: other.tags.filter((name) => !tags.includes(name)) }));
    return [...rest.filter((other) => other.imageId !== loaded.imageId), loaded];
  });
  for (const name of tags) process.stdout.write(`Loaded image: ${name}\n`);
  if (tags.length === 0) process.stdout.write(`Loaded image ID: ${loaded.imageId}\n`);
  if (state.fail === 'unpack')
    process.stdout.write(`Error unpacking image ${tags.join()}: failed to extract layer: short read\n`);
  return true;
}

/** Podman takes containerd's name from an index with one entry, else those of the Docker archive. */
function namesOf(repoTags: readonly string[], manifests: readonly Descriptor[]): readonly string[] {
  if (!isPodman) return repoTags;
  const name = manifests.length === 1 ? manifests[0]?.annotations?.['io.containerd.image.name'] : undefined;
  return name === undefined ? repoTags.map(podmanName) : [name];
}

interface Descriptor {
  readonly digest: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The first layer that is neither in the tar nor under an image with the same layers so far. */
function lacking(
  layers: readonly string[],
  diffIds: readonly string[],
  files: ReadonlyMap<string, Buffer>,
): string | undefined {
  const held = (count: number): boolean => state.fail !== 'lost-layers' && holds(diffIds.slice(0, count));
  return layers.find((name, position) => !files.has(name) && !held(position + 1));
}

/** Reads standard input as a tar: small files, and the digests of all; ends the process with docker's words when it is cut. */
async function readTar(): Promise<readonly [ReadonlyMap<string, Buffer>, ReadonlyMap<string, string>]> {
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
  await new Promise<void>((resolve) => {
    parser.on('finish', resolve);
    parser.on('error', (error) => {
      process.stderr.write(`unexpected EOF: ${String(error)}\n`);
      process.exit(1);
    });
    process.stdin.pipe(parser);
  });
  return [files, digests];
}

function find(name: string): FakeImage | undefined {
  const candidates = isPodman ? [name, podmanName(name), `docker.io/library/${name}`] : [name];
  return candidates
    .map((candidate) =>
      state.images.find((image) => [image.imageId, ...image.tags, ...(image.pinned ?? [])].includes(candidate)),
    )
    .find((image) => image !== undefined);
}

function failNoImage(name: string): void {
  if (isPodman) fail(`Error: ${name}: image not known`, 125);
  else fail(`Error response from daemon: No such image: ${name}`);
}

function inspect(name: string): void {
  if (args.includes('{{json .RootFS.Layers}}')) {
    for (const id of args.slice(4)) process.stdout.write(`${JSON.stringify(find(id)?.diffIds ?? [])}\n`);
    return;
  }
  const image = find(name);
  if (image === undefined) {
    failNoImage(name);
    return;
  }
  const answer = {
    Id: isPodman ? image.imageId.replace('sha256:', '') : image.imageId,
    RepoTags: image.tags,
    Os: 'linux',
    Architecture: image.architecture,
    RootFS: { Type: 'layers', Layers: image.diffIds },
    Config: image.config ?? { Labels: image.labels },
    Created: image.created ?? '2026-01-01T00:00:00Z',
    Size: 1,
  };
  process.stdout.write(`${JSON.stringify(isPodman ? [answer] : answer)}\n`);
}

function tag(source: string, reference: string): void {
  const image = find(source);
  if (image === undefined) {
    failNoImage(source);
    return;
  }
  setImages((images) =>
    images.map((other) => {
      const tags = other.tags.filter((name) => name !== reference);
      return { ...other, tags: other.imageId === image.imageId ? [...tags, reference] : tags };
    }),
  );
}

function remove(name: string): void {
  if (state.fail === 'keeps-references' && name.includes('@')) {
    fail('Error response from daemon: conflict: unable to remove repository reference');
    return;
  }
  const found = find(name);
  if (found === undefined) {
    failNoImage(name);
    return;
  }
  setImages((images) =>
    images.flatMap((image) => {
      if (image.imageId !== found.imageId) return [image];
      const tags = image.tags.filter((tag) => tag !== name);
      const pinned = image.pinned?.filter((reference) => reference !== name) ?? [];
      return image.imageId !== name && tags.length + pinned.length > 0 ? [{ ...image, tags, pinned }] : [];
    }),
  );
}

function list(): void {
  if (args.includes('--quiet')) {
    for (const image of state.images) process.stdout.write(`${image.imageId}\n`);
    return;
  }
  const line = (name: string, digest: string, { imageId }: FakeImage): void =>
    void process.stdout.write(`${name} ${digest} ${imageId}\n`);
  for (const image of state.images) {
    const pinned = image.pinned ?? [];
    for (const name of image.tags) line(name, '<none>', image);
    for (const name of pinned) line(`${name.split('@')[0] ?? ''}:<none>`, name.split('@')[1] ?? '', image);
    if (image.tags.length + pinned.length === 0) line('<none>:<none>', '<none>', image);
  }
}

/** An image with nothing in it, under a name that may have been another's. */
async function importImage(reference: string): Promise<void> {
  process.stdin.resume();
  await once(process.stdin, 'end');
  const imageId = `sha256:${createHash('sha256').update(reference).digest('hex')}`;
  setImages((images) => [
    ...images.map((image) => ({ ...image, tags: image.tags.filter((tag) => tag !== reference) })),
    { imageId, tags: [reference], diffIds: [], architecture: 'amd64', labels: {} },
  ]);
  process.stdout.write(`${imageId}\n`);
}
