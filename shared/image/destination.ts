import { invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/** The destination of an image: the engine, every node of a cluster, a containerd of this machine, or none. */
export type Destination =
  | { readonly kind: 'engine' | 'none' }
  | { readonly kind: 'kind' | 'k3d' | 'minikube'; readonly cluster: string }
  | { readonly kind: 'containerd'; readonly namespace: string };

// kind's own rule; k3d's names are host names, which are fewer (kind, pkg/cluster/internal/create/create.go; k3d, pkg/client/clusterName.go).
const clusterName = /^[a-z0-9.-]+$/;
// minikube, pkg/minikube/config/profile.go, ProfileNameValid
const profileName = /^[a-zA-Z0-9][a-zA-Z0-9-]+$/;
// containerd, pkg/identifiers/validate.go
const namespaceName = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

/**
 * @param text `docker`, `none`, `kind`, `kind:NAME`, `k3d:NAME`, `minikube`, `minikube:PROFILE` or `containerd:NAMESPACE`
 * @throws HandoverError `invalid-input`
 */
export function parseDestination(text: string): Destination {
  const [kind = '', ...rest] = text.trim().split(':');
  const name = rest.length === 0 ? undefined : rest.join(':');
  if (name === undefined && kind === 'docker') return { kind: 'engine' };
  if (name === undefined && kind === 'none') return { kind };
  // Both tools call their default cluster after themselves.
  if (name === undefined && (kind === 'kind' || kind === 'minikube')) return { kind, cluster: kind };
  if (name !== undefined && (kind === 'kind' || kind === 'k3d') && clusterName.test(name))
    return { kind, cluster: name };
  if (name !== undefined && kind === 'minikube' && profileName.test(name)) return { kind, cluster: name };
  if (name !== undefined && kind === 'containerd' && namespaceName.test(name) && name.length <= 76)
    return { kind, namespace: name };
  throw invalidInput(
    `The input \`into\` is "${quoteForeign(text)}"; expected docker, none, kind, kind:NAME, k3d:NAME, minikube, minikube:PROFILE or containerd:NAMESPACE.`,
    'Use the name that `kind get clusters`, `k3d cluster list` or `minikube profile list` shows: `into: kind:NAME`.',
  );
}

/** The destination as it was given. */
export function formatDestination(destination: Destination): string {
  if (destination.kind === 'engine') return 'docker';
  if ('cluster' in destination) return `${destination.kind}:${destination.cluster}`;
  return 'namespace' in destination ? `${destination.kind}:${destination.namespace}` : destination.kind;
}
