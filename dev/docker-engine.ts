import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type DockerParts, dockerParts } from './docker-packages.ts';
import { goPart } from './go-parts.ts';
import { endChild, spawnOwn, onExit } from './own-processes.ts';

export type ImageStore = 'classic' | 'containerd';

/** `packaged` is the machine's Docker or the distribution's (28 or newer); the other is built from source. */
export const dockerVersions = ['packaged', '29.7'] as const;
export type DockerVersion = (typeof dockerVersions)[number];

/** Access to an engine. */
export interface EngineClient {
  readonly host: string;
  readonly store: ImageStore;
  /** Environment variables that make a docker client use this engine. */
  readonly env: Readonly<Record<string, string>>;
  readonly dataRoot: string;
  /** Socket of the containerd that the engine starts, with either store. */
  readonly containerd: string;
  /** Runs docker on this engine and returns its output. Throws if it fails. */
  docker(...args: readonly string[]): string;
}

/** An engine that this process started, with its own socket, data and processes. */
export interface DockerEngine extends EngineClient {
  /** The folder with all files of the engine. */
  readonly root: string;
  /** Sends the daemon a signal (SIGSTOP, SIGCONT, SIGKILL). */
  signal(signal: NodeJS.Signals): void;
  /** Restarts the daemon, killing it first if it still runs. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

// Starting takes seconds on an idle machine.
const readyMs = 240_000;

/** Starts an engine and waits until it responds. Doesn't touch other engines on the machine. */
export async function startDockerEngine(options: {
  readonly store: ImageStore;
  /** Default: `packaged`. */
  readonly version?: DockerVersion;
  /** Part of the folder's name, to tell engines apart. */
  readonly name?: string;
  /** Parent folder of the engine's folder. Default: the system's temporary folder. */
  readonly folder?: string;
}): Promise<DockerEngine> {
  if (process.getuid?.() !== 0) throw new Error('Starting a Docker engine needs root: run this with sudo.');
  const parts = await partsOf(options.version ?? 'packaged');
  const root = mkdtempSync(join(options.folder ?? tmpdir(), `ih-${options.name ?? options.store}-`));
  const client = clientAt(parts, options.store, root, root);
  let child = spawnDaemon(parts, root, options.store);
  const forget = onExit(() => stopAtOnce(child, root));
  const stop = async (): Promise<void> => {
    await endChild(child, 20_000);
    forget();
    removeRoot(root);
  };
  const isReady = (): Promise<void> =>
    waitUntilReady(child, root, () => runDocker(client.env, ['info', '--format', '{{.ServerVersion}}'], 60_000));
  try {
    await isReady();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    ...client,
    root,
    signal: (signal) => void child.kill(signal),
    restart: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      // Child processes of the killed daemon hold its locks.
      killMarked(root);
      rmSync(join(root, 'pid'), { force: true });
      child = spawnDaemon(parts, root, options.store);
      await isReady();
    },
    stop,
  };
}

/** Client, buildx and containerd always come from the packages. */
async function partsOf(version: DockerVersion): Promise<DockerParts> {
  const parts = await dockerParts();
  if (version === 'packaged') return parts;
  const path = [await goPart('dockerd'), await goPart('runc'), parts.path].join(delimiter);
  return { ...parts, path };
}

/**
 * Returns a client of an engine that another process has started.
 * @param root the engine's folder
 * @param folder where the client stores its logins and builders
 */
export async function clientOf(
  { root, store, version }: { readonly root: string; readonly store: ImageStore; readonly version: DockerVersion },
  folder: string,
): Promise<EngineClient> {
  return clientAt(await partsOf(version), store, root, folder);
}

