import { arch } from 'node:os';
import { HandoverError } from '../base/errors.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { imageStores } from '../image/image-store.ts';
import { parseConfig, parseManifest } from '../image/manifest.ts';
import { platformOf } from '../image/platform.ts';
import { canonicalReference, parseReference } from '../image/reference.ts';
import { type DockerCli, failedCommand, must, outputOf } from './cli.ts';
import { type Engine, saveFrom } from './engine.ts';
import {
  type CtrImage,
  type EngineInfo,
  type InspectedImage,
  parseCtrCheck,
  parseCtrConfigDigest,
  parseCtrImages,
} from './output.ts';

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
  const list = async (...filter: readonly string[]): Promise<readonly CtrImage[]> =>
    parseCtrImages(await must(cli, 'image-missing', [...before(false), 'images', 'ls', ...filter]));
  const content = contentOf((...args) => must(cli, 'image-missing', [...before(false), 'content', ...args]), known);
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
      const args = [...before(false), 'images', 'check', ...withSnapshotter, filter];
      // It lists the images like `images ls`, and fails after that if the image is damaged.
      const output = await cli.query(args);
      const [found] = parseCtrImages(output.stdout);
      if (found !== undefined) return inspected(found, content, parseCtrCheck(output.stdout, found.name));
      if (output.exitCode === 0) return undefined;
      throw failedCommand(cli, 'image-missing', args, output);
    },
    load: async (chunks) => {
      const args = [...before(true), 'images', 'import', '--all-platforms', ...withSnapshotter, '-'];
      const output = await outputOf(await cli.start(args), chunks);
      if (output.exitCode !== 0) throw failedCommand(cli, 'load-failed', args, output);
      return [];
    },
    confirm: undefined,
    // It only accepts whole tarballs.
    pull: undefined,
    save: (image) => saveFrom(cli, [...before(false), 'images', 'export', '-', containerdName(image)]),
    tag: async (image, reference) => {
      const source = isDigest(image) ? (await list(`target.digest==${image}`))[0]?.name : containerdName(image);
      const args = ['images', 'tag', '--force', source ?? image, containerdName(reference)];
      await must(cli, 'load-failed', [...before(false), ...args]);
    },
    untag: async (reference) => {
      // A missing image is not an error.
      const args = [...before(false), 'images', 'rm', containerdName(reference)];
      await must(cli.forCleanUp, 'image-missing', args);
    },
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
  const machine = architecture === undefined ? arch() : (await must(cli, 'load-failed', architecture)).trim();
  return { platform: platformOf('linux', machine), imageStore: imageStores.containerd, dataRoot: '', hostName: '' };
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
