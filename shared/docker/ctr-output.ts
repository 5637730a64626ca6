import { type Digest, isDigest } from '../image/digest.ts';

// Pure readers of ctr's output.

/** An image in containerd's list: a name, and its manifest or index. */
export interface CtrImage {
  readonly name: string;
  readonly target: Digest;
}

/** Reads `ctr images ls` and `ctr images check` (containerd, cmd/ctr/commands/images/images.go: REF, TYPE, DIGEST, …). */
export function parseCtrImages(text: string): readonly CtrImage[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', , target] = line.trim().split(/\s+/);
    return isDigest(target) ? [{ name, target }] : [];
  });
}

/** Reads `ctr images check`: whether all of an image's content is there (STATUS `complete (3/3)`). */
export function parseCtrCheck(text: string, name: string): boolean {
  const line = text.split('\n').find((one) => one.split(/\s/)[0] === name);
  return /\scomplete \((\d+)\/\1\)\s/.test(line ?? '');
}

/**
 * Reads `ctr content ls` of one manifest: the config digest that containerd itself read from it, in the label that keeps the config
 * (core/images/handlers.go, SetChildrenMappedLabels; core/images/mediatypes.go, ChildGCLabels).
 * @returns undefined when there is no such label
 */
export function parseCtrConfigDigest(text: string, manifest: Digest): Digest | undefined {
  const line = text.split('\n').find((one) => one.split(/\s/)[0] === manifest);
  const digest = /\bcontainerd\.io\/gc\.ref\.content\.config=([^,\s]+)/.exec(line ?? '')?.[1];
  return isDigest(digest) ? digest : undefined;
}

/** Reads the snapshotter of Kubernetes' containers from `containerd config dump` of containerd 1 or 2. Undefined if there is none. */
export function parseSnapshotter(text: string): string | undefined {
  let isImages = false;
  for (const line of text.split('\n').map((one) => one.trim())) {
    if (line.startsWith('[')) {
      isImages = /io\.containerd\.grpc\.v1\.cri['"]\.containerd\]$|io\.containerd\.cri\.v1\.images['"]\]$/.test(line);
    }
    const found = isImages ? /^snapshotter = ['"]([\w.-]+)['"]$/.exec(line)?.[1] : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
