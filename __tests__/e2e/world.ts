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

/** Which engine a job's runner has: that of the jobs that build, or one where nothing of theirs can be found. */
export type EngineName = 'builder' | 'tester';

/** What all scenarios share: two engines, a Git server, and this checkout as GitHub would have it. */
export interface World {
  readonly directory: string;
  readonly engines: Readonly<Record<EngineName, DockerEngine>>;
  /** Base address of the Git server, as `https://github.com` is one. */
  readonly gitUrl: string;
  /** This checkout without what Git doesn't know: what `uses: org/image-handover@v1` fetches. */
  readonly actions: string;
  /** The stand-ins for other actions, a folder for each. */
  readonly standIns: string;
  /** A folder of programs that each runner has first on its PATH. */
  readonly programs: string;
  readonly path: string;
  /**
   * Makes a commit of the repository org/charon the tip of main: its files, with some replaced, added, or (undefined) removed.
   * @returns a clone of it
   */
  repository(files?: Readonly<Record<string, string | undefined>>): string;
  /** Removes all images of the scenario before from both engines. */
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
    // As on the images of Ubuntu 24.04 and 26.04.
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
  // What Git still knows may be gone: a new build can name its pieces differently.
  const isThere = (name: string): boolean => existsSync(join(projectRoot, name));
  for (const file of files.trim().split('\n').filter(isFetched).filter(isThere)) {
    mkdirSync(dirname(join(target, file)), { recursive: true });
    copyFileSync(join(projectRoot, file), join(target, file));
  }
  return target;
}

// Links, which act copies as they are: so the stand-ins run from here, with what they share and this project's packages.
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
 * The programs in which one job's runner differs from another's on this one machine: `docker`, which speaks to the engine of that
 * runner with builders of its own, `node`, which gets the token of that job, as actions do and `run:` steps don't; `gh`; and
 * `kubectl`, which does on a node what its kubelet would do.
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
  const ofTheJob = ['case "$(cat "$E2E_JOBS/$GITHUB_JOB/engine")" in', ...settings, 'esac'];
  write('docker', [...ofTheJob, 'export BUILDX_CONFIG="$RUNNER_TEMP/.buildx"', `exec '${docker}' "$@"`]);
  // Actions look into docker's configuration, too.
  write('node', [...ofTheJob, '. "$E2E_JOBS/$GITHUB_JOB/variables"', `exec '${process.execPath}' "$@"`]);
  // What the stand-in of actions/attest has put on its list.
  write('gh', [
    '[ "$1 $2 $4" = "attestation verify --repo" ] || { echo "unknown command: gh $*" >&2; exit 2; }',
    '[ -n "$GH_TOKEN" ] || { echo "gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable." >&2; exit 4; }',
    'digest="sha256:$(sha256sum "$3" | cut -d" " -f1)"',
    'grep -qx "$digest" "$E2E_JOBS/attested" && echo "Loaded digest $digest for file://$3" && echo "✓ Verification succeeded!" && exit',
    'echo "Error: no attestations found for subject $digest" >&2; exit 1',
  ]);
  // There is no Kubernetes here. The container is one of the node's own containerd, of the image that it has under that name.
  write('kubectl', [
    '[ "$1 ${3%%=*} ${*:4}" = "run --image --image-pull-policy=Never --restart=Never --attach" ] || { echo "unknown command: kubectl $*" >&2; exit 1; }',
    'name="docker.io/library/${3#--image=}"',
    'node=$(docker ps --quiet --filter label=io.x-k8s.kind.role=control-plane)',
    'ctr() { docker exec "$node" ctr --namespace=k8s.io "$@"; }',
    '[ "$(ctr images ls -q "name==$name")" = "$name" ] || { echo "pod/$2: ErrImageNeverPull: $name isn’t there" >&2; exit 1; }',
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
    if (tries === 1200) throw new Error('git daemon did not get ready');
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
  // No registry here has the image.
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

/** What goes first on a runner's PATH. */
export function runnerPath({ programs, path }: World): string {
  return [programs, path].join(delimiter);
}
