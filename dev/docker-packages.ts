import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where the parts of Docker are on this machine. */
export interface DockerParts {
  /** What goes first on PATH. */
  readonly path: string;
  /** Folders with CLI plugins (buildx) that the client doesn't search by itself. */
  readonly pluginFolders: readonly string[];
  /** Folder of the unpacked packages, or undefined when the machine has Docker itself. */
  readonly unpacked: string | undefined;
}

const wanted = [
  ...['docker.io', 'docker-cli', 'docker-buildx', 'docker-compose', 'containerd', 'docker-registry', 'busybox-static'],
  // docker-init of docker.io is a link to it.
  'tini-static',
] as const;
const stable = ['runc', 'iptables', 'pigz', 'iproute2', 'openssl', 'ca-certificates'] as const;
const ubuntu = ['docker.io', 'docker-buildx', 'docker-compose-v2', 'docker-registry', 'busybox-static'] as const;

/** Where all that dev/ brings to this machine is kept from one run to the next. */
export const cacheRoot = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'image-handover');
const cache = join(cacheRoot, 'docker');
/** The lock of whoever runs apt-get. */
export const aptLock = cache;

/**
 * Finds Docker 28 or newer with buildx, or brings it from the distribution's packages: the current ones are in
 * Debian's unstable suite, and are unpacked beside the stable system without touching it.
 */
export async function dockerParts(): Promise<DockerParts> {
  const root = join(cache, 'root');
  if (isUnpacked(wanted, root)) return unpackedParts(root);
  if (hasDocker()) return systemParts();
  await withLock(aptLock, () => {
    if (!isUnpacked(wanted, root) && !hasDocker()) install(root);
  });
  return isUnpacked(wanted, root) ? unpackedParts(root) : systemParts();
}

function systemParts(): DockerParts {
  return { path: process.env['PATH'] ?? '', pluginFolders: [], unpacked: undefined };
}

function unpackedParts(root: string): DockerParts {
  const bins = ['usr/bin', 'usr/sbin'].map((folder) => join(root, folder));
  return {
    path: [...bins, process.env['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter),
    pluginFolders: [join(root, 'usr/libexec/docker/cli-plugins')],
    unpacked: root,
  };
}

function hasDocker(): boolean {
  try {
    const version = execFileSync('dockerd', ['--version'], { encoding: 'utf8' });
    execFileSync('docker', ['buildx', 'version'], { stdio: 'ignore' });
    return Number(/version (\d+)\./.exec(version)?.[1] ?? 0) >= 28;
  } catch {
    return false; // one of them isn't there
  }
}

/** Does the work while no other process does such work in that folder: two test processes may come here at once. */
export async function withLock(folder: string, work: () => void | Promise<void>): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const lock = join(folder, 'lock');
  while (!taken(lock)) await sleep(500);
  try {
    await work();
  } finally {
    rmSync(lock);
  }
}

function taken(lock: string): boolean {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (!existsSync(lock)) throw error;
    const owner = readFileSync(lock, 'utf8');
    // Nobody takes away the lock of a process that was killed.
    if (owner !== '' && !existsSync(`/proc/${owner}`)) rmSync(lock, { force: true });
    return false;
  }
}

function install(root: string): void {
  if (spawnSync('apt-get', ['--version']).status !== 0) {
    throw new Error('There is no Docker 28 here and no apt-get to bring it: install Docker with buildx first.');
  }
  console.log('Bringing up Docker from the distribution’s packages …');
  apt(['update'], []);
  apt(['install', '-y', '--no-install-recommends', ...stable], []);
  if (/^ID=ubuntu$/m.test(readFileSync('/etc/os-release', 'utf8'))) {
    apt(['install', '-y', '--no-install-recommends', ...ubuntu], []);
    if (!hasDocker()) throw new Error('This Ubuntu’s Docker is older than 28: install a newer one with buildx first.');
    return;
  }
  unpackFromUnstable(wanted, root);
}

/** Downloads packages from Debian's unstable suite, and unpacks what the folder lacks. The lock `aptLock` must be held. */
export function unpackFromUnstable(packages: readonly string[], root: string): void {
  const there = unpackedPackages(root);
  const options = unstableOptions();
  apt(['update'], options);
  const archives = `${root}.debs`;
  // An earlier try may have left other versions of them.
  rmSync(archives, { recursive: true, force: true });
  mkdirSync(archives, { recursive: true });
  apt(['download', ...packages.filter((name) => !there.has(name))], options, archives);
  for (const file of readdirSync(archives)) execFileSync('dpkg', ['-x', join(archives, file), root]);
  rmSync(archives, { recursive: true });
  writeFileSync(join(root, 'complete'), [...new Set([...there, ...packages])].join('\n'));
}

/** Whether all the packages were unpacked into the folder. */
export function isUnpacked(packages: readonly string[], root: string): boolean {
  const there = unpackedPackages(root);
  return packages.every((name) => there.has(name));
}

function unpackedPackages(root: string): ReadonlySet<string> {
  const list = join(root, 'complete');
  return new Set(existsSync(list) ? readFileSync(list, 'utf8').split('\n') : []);
}

/** Runs apt-get, as root or with sudo. Throws what it says when it fails. */
export function apt(args: readonly string[], options: readonly string[] = [], cwd = cache): void {
  const sudo = process.getuid?.() === 0 ? [] : ['sudo'];
  const [program = 'apt-get', ...rest] = [
    ...sudo,
    'apt-get',
    '-qq',
    '-o',
    'APT::Sandbox::User=root',
    ...options,
    ...args,
  ];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const { status, stderr, stdout, error } = spawnSync(program, rest, { cwd, env });
  if (error !== undefined) throw new Error(`There is no ${program} here to bring packages with: ${error.message}`);
  if (status !== 0) throw new Error(`apt-get ${args.join(' ')} failed: ${stderr.toString()}${stdout.toString()}`);
}

// An apt world of its own: the system's lists and preferences stay as they are.
function unstableOptions(): readonly string[] {
  const lists = join(cache, 'apt', 'lists');
  const archives = join(cache, 'apt', 'cache');
  for (const folder of [lists, archives]) mkdirSync(join(folder, 'partial'), { recursive: true });
  const sources = join(cache, 'apt', 'sources.list');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  writeFileSync(sources, `deb [signed-by=${keyring}] ${debianMirror()} unstable main\n`);
  const settings = {
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '-',
    'Dir::State::Lists': lists,
    'Dir::Cache': archives,
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

/** The mirror that this machine's own Debian sources name. */
function debianMirror(): string {
  const parts = '/etc/apt/sources.list.d';
  const files = [
    '/etc/apt/sources.list',
    ...(existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : []),
  ];
  const text = files
    .filter((file) => existsSync(file) && statSync(file).isFile())
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n');
  const mirror = /^(?:URIs:|deb (?:\[[^\]]*\] )?)\s*(\S+\/debian)\/?(?:\s|$)/m.exec(text)?.[1];
  if (mirror === undefined) {
    throw new Error('This machine has no Docker 28 and no Debian package source: install Docker with buildx first.');
  }
  return mirror;
}
