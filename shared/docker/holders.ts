import { arch } from 'node:os';
import { HandoverError } from '../base/errors.ts';
import type { ClusterTool, Destination } from '../image/destination.ts';
import { type Digest, digestOf, isDigest } from '../image/digest.ts';
import { imageStores } from '../image/image-store.ts';
import { parseConfig, parseManifest } from '../image/manifest.ts';
import { platformOf } from '../image/platform.ts';
import { canonicalReference, parseReference } from '../image/reference.ts';
import { type DockerCli, dockerCli, failedCommand, lastLine, must, outputOf } from './cli.ts';
import { type Engine, saveFrom } from './engine.ts';
import {
  type CtrImage,
  type EngineInfo,
  type InspectedImage,
  parseCtrCheck,
  parseCtrConfigDigest,
  parseCtrImages,
  parseSnapshotter,
} from './output.ts';

/** What an image is loaded into: an engine, or a node of a cluster. */
export interface Holder {
  readonly engine: Engine;
  /** The node's name in its cluster; undefined for the job's own engine. */
  readonly node: string | undefined;
}

// containerd's namespace for Kubernetes' images (containerd, internal/cri/constants).
const kubernetes = 'k8s.io';

/** What differs between the tools that run a cluster's nodes as containers. */
interface ToolFacts {
  /** The label with the cluster's name. */
  readonly cluster: string;
  /** Returns the cluster's name from that label. */
  readonly clusterIn?: (label: string) => string;
  /** The label with a container's role. */
  readonly role: string;
  /** Whether a container of that role is a node: clusters also have load balancers and registries. */
  readonly isNode: (role: string) => boolean;
  /** Whether `containerd config dump` shows the snapshotter. */
  readonly showsSnapshotter: boolean;
  /** Whether a node can have another container runtime. */
  readonly hasOtherRuntimes?: true;
}

const tools: Readonly<Record<ClusterTool, ToolFacts>> = {
  // kind, pkg/cluster/internal/providers/docker/constants.go and pkg/cluster/constants/constants.go
  kind: {
    cluster: 'io.x-k8s.kind.cluster',
    role: 'io.x-k8s.kind.role',
    isNode: (role) => ['control-plane', 'worker'].includes(role),
    showsSnapshotter: true,
  },
  // k3d, pkg/types/types.go
  k3d: {
    cluster: 'k3d.cluster',
    role: 'k3d.role',
    isNode: (role) => ['server', 'agent'].includes(role),
    showsSnapshotter: false,
  },
  // minikube, pkg/drivers/kic/oci/types.go. The label contains the node's name, and nodes have no role. Further nodes are called NAME-m02
  // and so on (minikube, pkg/minikube/config/node.go, MachineName).
  minikube: {
    cluster: 'name.minikube.sigs.k8s.io',
    clusterIn: (label) => label.replace(/-m\d{2,}$/, ''),
    role: 'role.minikube.sigs.k8s.io',
    isNode: () => true,
    showsSnapshotter: true,
    hasOtherRuntimes: true,
  },
};

/** Returns the holders of a destination: none for `none`. Throws `cluster-not-found`, `docker-unavailable`. */
export async function holdersOf(
  destination: Destination,
  engine: Engine,
  signal: AbortSignal,
): Promise<readonly Holder[]> {
  switch (destination.kind) {
    case 'engine':
      return [{ engine, node: undefined }];
    case 'none':
      return [];
    case 'containerd':
      return [await localNode(dockerCli(signal, 'ctr'), destination.namespace)];
    case 'cluster':
      return clusterNodes(dockerCli(signal), destination.tool, destination.cluster);
  }
}

async function localNode(cli: DockerCli, namespace: string): Promise<Holder> {
  const output = await cli.query(['version']);
  if (output.exitCode !== 0) {
    throw new HandoverError(
      'docker-unavailable',
      `No containerd answers: ${lastLine(output)}`,
      'Start it, or set the environment variable CONTAINERD_ADDRESS to its socket. Usually root owns the socket: give this ' +
        'user access to it, or run the job as root.',
    );
  }
  const before = [`--namespace=${namespace}`];
  const engine = containerdNode({ cli, before: () => before, architecture: undefined, snapshotter: undefined });
  return { node: `containerd:${namespace}`, engine };
}

