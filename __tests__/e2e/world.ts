import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { projectRoot } from '../../dev/action-runner.ts';
import { provideBuildKit } from '../../dev/buildkit-image.ts';
import { type DockerEngine, startDockerEngine } from '../../dev/docker-engine.ts';
import { freePort } from '../../dev/free-port.ts';
import { endChild, spawnOwn } from '../../dev/own-processes.ts';
import { writeRootFilesystem } from '../../dev/test-images.ts';
import { buildKitImage } from '../../dev/buildkit-image.ts';

/** The engine of a job's runner: `builder` for jobs that build, `tester` for the others. */
export type EngineName = 'builder' | 'tester';

/** Shared by all scenarios: two engines, a Git server, and a checkout of this project. */
export interface World {
  readonly directory: string;
  readonly engines: Readonly<Record<EngineName, DockerEngine>>;
  /** Base address of the Git server, which replaces `https://github.com`. */
  readonly gitUrl: string;
  /** The tracked files of this project, which `uses: org/image-handover@v1` fetches. */
  readonly actions: string;
  /** Folder with the replacements of other actions, one folder each. */
  readonly standIns: string;
  /** Folder of programs that comes first on each runner's PATH. */
  readonly programs: string;
  readonly path: string;
  /**
   * Commits to main of the repository org/charon: some files are replaced, added, or removed (undefined).
   * @returns a clone
   */
  repository(files?: Readonly<Record<string, string | undefined>>): string;
  /** Removes all images from both engines. */
  clearEngines(): void;
  stop(): Promise<void>;
}

const here = import.meta.dirname;

