import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Locations of Docker's programs and plugins on this machine. */
export interface DockerParts {
  /** Value of PATH that finds them. */
  readonly path: string;
  /** Folders with CLI plugins (buildx) that the client doesn't search by default. */
  readonly pluginFolders: readonly string[];
  /** Folder of the unpacked packages; undefined if Docker is installed on the machine. */
  readonly unpacked: string | undefined;
}

const wanted = [
  ...['docker.io', 'docker-cli', 'docker-buildx', 'docker-compose', 'containerd', 'docker-registry', 'busybox-static'],
  // docker.io's docker-init is a link to it.
  'tini-static',
] as const;
const stable = ['runc', 'iptables', 'pigz', 'iproute2', 'openssl', 'ca-certificates'] as const;
const ubuntu = ['docker.io', 'docker-buildx', 'docker-compose-v2', 'docker-registry', 'busybox-static'] as const;

/** Cache of everything that dev/ downloads or builds, kept between runs. */
export const cacheRoot = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'image-handover');
const cache = join(cacheRoot, 'docker');
/** Folder of the lock to hold while running apt-get. */
export const aptLock = cache;

/**
 * Finds Docker 28 or newer with buildx, or installs it from the distribution's packages. On Debian, the current packages are in
 * the unstable suite: they are unpacked into a folder, and the system isn't changed.
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
    return false; // a program is missing
  }
}

/** Runs the function while holding the folder's lock, which other processes wait for. */
export async function withLock(folder: string, work: () => void | Promise<void>): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const lock = join(folder, 'lock');
  while (!tryLock(lock)) await sleep(500);
  try {
    await work();
  } finally {
    rmSync(lock);
  }
}

function tryLock(lock: string): boolean {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (!existsSync(lock)) throw error;
    const owner = readFileSync(lock, 'utf8');
    // A killed process leaves its lock behind.
    if (owner !== '' && !existsSync(`/proc/${owner}`)) rmSync(lock, { force: true });
    return false;
  }
}

function install(root: string): void {
  if (spawnSync('apt-get', ['--version']).status !== 0) {
    throw new Error('Docker 28 is missing, and there is no apt-get to install it. Install Docker with buildx.');
  }
  console.log('Installing Docker from the distribution’s packages …');
  apt(['update'], []);
  apt(['install', '-y', '--no-install-recommends', ...stable], []);
  if (/^ID=ubuntu$/m.test(readFileSync('/etc/os-release', 'utf8'))) {
    apt(['install', '-y', '--no-install-recommends', ...ubuntu], []);
    if (!hasDocker()) throw new Error('This Ubuntu’s Docker is older than 28: install a newer one with buildx.');
    return;
  }
  unpackFromUnstable(wanted, root);
}

/** Downloads the missing packages from Debian's unstable suite and unpacks them. The caller must hold `aptLock`. */
export function unpackFromUnstable(packages: readonly string[], root: string): void {
  const present = unpackedPackages(root);
  const options = unstableOptions();
  apt(['update'], options);
  const archives = `${root}.debs`;
  // A failed run may have left other versions.
  rmSync(archives, { recursive: true, force: true });
  mkdirSync(archives, { recursive: true });
  apt(['download', ...packages.filter((name) => !present.has(name))], options, archives);
  for (const file of readdirSync(archives)) execFileSync('dpkg', ['-x', join(archives, file), root]);
  rmSync(archives, { recursive: true });
  writeFileSync(join(root, 'complete'), [...new Set([...present, ...packages])].join('\n'));
}

/** Returns whether all the packages were unpacked into the folder. */
export function isUnpacked(packages: readonly string[], root: string): boolean {
  const present = unpackedPackages(root);
  return packages.every((name) => present.has(name));
}

function unpackedPackages(root: string): ReadonlySet<string> {
  const list = join(root, 'complete');
  return new Set(existsSync(list) ? readFileSync(list, 'utf8').split('\n') : []);
}

/** Runs apt-get, as root or with sudo. Throws an error with its output if it fails. */
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
  if (error !== undefined) throw new Error(`Packages can't be installed without ${program}: ${error.message}`);
  if (status !== 0) throw new Error(`apt-get ${args.join(' ')} failed: ${stderr.toString()}${stdout.toString()}`);
}

// Gives apt separate lists and settings, so the system's are not changed.
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

/** Returns the mirror in this machine's Debian sources. */
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
    throw new Error('Docker 28 is missing, and apt has no Debian source. Install Docker with buildx.');
  }
  return mirror;
}
