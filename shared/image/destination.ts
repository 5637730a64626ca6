import { HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/** Where an image goes: into the engine, into every node of a cluster, into a containerd of this machine, or nowhere. */
export type Destination =
  | { readonly kind: 'engine' | 'none' }
  | { readonly kind: 'kind' | 'k3d'; readonly cluster: string }
  | { readonly kind: 'containerd'; readonly namespace: string };

// kind calls its cluster so unless it is told otherwise (kind, pkg/cluster/internal/..., DefaultClusterName).
const defaultCluster = 'kind';
// kind's own rule; k3d's names are host names, which are fewer (kind, pkg/cluster/internal/create/create.go; k3d, pkg/client/clusterName.go).
const clusterName = /^[a-z0-9.-]+$/;
// containerd, pkg/identifiers/validate.go
const namespaceName = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

/**
 * @param text `docker`, `none`, `kind`, `kind:NAME`, `k3d:NAME` or `containerd:NAMESPACE`
 * @throws HandoverError `invalid-input`
 */
export function parseDestination(text: string): Destination {
  const [kind = '', ...rest] = text.trim().split(':');
  const name = rest.length === 0 ? undefined : rest.join(':');
  if (name === undefined && kind === 'docker') return { kind: 'engine' };
  if (name === undefined && kind === 'none') return { kind };
  if (name === undefined && kind === 'kind') return { kind, cluster: defaultCluster };
  if (name !== undefined && (kind === 'kind' || kind === 'k3d') && clusterName.test(name))
    return { kind, cluster: name };
  if (name !== undefined && kind === 'containerd' && namespaceName.test(name) && name.length <= 76)
    return { kind, namespace: name };
  throw new HandoverError(
    'invalid-input',
    `The input \`into\` is "${quoteForeign(text)}"; expected docker, none, kind, kind:NAME, k3d:NAME or containerd:NAMESPACE.`,
    'Name the cluster as `kind get clusters` or `k3d cluster list` does: `into: kind:NAME`.',
  );
}

/** The destination as it was given. */
export function formatDestination(destination: Destination): string {
  switch (destination.kind) {
    case 'engine':
      return 'docker';
    case 'none':
      return 'none';
    case 'containerd':
      return `containerd:${destination.namespace}`;
    case 'kind':
    case 'k3d':
      return `${destination.kind}:${destination.cluster}`;
  }
}
