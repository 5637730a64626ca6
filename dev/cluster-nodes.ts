import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DockerEngine } from './docker-engine.ts';
import { writeRootFilesystem } from './test-images.ts';

// Containers that act as cluster nodes, because no node image can be pulled here. Each runs a real containerd with Kubernetes'
// CRI plugin and has ctr. The labels are those of kind, k3d and minikube. Kubernetes itself is missing.

const image = 'node-of-a-cluster';

/** The image, name and labels of a node's container. */
export interface NodeOptions {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Default: containerd. */
  readonly command?: readonly string[];
}

/** A node's container and its containerd. */
export interface ClusterNode {
  readonly name: string;
  /** Runs ctr in Kubernetes' namespace on the node and returns its output. Throws if it fails. */
  ctr(...args: readonly string[]): string;
}

/** Returns the labels of a kind node (kind, pkg/cluster/internal/providers/docker). */
export function kindLabels(cluster: string, role: string): NodeOptions['labels'] {
  return { 'io.x-k8s.kind.cluster': cluster, 'io.x-k8s.kind.role': role };
}

/** Returns the labels of a k3d node (k3d, pkg/types/types.go). */
export function k3dLabels(cluster: string, role: string): NodeOptions['labels'] {
  return { app: 'k3d', 'k3d.cluster': cluster, 'k3d.role': role };
}

/** Returns the labels of a minikube node (minikube, pkg/drivers/kic/oci/oci.go, CreateContainerNode). */
export function minikubeLabels(node: string): NodeOptions['labels'] {
  return {
    'created_by.minikube.sigs.k8s.io': 'true',
    'name.minikube.sigs.k8s.io': node,
    'role.minikube.sigs.k8s.io': '',
    'mode.minikube.sigs.k8s.io': node,
  };
}

/** Writes a minikube node's configuration file that contains the socket of its container runtime. */
export function setRuntime(engine: Pick<DockerEngine, 'docker'>, node: string, socket: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'ih-crictl-'));
  try {
    writeFileSync(join(folder, 'crictl.yaml'), `runtime-endpoint: unix://${socket}\n`);
    engine.docker('cp', join(folder, 'crictl.yaml'), `${node}:/etc/crictl.yaml`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Imports the node image into an engine: busybox, and the engine's containerd with everything it needs to run containers. */
export async function provideNodeImage(engine: DockerEngine): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ih-node-'));
  try {
    const root = join(folder, 'root');
    await writeRootFilesystem(root);
    for (const program of ['containerd', 'containerd-shim-runc-v2', 'ctr', 'runc'])
      copyProgram(program, engine.env['PATH'] ?? '', root);
    const tarball = join(folder, 'root.tar');
    execFileSync('tar', ['--create', '--owner=0', '--group=0', '--file', tarball, '--directory', root, '.']);
    const changes = ['ENTRYPOINT []', 'CMD ["containerd"]', 'VOLUME /var/lib/containerd', 'ENV PATH=/bin'];
    engine.docker('import', ...changes.flatMap((change) => ['--change', change]), tarball, image);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function copyProgram(name: string, path: string, root: string): void {
  const found = path
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((candidate) => existsSync(candidate));
  if (found === undefined) throw new Error(`Docker's packages contain no ${name}.`);
  copyFileSync(found, join(root, 'bin', name));
  // ldd fails for a static program.
  const { status, stdout } = spawnSync('ldd', [found], { encoding: 'utf8' });
  for (const [library] of status === 0 ? stdout.matchAll(/\/\S+/g) : []) {
    mkdirSync(dirname(join(root, library)), { recursive: true });
    copyFileSync(library, join(root, library));
  }
}

/** Starts a node. If the node runs containerd, waits until containerd responds. */
export async function startNode(
  engine: Pick<DockerEngine, 'docker'>,
  { name, labels, command }: NodeOptions,
): Promise<ClusterNode> {
  const options = Object.entries(labels).flatMap(([key, value]) => ['--label', `${key}=${value}`]);
  engine.docker(
    'run',
    '--detach',
    '--privileged',
    '--network=none',
    '--name',
    name,
    ...options,
    image,
    ...(command ?? []),
  );
  const ctr = (...args: readonly string[]): string => engine.docker('exec', name, 'ctr', '--namespace=k8s.io', ...args);
  if (command === undefined) await waitForContainerd(engine, name);
  return { name, ctr };
}

/** Waits until a node's containerd responds. */
export async function waitForContainerd(engine: Pick<DockerEngine, 'docker'>, name: string): Promise<void> {
  const ctr = (...args: readonly string[]): string => engine.docker('exec', name, 'ctr', '--namespace=k8s.io', ...args);
  for (let tries = 0; !answers(ctr); tries += 1) {
    if (tries === 1200) throw new Error(`containerd did not become ready: ${engine.docker('logs', name)}`);
    await sleep(100);
  }
}

function answers(ctr: ClusterNode['ctr']): boolean {
  try {
    return ctr('plugins', 'ls').includes('cri');
  } catch {
    return false;
  }
}
