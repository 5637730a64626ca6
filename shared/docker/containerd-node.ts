import { arch } from 'node:os';
import { HandoverError } from '../base/errors.ts';
import type { LentChunks } from '../bytes/chunks.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { imageStores } from '../image/image-store.ts';
import { parseConfig, parseManifest } from '../image/manifest.ts';
import { platformOf } from '../image/platform.ts';
import { canonicalReference, parseReference } from '../image/reference.ts';
import { type CliOutput, type DockerCli, failedCommand } from './cli.ts';
import { type CtrImage, parseCtrCheck, parseCtrConfigDigest, parseCtrImages } from './ctr-output.ts';
import { type Engine, feedCommand, saveFrom } from './engine.ts';
import type { EngineInfo, InspectedImage } from './output.ts';

// A containerd as an engine: a node of a cluster, where `docker exec` runs ctr, or a containerd of this machine. An image's ID is its
// manifest's digest. The image's facts are read from the stored blobs, not from containerd's listing. Names are containerd's: Kubernetes
// looks for `docker.io/library/charon:local` if a pod has the image `charon:local`.

export interface CtrCommand {
  /** docker to run ctr in a container, or ctr. */
  readonly cli: DockerCli;
  /** Returns the arguments before ctr's. */
  readonly before: (stdin: boolean) => readonly string[];
  /** A command that prints the machine's architecture; undefined for this machine. */
  readonly architecture: readonly string[] | undefined;
  /** Undefined is ctr's default. */
  readonly snapshotter: string | undefined;
}

/** A cache. The content of a digest never changes, nor does containerd's reading of it. */
class KnownContent {
  readonly blobs = new Map<Digest, Buffer>();
  readonly configs = new Map<Digest, Digest>();
}

export function containerdNode(command: CtrCommand, known = new KnownContent()): Engine {
  const { cli, before, snapshotter } = command;
  const ask = (...args: readonly string[]): Promise<CliOutput> => cli.query([...before(false), ...args]);
  const must = async (code: 'load-failed' | 'image-missing', ...args: readonly string[]): Promise<string> => {
    const output = await ask(...args);
    if (output.exitCode !== 0) throw failedCommand(cli, code, [...before(false), ...args], output);
    return output.stdout;
  };
  const list = async (...filter: readonly string[]): Promise<readonly CtrImage[]> =>
    parseCtrImages(await must('image-missing', 'images', 'ls', ...filter));
  const content = contentOf((...args) => must('image-missing', 'content', ...args), known);
  const untag = async (reference: string): Promise<void> => {
    // A missing image is not an error.
    const args = [...before(false), 'images', 'rm', containerdName(reference)];
    const output = await cli.forCleanUp.query(args);
    if (output.exitCode !== 0) throw failedCommand(cli, 'image-missing', args, output);
  };
  const withSnapshotter = snapshotter === undefined ? [] : [`--snapshotter=${snapshotter}`];
  return {
    program: 'ctr',
    get forCleanUp() {
      return containerdNode({ ...command, cli: cli.forCleanUp }, known);
    },
    nameOf: containerdName,
    info: () => nodeInfo(command),
    inspect: async (image) => {
      const filter = isDigest(image) ? `target.digest==${image}` : `name==${containerdName(image)}`;
      const args = ['images', 'check', ...withSnapshotter, filter];
      // It lists the images like `images ls`, and fails after that if the image is damaged.
      const output = await ask(...args);
      const [found] = parseCtrImages(output.stdout);
      if (found !== undefined) return inspected(found, content, parseCtrCheck(output.stdout, found.name));
      if (output.exitCode === 0) return undefined;
      throw failedCommand(cli, 'image-missing', [...before(false), ...args], output);
    },
    load: async (chunks) => {
      await importInto(command, ['images', 'import', '--all-platforms', ...withSnapshotter, '-'], chunks);
      return [];
    },
    confirm: undefined,
    // It only accepts whole tarballs.
    pull: undefined,
    save: (image) => saveFrom(cli, [...before(false), 'images', 'export', '-', containerdName(image)]),
    tag: async (image, reference) => {
      const source = isDigest(image) ? (await list(`target.digest==${image}`))[0]?.name : containerdName(image);
      await must('load-failed', 'images', 'tag', '--force', source ?? image, containerdName(reference));
    },
    untag,
    // containerd keeps no image without a name.
    release: undefined,
    images: async () => (await list()).map(({ name, target }) => ({ reference: name, imageId: target })),
  };
}

/** Returns a reference in containerd's normal form. IDs, which Kubernetes uses as names, are returned unchanged. */
function containerdName(reference: string): string {
  return isDigest(reference) ? reference : canonicalReference(parseReference(reference));
}

async function nodeInfo({ cli, architecture }: CtrCommand): Promise<EngineInfo> {
  const output = architecture === undefined ? undefined : await cli.query(architecture);
  if (output !== undefined && output.exitCode !== 0)
    throw failedCommand(cli, 'load-failed', architecture ?? [], output);
  return ctrInfo(output?.stdout.trim() ?? arch());
}

function ctrInfo(architecture: string): EngineInfo {
  return {
    platform: platformOf('linux', architecture),
    imageStore: imageStores.containerd,
    dataRoot: '',
    hostName: '',
  };
}

interface Content {
  readonly blob: (digest: Digest) => Promise<Buffer>;
  /** The config digest in containerd's own reading of a manifest. */
  readonly configDigest: (manifest: Digest) => Promise<Digest | undefined>;
}

/** @param ask runs `ctr content` and returns its output */
function contentOf(ask: (...args: readonly string[]) => Promise<string>, known: KnownContent): Content {
  return {
    blob: async (digest) => {
      // The digest proves that decoding to text lost no byte.
      const content = known.blobs.get(digest) ?? Buffer.from(await ask('get', digest));
      if (digestOf(content) !== digest)
        throw new HandoverError(
          'image-mismatch',
          `containerd has other bytes under the digest ${digest}.`,
          'Check the disk of that node. Its content store is damaged.',
        );
      known.blobs.set(digest, content);
      return content;
    },
    configDigest: async (manifest) => {
      const found =
        known.configs.get(manifest) ?? parseCtrConfigDigest(await ask('ls', `digest==${manifest}`), manifest);
      if (found !== undefined) known.configs.set(manifest, found);
      return found;
    },
  };
}

async function inspected(
  { name, target }: CtrImage,
  { blob, configDigest }: Content,
  isWhole: boolean,
): Promise<InspectedImage> {
  const common = { imageId: target, repoTags: [name], isWhole };
  try {
    const manifest = parseManifest(await blob(target), `manifest ${target}`);
    const { platform, diffIds, labels, config, created } = parseConfig(
      await blob(manifest.config.digest),
      `config ${manifest.config.digest}`,
    );
    const read = { platform, diffIds, labels, config, configDigest: await configDigest(target) };
    return { ...common, ...read, ...(created === undefined ? {} : { created }) };
  } catch (error) {
    // An index of several platforms, a chart, or an image without content: never a handed-over image.
    if (!(error instanceof HandoverError) || !['tarball-invalid', 'image-missing'].includes(error.code)) throw error;
    return { ...common, platform: platformOf('', ''), diffIds: [], labels: {}, config: {} };
  }
}

async function importInto({ cli, before }: CtrCommand, args: readonly string[], chunks: LentChunks): Promise<void> {
  const all = [...before(true), ...args];
  const output = await feedCommand(await cli.start(all), chunks);
  if (output.exitCode !== 0) throw failedCommand(cli, 'load-failed', all, output);
}