function clientAt(parts: DockerParts, store: ImageStore, root: string, folder: string): EngineClient {
  const config = join(folder, 'config');
  mkdirSync(config, { recursive: true });
  writeFileSync(join(config, 'config.json'), JSON.stringify({ cliPluginsExtraDirs: parts.pluginFolders }));
  const host = `unix://${join(root, 'docker.sock')}`;
  const env = { PATH: parts.path, DOCKER_HOST: host, DOCKER_CONFIG: config, BUILDX_CONFIG: join(folder, 'buildx') };
  return {
    host,
    store,
    env,
    dataRoot: join(root, 'data'),
    containerd: join(root, 'exec', 'containerd', 'containerd.sock'),
    docker: (...args) => runDocker(env, args),
  };
}

function runDocker(env: EngineClient['env'], args: readonly string[], timeout?: number): string {
  return execFileSync('docker', args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 28,
    timeout,
  }).toString();
}

function spawnDaemon(parts: DockerParts, root: string, store: ImageStore): ChildProcess {
  const config = join(root, 'daemon.json');
  writeFileSync(config, JSON.stringify({ features: { 'containerd-snapshotter': store === 'containerd' } }));
  const log = openSync(join(root, 'log'), 'a');
  const child = spawnOwn(
    'dockerd',
    [
      ...['--config-file', config, '--data-root', join(root, 'data'), '--exec-root', join(root, 'exec')],
      ...['-p', join(root, 'pid'), '-H', `unix://${join(root, 'docker.sock')}`],
      // No bridge: two engines would compete for one, and the handover needs no network.
      ...['--bridge', 'none', '--iptables=false', '--ip6tables=false'],
    ],
    { env: { ...process.env, PATH: parts.path, [mark]: root }, stdio: ['ignore', log, log] },
  );
  closeSync(log);
  return child;
}

// An environment variable of every process of an engine.
const mark = 'IMAGE_HANDOVER_ENGINE';

function killMarked(root: string): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`${mark}=${root}\0`))
        process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
}

async function waitUntilReady(child: ChildProcess, root: string, query: () => string): Promise<void> {
  const giveUpAt = Date.now() + readyMs;
  let last: unknown;
  while (Date.now() < giveUpAt && child.exitCode === null && child.signalCode === null) {
    try {
      query();
      return;
    } catch (error) {
      last = error;
      await sleep(200);
    }
  }
  const log = readFileSync(join(root, 'log'), 'utf8').trim().split('\n').slice(-15).join('\n');
  throw new Error(`The Docker engine did not become ready (${String(last)}). The end of its log:\n${log}`);
}

// Runs at exit, where nothing can be awaited.
function stopAtOnce(child: ChildProcess, root: string): void {
  child.kill('SIGTERM');
  const neverNotified = new Int32Array(new SharedArrayBuffer(4));
  // The engine removes its pid file when it ends.
  for (let tries = 0; existsSync(join(root, 'pid')) && tries < 100; tries += 1) Atomics.wait(neverNotified, 0, 0, 100);
  removeRoot(root);
}

function removeRoot(root: string): void {
  unmountBelow(root);
  rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}

function unmountBelow(root: string): void {
  const points = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  for (const point of points.filter((path) => path.startsWith(`${root}/`)).reverse())
    execFileSync('umount', ['-l', point]);
}

const usage = `usage: node dev/docker-engine.ts install | start --store classic|containerd --version ${dockerVersions.join('|')}`;

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { store: { type: 'string' }, version: { type: 'string' } },
  });
  const { store = 'classic' } = values;
  const version = dockerVersions.find((known) => known === (values.version ?? 'packaged'));
  if (positionals[0] === 'install') {
    const { unpacked } = await dockerParts();
    console.log(unpacked === undefined ? 'Docker is on PATH.' : `Docker is in ${unpacked}.`);
  } else if (positionals[0] === 'start' && (store === 'classic' || store === 'containerd') && version !== undefined) {
    const engine = await startDockerEngine({ store, version });
    for (const [name, value] of Object.entries(engine.env)) console.log(`export ${name}='${value}'`);
    console.log(`# A ${store} engine runs at ${engine.host} until you press Ctrl-C.`);
    setInterval(() => undefined, 60_000);
  } else {
    console.error(usage);
    process.exitCode = 2;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