export async function startWorld(): Promise<World> {
  const directory = mkdtempSync(join(tmpdir(), 'ih-e2e-'));
  const stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
  try {
    const start = async (
      name: EngineName,
      options: Pick<Parameters<typeof startDockerEngine>[0], 'store' | 'version'>,
    ) => {
      const engine = await startDockerEngine({ ...options, name });
      stack.defer(() => engine.stop());
      return engine;
    };
    // The stores of the runner images for Ubuntu 24.04 and 26.04.
    const builder = await start('builder', { store: 'classic' });
    const tester = await start('tester', { store: 'containerd', version: '29.7' });
    const engines = { builder, tester };
    for (const engine of Object.values(engines)) await provideBuildKit(engine);
    const git = await startGitServer(directory);
    stack.defer(git.stop);
    await writeRootFilesystem(join(directory, 'rootfs'));
    return {
      directory,
      engines,
      gitUrl: git.url,
      actions: copyOfCheckout(directory),
      standIns: linkStandIns(directory),
      programs: writePrograms(directory, engines),
      path: tester.env['PATH'] ?? '',
      repository: (files = {}) => commit(directory, files),
      clearEngines: () => {
        for (const engine of Object.values(engines)) clear(engine);
      },
      stop: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

function clear(engine: DockerEngine): void {
  const ids = (...args: readonly string[]): readonly string[] =>
    engine
      .docker(...args)
      .split('\n')
      .filter((line) => line !== '');
  const containers = ids('ps', '--all', '--quiet');
  if (containers.length > 0) engine.docker('rm', '--force', '--volumes', ...containers);
  engine.docker('network', 'prune', '--force');
  const references = ids('image', 'ls', '--format', '{{.Repository}}:{{.Tag}} {{.ID}}')
    .map((line) => line.split(' '))
    .filter(([reference]) => reference !== buildKitImage)
    .map(([reference = '', id = '']) => (reference.includes('<none>') ? id : reference));
  if (references.length > 0) engine.docker('image', 'rm', '--force', ...references);
}

function copyOfCheckout(directory: string): string {
  const target = join(directory, 'image-handover');
  const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { cwd: projectRoot, encoding: 'utf8' });
  const isFetched = (name: string): boolean => /(^|\/)action\.yml$|^dist\//.test(name);
  // Tracked files may be missing: a new build can name its chunks differently.
  const exists = (name: string): boolean => existsSync(join(projectRoot, name));
  for (const file of files.trim().split('\n').filter(isFetched).filter(exists)) {
    mkdirSync(dirname(join(target, file)), { recursive: true });
    copyFileSync(join(projectRoot, file), join(target, file));
  }
  return target;
}

// act copies links unchanged, so the replacements run from this folder, with their shared files and this project's packages.
function linkStandIns(directory: string): string {
  const target = join(directory, 'stand-ins');
  for (const { name } of readdirSync(join(here, 'actions'), { withFileTypes: true }).filter((item) =>
    item.isDirectory(),
  )) {
    const source = join(here, 'actions', name);
    mkdirSync(join(target, name), { recursive: true });
    for (const file of readdirSync(source)) {
      if (file === 'action.yml') copyFileSync(join(source, file), join(target, name, file));
      else symlinkSync(join(source, file), join(target, name, file));
    }
  }
  return target;
}

/**
 * Writes the programs that differ between the runners on this machine. `docker` uses the engine of the job's runner, with its own
 * builders. `node` gets the job's token, which actions have and `run:` steps don't. `gh` verifies attestations. `kubectl` starts
 * containers on a node as its kubelet would.
 */
function writePrograms(directory: string, engines: World['engines']): string {
  const folder = join(directory, 'programs');
  mkdirSync(folder);
  const write = (name: string, lines: readonly string[]): void => {
    writeFileSync(join(folder, name), ['#!/bin/bash', ...lines, ''].join('\n'));
    chmodSync(join(folder, name), 0o755);
  };
  const settings = Object.entries(engines).map(([name, { env }]) => {
    const own = ['DOCKER_HOST', 'DOCKER_CONFIG'].map((key) => `export ${key}='${env[key] ?? ''}'`);
    return `${name}) ${own.join('; ')} ;;`;
  });
  const docker = execFileSync('which', ['docker'], {
    env: { ...process.env, PATH: engines.tester.env['PATH'] },
    encoding: 'utf8',
  }).trim();
  const selectJob = ['case "$(cat "$E2E_JOBS/$GITHUB_JOB/engine")" in', ...settings, 'esac'];
  write('docker', [...selectJob, 'export BUILDX_CONFIG="$RUNNER_TEMP/.buildx"', `exec '${docker}' "$@"`]);
  // Actions also read docker's configuration.
  write('node', [...selectJob, '. "$E2E_JOBS/$GITHUB_JOB/variables"', `exec '${process.execPath}' "$@"`]);
  // Lists the attestations of the replaced actions/attest.
  write('gh', [
    '[ "$1 $2 $4" = "attestation verify --repo" ] || { echo "unknown command: gh $*" >&2; exit 2; }',
    '[ -n "$GH_TOKEN" ] || { echo "gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable." >&2; exit 4; }',
    'digest="sha256:$(sha256sum "$3" | cut -d" " -f1)"',
    'grep -qx "$digest" "$E2E_JOBS/attested" && echo "Loaded digest $digest for file://$3" && echo "✓ Verification succeeded!" && exit',
    'echo "Error: no attestations found for subject $digest" >&2; exit 1',
  ]);
  // Runs a container in the node's containerd, from its image with that name. There is no Kubernetes here.
  write('kubectl', [
    '[ "$1 ${3%%=*} ${*:4}" = "run --image --image-pull-policy=Never --restart=Never --attach" ] || { echo "unknown command: kubectl $*" >&2; exit 1; }',
    'name="docker.io/library/${3#--image=}"',
    'node=$(docker ps --quiet --filter label=io.x-k8s.kind.role=control-plane)',
    'ctr() { docker exec "$node" ctr --namespace=k8s.io "$@"; }',
    '[ "$(ctr images ls -q "name==$name")" = "$name" ] || { echo "pod/$2: ErrImageNeverPull: $name is not present" >&2; exit 1; }',
    'ctr run --rm "$name" "$2"',
  ]);
  return folder;
}

async function startGitServer(
  directory: string,
): Promise<{ readonly url: string; readonly stop: () => Promise<void> }> {
  const base = join(directory, 'git');
  mkdirSync(join(base, 'org'), { recursive: true });
  execFileSync('git', ['init', '--quiet', '--bare', '--initial-branch=main', join(base, 'org', 'charon.git')]);
  const port = String(await freePort());
  const child = spawnOwn(
    'git',
    ['daemon', '--export-all', `--base-path=${base}`, '--listen=127.0.0.1', `--port=${port}`, '--reuseaddr', base],
    { stdio: 'ignore' },
  );
  const url = `git://127.0.0.1:${port}`;
  const answers = (): boolean => {
    try {
      execFileSync('git', ['ls-remote', `${url}/org/charon`], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  };
  for (let tries = 0; !answers(); tries += 1) {
    if (tries === 1200) throw new Error('git daemon did not become ready');
    await sleep(100);
  }
  return { url, stop: () => endChild(child, 5000) };
}

let clones = 0;

function commit(directory: string, files: Readonly<Record<string, string | undefined>>): string {
  const clone = join(directory, `charon-${String((clones += 1))}`);
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', clone, '-c', 'user.name=test', '-c', 'user.email=test@example.org', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  cpSync(join(projectRoot, 'examples', 'app'), clone, { recursive: true, verbatimSymlinks: true });
  cpSync(join(directory, 'rootfs'), join(clone, 'rootfs'), { recursive: true, verbatimSymlinks: true });
  for (const [name, content] of Object.entries(files)) {
    const path = join(clone, name);
    mkdirSync(dirname(path), { recursive: true });
    if (content === undefined) rmSync(path, { recursive: true });
    else writeFileSync(path, content, { mode: content.startsWith('#!') ? 0o755 : 0o644 });
  }
  // No registry here has the base image.
  const dockerfile = join(clone, 'Dockerfile');
  if (existsSync(dockerfile))
    writeFileSync(
      dockerfile,
      readFileSync(dockerfile, 'utf8').replace(/^FROM busybox (AS \w+)$/m, `FROM scratch $1\nCOPY rootfs /`),
    );
  execFileSync('git', ['init', '--quiet', '--initial-branch=main', clone]);
  git('add', '--all');
  git('commit', '--quiet', '--message', 'A commit to be built');
  git('push', '--quiet', '--force', join(directory, 'git', 'org', 'charon.git'), 'main');
  git('remote', 'add', 'origin', 'https://github.com/org/charon');
  return clone;
}

/** Returns the value of PATH on a runner. */
export function runnerPath({ programs, path }: World): string {
  return [programs, path].join(delimiter);
}
