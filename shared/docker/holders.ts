import { HandoverError } from '../base/errors.ts';
import type { Destination } from '../image/destination.ts';
import { type DockerCli, dockerCli, lastLine, must } from './cli.ts';
import { containerdNode } from './containerd-node.ts';
import type { Engine } from './engine.ts';
import { parseSnapshotter } from './output.ts';

/** What an image is loaded into: an engine, or a node of a cluster. */
export interface Holder {
  readonly engine: Engine;
  /** The node's name in its cluster; undefined for the job's own engine. */
  readonly node: string | undefined;
}

// containerd's namespace for Kubernetes' images (containerd, internal/cri/constants).
const kubernetes = 'k8s.io';

/** A tool that runs a cluster's nodes as containers. */
interface ClusterTool {
  /** The label with the cluster's name. */
  readonly cluster: string;
  readonly role: string;
  /** Whether a container with this role is a node. Clusters also have other containers: load balancers, registries. */
  readonly isNode: (role: string) => boolean;
  /** Whether `containerd config dump` shows the snapshotter. */
  readonly showsSnapshotter: boolean;
}

const tools = {
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
  // minikube, pkg/drivers/kic/oci/types.go. The label contains the node's name, and nodes have no role.
  minikube: {
    cluster: 'name.minikube.sigs.k8s.io',
    role: 'role.minikube.sigs.k8s.io',
    isNode: () => true,
    showsSnapshotter: true,
  },
} as const satisfies Readonly<Record<string, ClusterTool>>;

type ToolName = keyof typeof tools;

/**
 * Returns the holders of a destination: no holder for `none`.
 * @param engine the job's own engine
 * @throws HandoverError `cluster-not-found`, `docker-unavailable`
 */
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
    case 'kind':
    case 'k3d':
    case 'minikube':
      return clusterNodes(dockerCli(signal), destination.kind, destination.cluster);
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

interface NodeContainer {
  readonly name: string;
  readonly state: string;
  readonly cluster: string;
}

async function clusterNodes(cli: DockerCli, tool: ToolName, cluster: string): Promise<readonly Holder[]> {
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
async function nodeContainers(cli: DockerCli, tool: ToolName): Promise<readonly NodeContainer[]> {
  const { cluster: label, role, isNode } = tools[tool];
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
    .map(([name = '', state = '', cluster = '']) => ({ name, state, cluster: clusterOf(tool, cluster) }))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

// Further nodes of a minikube cluster are called NAME-m02 and so on (minikube, pkg/minikube/config/node.go, MachineName).
function clusterOf(tool: ToolName, label: string): string {
  return tool === 'minikube' ? label.replace(/-m\d{2,}$/, '') : label;
}

async function clusterNode(cli: DockerCli, tool: ToolName, name: string): Promise<Holder> {
  // As kind runs its own commands in a node.
  const inside = (stdin: boolean): readonly string[] => ['exec', '--privileged', ...(stdin ? ['-i'] : []), name];
  const run = (...command: readonly string[]): Promise<string> =>
    must(cli, 'load-failed', [...inside(false), ...command]);
  if (tool === 'minikube') requireContainerd(name, await run('cat', '/etc/crictl.yaml'));
  const engine = containerdNode({
    cli,
    before: (stdin) => [...inside(stdin), 'ctr', `--namespace=${kubernetes}`],
    architecture: [...inside(false), 'uname', '-m'],
    snapshotter: tools[tool].showsSnapshotter ? parseSnapshotter(await run('containerd', 'config', 'dump')) : undefined,
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
