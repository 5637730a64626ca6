import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type DockerParts, dockerParts } from './docker-packages.ts';

export type ImageStore = 'classic' | 'containerd';

/** An engine of our own: its own socket, data and processes. */
export interface DockerEngine {
  readonly host: string;
  readonly store: ImageStore;
  /** What a docker client needs in its environment to talk to this engine. */
  readonly env: Readonly<Record<string, string>>;
  readonly dataRoot: string;
  /** Runs docker against this engine and returns what it prints. Throws when it fails. */
  docker(...args: readonly string[]): string;
  stop(): Promise<void>;
}

const readyMs = 60_000;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM');
});
// A signal would end this process without its exit handlers, and leave the engines behind.
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));

/** Starts an engine and waits until it answers. It touches no other engine on the machine. */
export async function startDockerEngine(options: { readonly store: ImageStore }): Promise<DockerEngine> {
  const parts = await dockerParts();
  const root = mkdtempSync(join(tmpdir(), `ih-${options.store}-`));
  const env = clientEnvironment(parts, root);
  const child = spawnDaemon(parts, root, options.store);
  running.add(child);
  const engine = {
    host: `unix://${join(root, 'docker.sock')}`,
    store: options.store,
    env,
    dataRoot: join(root, 'data'),
  };
  const docker = (...args: readonly string[]): string =>
    execFileSync('docker', args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 1 << 28,
    }).toString();
  try {
    await ready(child, root, () => docker('info', '--format', '{{.ServerVersion}}'));
  } catch (error) {
    await stop(child, root);
    throw error;
  }
  return { ...engine, docker, stop: () => stop(child, root) };
}

function clientEnvironment(parts: DockerParts, root: string): Readonly<Record<string, string>> {
  const config = join(root, 'config');
  mkdirSync(config);
  writeFileSync(join(config, 'config.json'), JSON.stringify({ cliPluginsExtraDirs: parts.pluginFolders }));
  return {
    PATH: parts.path,
    DOCKER_HOST: `unix://${join(root, 'docker.sock')}`,
    DOCKER_CONFIG: config,
    BUILDX_CONFIG: join(root, 'buildx'),
  };
}

function spawnDaemon(parts: DockerParts, root: string, store: ImageStore): ChildProcess {
  const config = join(root, 'daemon.json');
  writeFileSync(config, JSON.stringify({ features: { 'containerd-snapshotter': store === 'containerd' } }));
  const log = openSync(join(root, 'log'), 'a');
  const child = spawn(
    'dockerd',
    [
      ...['--config-file', config, '--data-root', join(root, 'data'), '--exec-root', join(root, 'exec')],
      ...['-p', join(root, 'pid'), '-H', `unix://${join(root, 'docker.sock')}`],
      // No bridge of its own: two engines would fight over one, and the handover needs no network.
      ...['--bridge', 'none', '--iptables=false', '--ip6tables=false'],
    ],
    { env: { ...process.env, PATH: parts.path }, stdio: ['ignore', log, log] },
  );
  closeSync(log);
  return child;
}

async function ready(child: ChildProcess, root: string, ask: () => string): Promise<void> {
  const giveUpAt = Date.now() + readyMs;
  let last: unknown;
  while (Date.now() < giveUpAt && child.exitCode === null) {
    try {
      ask();
      return;
    } catch (error) {
      last = error;
      await sleep(200);
    }
  }
  const log = readFileSync(join(root, 'log'), 'utf8').trim().split('\n').slice(-15).join('\n');
  throw new Error(`The Docker engine did not get ready (${String(last)}). Its last words:\n${log}`);
}

async function stop(child: ChildProcess, root: string): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), 20_000);
    await ended;
    clearTimeout(killer);
  }
  running.delete(child);
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

async function main(): Promise<void> {
  const store = process.argv[2] === 'containerd' ? 'containerd' : 'classic';
  const engine = await startDockerEngine({ store });
  for (const [name, value] of Object.entries(engine.env)) console.log(`export ${name}='${value}'`);
  console.log(`# A ${store} engine runs at ${engine.host} until you press Ctrl-C.`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal);
    process.on(signal, () => void engine.stop().then(() => process.exit(0)));
  }
  await new Promise(() => setInterval(() => undefined, 60_000));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