async function clusterNodes(cli: DockerCli, tool: ClusterTool, cluster: string): Promise<readonly Holder[]> {
  const all = await nodeContainers(cli, tool);
  const nodes = all.filter((node) => node.cluster === cluster);
  if (nodes.length === 0) {
    const names = [...new Set(all.map((node) => node.cluster))].sort();
    throw clusterNotFound(
      `${tool} has no cluster "${cluster}" in this engine; ${names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`}.`,
      `Create the cluster in a step before this one, or correct \`into: ${tool}:NAME\`.`,
    );
  }
  const stopped = nodes.filter(({ state }) => state !== 'running');
  if (stopped.length > 0) {
    throw clusterNotFound(
      `Of the nodes of ${tool}’s cluster "${cluster}", ${stopped.map(({ name, state }) => `${name} is ${state}`).join(', ')}.`,
      'Start the cluster’s nodes, or create the cluster again.',
    );
  }
  return Promise.all(nodes.map(({ name }) => clusterNode(cli, tool, name)));
}

function clusterNotFound(message: string, hint: string): HandoverError {
  return new HandoverError('cluster-not-found', message, hint);
}

/** Returns the nodes of all clusters of a tool, sorted by name. */
async function nodeContainers(cli: DockerCli, tool: ClusterTool) {
  const { cluster: label, clusterIn = (name) => name, role, isNode } = tools[tool];
  const format = `{{.Names}}\t{{.State}}\t{{.Label "${label}"}}\t{{.Label "${role}"}}`;
  const output = await cli.query(['ps', '--all', '--filter', `label=${label}`, '--format', format]);
  if (output.exitCode !== 0) {
    throw new HandoverError(
      'docker-unavailable',
      `The nodes can't be listed: ${lastLine(output)}`,
      'Nodes of kind, k3d and minikube are containers of docker: check that its engine runs here, and DOCKER_HOST.',
    );
  }
  const rows = output.stdout.split('\n').filter((line) => line.trim() !== '');
  return rows
    .map((row) => row.split('\t'))
    .filter(([, , , its = '']) => isNode(its))
    .map(([name = '', state = '', cluster = '']) => ({ name, state, cluster: clusterIn(cluster) }))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

async function clusterNode(cli: DockerCli, tool: ClusterTool, name: string): Promise<Holder> {
  // As kind runs its own commands in a node.
  const inside = (stdin: boolean): readonly string[] => ['exec', '--privileged', ...(stdin ? ['-i'] : []), name];
  const run = (...command: readonly string[]): Promise<string> =>
    must(cli, 'load-failed', [...inside(false), ...command]);
  const { showsSnapshotter, hasOtherRuntimes } = tools[tool];
  if (hasOtherRuntimes === true) requireContainerd(name, await run('cat', '/etc/crictl.yaml'));
  const engine = containerdNode({
    cli,
    before: (stdin) => [...inside(stdin), 'ctr', `--namespace=${kubernetes}`],
    architecture: [...inside(false), 'uname', '-m'],
    snapshotter: showsSnapshotter ? parseSnapshotter(await run('containerd', 'config', 'dump')) : undefined,
  });
  return { node: name, engine };
}

/** minikube writes the socket of the node's container runtime into this file (pkg/minikube/cruntime/cri.go, populateCRIConfig). */
function requireContainerd(node: string, crictl: string): void {
  const socket = /^runtime-endpoint: *(?:unix:\/\/)?(\S+)/m.exec(crictl)?.[1];
  if (socket?.endsWith('/containerd.sock') === true) return;
  throw clusterNotFound(
    `The node ${node} of minikube does not use containerd: its container runtime is at ${socket ?? 'an unknown socket'}.`,
    'Create the cluster with `minikube start --driver=docker --container-runtime=containerd`. With another runtime, load the image into ' +
      'docker, and use `minikube image load`.',
  );
}

// A containerd as an engine: a node of a cluster, where `docker exec` runs ctr, or a containerd of this machine. An image's ID is its
// manifest's digest. The image's facts are read from the stored blobs, not from containerd's listing. Names are containerd's: Kubernetes
// looks for `docker.io/library/charon:local` if a pod has the image `charon:local`.

interface CtrCommand {
  /** docker to run ctr in a container, or ctr. */
  readonly cli: DockerCli;
  /** Returns the arguments before ctr's. */
  readonly before: (stdin: boolean) => readonly string[];
  /** A command that prints the machine's architecture; undefined for this machine. */
  readonly architecture: readonly string[] | undefined;
  /** Undefined is ctr's default. */
  readonly snapshotter: string | undefined;
}

/** Runs `ctr content`, and returns its output. */
type AskContent = (...args: readonly string[]) => Promise<string>;

/** A node's content. The bytes of a digest never change, nor does containerd's reading of them, so each is read once. */
class Content {
  readonly #blobs = new Map<Digest, Buffer>();
  readonly #configs = new Map<Digest, Digest>();

  async blob(ask: AskContent, digest: Digest): Promise<Buffer> {
    // The digest proves that decoding to text lost no byte.
    const content = this.#blobs.get(digest) ?? Buffer.from(await ask('get', digest));
    if (digestOf(content) !== digest)
      throw new HandoverError(
        'image-mismatch',
        `containerd has other bytes under the digest ${digest}.`,
        'Check the disk of that node. Its content store is damaged.',
      );
    this.#blobs.set(digest, content);
    return content;
  }

  /** Returns the config digest in containerd's own reading of a manifest. */
  async configDigest(ask: AskContent, manifest: Digest): Promise<Digest | undefined> {
    const found = this.#configs.get(manifest) ?? parseCtrConfigDigest(await ask('ls', `digest==${manifest}`), manifest);
    if (found !== undefined) this.#configs.set(manifest, found);
    return found;
  }
}

function containerdNode(command: CtrCommand, content = new Content()): Engine {
  const { cli, before, snapshotter } = command;
  const list = async (...filter: readonly string[]): Promise<readonly CtrImage[]> =>
    parseCtrImages(await must(cli, 'image-missing', [...before(false), 'images', 'ls', ...filter]));
  const ask: AskContent = (...args) => must(cli, 'image-missing', [...before(false), 'content', ...args]);
  const withSnapshotter = snapshotter === undefined ? [] : [`--snapshotter=${snapshotter}`];
  return {
    program: 'ctr',
    get forCleanUp() {
      return containerdNode({ ...command, cli: cli.forCleanUp }, content);
    },
    nameOf: containerdName,
    info: () => nodeInfo(command),
    inspect: async (image) => {
      const filter = isDigest(image) ? `target.digest==${image}` : `name==${containerdName(image)}`;
      const args = [...before(false), 'images', 'check', ...withSnapshotter, filter];
      // It lists the images like `images ls`, and fails after that if the image is damaged.
      const output = await cli.query(args);
      const [found] = parseCtrImages(output.stdout);
      if (found !== undefined) return inspected(found, content, ask, parseCtrCheck(output.stdout, found.name));
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

async function inspected(
  { name, target }: CtrImage,
  content: Content,
  ask: AskContent,
  isWhole: boolean,
): Promise<InspectedImage> {
  const common = { imageId: target, repoTags: [name], isWhole };
  try {
    const manifest = parseManifest(await content.blob(ask, target), `manifest ${target}`);
    const { digest } = manifest.config;
    const config = parseConfig(await content.blob(ask, digest), `config ${digest}`);
    return { ...common, ...config, configDigest: await content.configDigest(ask, target) };
  } catch (error) {
    // An index of several platforms, a chart, or an image without content: never a handed-over image.
    if (!(error instanceof HandoverError) || !['tarball-invalid', 'image-missing'].includes(error.code)) throw error;
    return { ...common, platform: platformOf('', ''), diffIds: [], labels: {}, config: {} };
  }
}
