import { HandoverError } from '../base/errors.ts';
import type { Destination } from '../image/destination.ts';
import { type DockerCli, dockerCli, failedCommand, lastLine } from './cli.ts';
import { containerdNode } from './containerd-node.ts';
import { parseSnapshotter } from './ctr-output.ts';
import type { Engine } from './engine.ts';

/** What an image is loaded into: an engine, or a node of a cluster. */
export interface Holder {
  readonly engine: Engine;
  /** The node's name in its cluster; undefined for the job's own engine. */
  readonly node: string | undefined;
}

// Kubernetes' images are in this namespace of containerd (containerd, internal/cri/constants).
const kubernetes = 'k8s.io';

// How nodes are known among the engine's containers (kind, pkg/cluster/internal/providers/docker/constants.go and
// pkg/cluster/constants/constants.go; k3d, pkg/types/types.go). Clusters have other containers too: load balancers, registries.
const labels = {
  kind: { cluster: 'io.x-k8s.kind.cluster', role: 'io.x-k8s.kind.role', nodes: ['control-plane', 'worker'] },
  k3d: { cluster: 'k3d.cluster', role: 'k3d.role', nodes: ['server', 'agent'] },
} as const;

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
      return clusterNodes(dockerCli(signal), destination.kind, destination.cluster);
  }
}

async function localNode(cli: DockerCli, namespace: string): Promise<Holder> {
  const output = await cli.query(['version']);
  if (output.exitCode !== 0) {
    throw new HandoverError(
      'docker-unavailable',
      `No containerd answers: ${lastLine(output)}`,
      'Start it, or name its socket in the environment variable CONTAINERD_ADDRESS. The socket is root’s as a rule: let this ' +
        'user have it, or run the job as root.',
    );
  }
  const before = [`--namespace=${namespace}`];
  const engine = containerdNode({ cli, before: () => before, architecture: undefined, snapshotter: undefined });
  return { node: `containerd:${namespace}`, engine };
}

async function clusterNodes(cli: DockerCli, kind: keyof typeof labels, cluster: string): Promise<readonly Holder[]> {
  const { cluster: clusterLabel, role, nodes } = labels[kind];
  const rows = await containers(cli, `${clusterLabel}=${cluster}`, `{{.Names}}\t{{.State}}\t{{.Label "${role}"}}`);
  const found = rows.filter(([, , itsRole = '']) => nodes.some((one) => one === itsRole));
  if (found.length === 0) throw await noCluster(cli, kind, cluster);
  const still = found.filter(([, state]) => state !== 'running');
  if (still.length > 0) {
    throw new HandoverError(
      'cluster-not-found',
      `Of the nodes of ${kind}’s cluster "${cluster}", ${still.map(([name = '', state = '']) => `${name} is ${state}`).join(', ')}.`,
      'Start the cluster’s nodes, or create the cluster again.',
    );
  }
  return Promise.all(found.map(([name = '']) => clusterNode(cli, kind, name)));
}

async function containers(cli: DockerCli, label: string, format: string): Promise<readonly (readonly string[])[]> {
  const args = ['ps', '--all', '--filter', `label=${label}`, '--format', format];
  const output = await cli.query(args);
  if (output.exitCode !== 0) {
    throw new HandoverError(
      'docker-unavailable',
      `The nodes can't be listed: ${lastLine(output)}`,
      'Nodes of kind and k3d are containers of docker: check that its engine runs here, and DOCKER_HOST.',
    );
  }
  const lines = output.stdout.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => line.split('\t')).sort(([one = ''], [other = '']) => (one < other ? -1 : 1));
}

async function noCluster(cli: DockerCli, kind: keyof typeof labels, cluster: string): Promise<HandoverError> {
  const { cluster: label } = labels[kind];
  const rows = await containers(cli, label, `{{.Label "${label}"}}`);
  const names = [...new Set(rows.map(([name = '']) => name))];
  return new HandoverError(
    'cluster-not-found',
    `${kind} has no cluster "${cluster}" in this engine; ${names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`}.`,
    `Create the cluster in a step before this one, or correct \`into: ${kind}:NAME\`.`,
  );
}

async function clusterNode(cli: DockerCli, kind: keyof typeof labels, name: string): Promise<Holder> {
  // As kind runs its own commands in a node.
  const inside = (stdin: boolean): readonly string[] => ['exec', '--privileged', ...(stdin ? ['-i'] : []), name];
  const dump = [...inside(false), 'containerd', 'config', 'dump'];
  const output = kind === 'kind' ? await cli.query(dump) : undefined;
  if (output !== undefined && output.exitCode !== 0) throw failedCommand(cli, 'load-failed', dump, output);
  const engine = containerdNode({
    cli,
    before: (stdin) => [...inside(stdin), 'ctr', `--namespace=${kubernetes}`],
    architecture: [...inside(false), 'uname', '-m'],
    snapshotter: output === undefined ? undefined : parseSnapshotter(output.stdout),
  });
  return { node: name, engine };
}
