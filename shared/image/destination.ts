import { invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/**
 * The tools that run a cluster's nodes as containers: the rule for names of clusters, and the name of the default cluster. A new tool gets
 * a row here, and the compiler then asks for its row in docker/holders.ts.
 */
const clusterTools = [
  // kind, pkg/cluster/internal/create/create.go
  { tool: 'kind', names: /^[a-z0-9.-]+$/, usual: 'kind' },
  // Host names, which are fewer (k3d, pkg/client/clusterName.go).
  { tool: 'k3d', names: /^[a-z0-9.-]+$/, usual: undefined },
  // minikube, pkg/minikube/config/profile.go, ProfileNameValid
  { tool: 'minikube', names: /^[a-zA-Z0-9][a-zA-Z0-9-]+$/, usual: 'minikube' },
] as const;

export type ClusterTool = (typeof clusterTools)[number]['tool'];

/** The destination of an image: the engine, every node of a cluster, a containerd of this machine, or none. */
export type Destination =
  | { readonly kind: 'engine' | 'none' }
  | { readonly kind: 'cluster'; readonly tool: ClusterTool; readonly cluster: string }
  | { readonly kind: 'containerd'; readonly namespace: string };

// containerd, pkg/identifiers/validate.go
const namespaceName = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

/**
 * @param text `docker`, `none`, `containerd:NAMESPACE`, or a tool with or without the name of a cluster, such as `kind:NAME`
 * @throws HandoverError `invalid-input`
 */
export function parseDestination(text: string): Destination {
  const [kind = '', ...rest] = text.trim().split(':');
  const name = rest.length === 0 ? undefined : rest.join(':');
  if (name === undefined && kind === 'docker') return { kind: 'engine' };
  if (name === undefined && kind === 'none') return { kind };
  if (name !== undefined && kind === 'containerd' && namespaceName.test(name) && name.length <= 76)
    return { kind, namespace: name };
  const row = clusterTools.find(({ tool }) => tool === kind);
  const cluster = name ?? row?.usual;
  if (row !== undefined && cluster !== undefined && row.names.test(cluster))
    return { kind: 'cluster', tool: row.tool, cluster };
  const clusters = clusterTools.flatMap(({ tool, usual }) => [...(usual === undefined ? [] : [tool]), `${tool}:NAME`]);
  throw invalidInput(
    `The input \`into\` is "${quoteForeign(text)}"; expected docker, none, ${clusters.join(', ')} or containerd:NAMESPACE.`,
    'Use the name that `kind get clusters`, `k3d cluster list` or `minikube profile list` shows: `into: kind:NAME`.',
  );
}

/** The destination as it was given. */
export function formatDestination(destination: Destination): string {
  if (destination.kind === 'engine') return 'docker';
  if (destination.kind === 'cluster') return `${destination.tool}:${destination.cluster}`;
  return 'namespace' in destination ? `${destination.kind}:${destination.namespace}` : destination.kind;
}
