import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { apt, aptLock, withLock } from './docker-packages.ts';
import { onExit } from './own-processes.ts';

/** Podman with separate image storage. */
export interface Podman {
  /** Environment variables that make podman use that storage. */
  readonly env: Readonly<Record<string, string>>;
  /** Runs podman and returns its output. Throws if it fails. */
  podman(...args: readonly string[]): string;
  /** Returns the content of a file in an image, without running a container. */
  readImageFile(image: string, path: string): Buffer;
  /** Returns the names of the files that podman left in its temporary folder. */
  leftInTemp(): readonly string[];
  remove(): void;
}

/** Installs podman if it is missing, and creates empty storage. Doesn't touch other storage on the machine. */
export async function startPodman(): Promise<Podman> {
  if (process.getuid?.() !== 0)
    throw new Error('Starting podman with separate storage needs root: run this with sudo.');
  await installPrograms({ podman: 'podman' });
  const root = mkdtempSync(join(tmpdir(), 'ih-podman-'));
  const env = writeConfiguration(root);
  const run = (args: readonly string[], input?: Buffer): Buffer =>
    execFileSync('podman', args, {
      env: { ...process.env, ...env },
      maxBuffer: 1 << 28,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      ...(input === undefined ? {} : { input }),
    });
  const removeRoot = (): void => {
    rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
  const forget = onExit(removeRoot);
  return {
    env,
    podman: (...args) => run(args).toString(),
    readImageFile: (image, path) => {
      const mounted = run(['image', 'mount', image]).toString().trim();
      try {
        return execFileSync('cat', [join(mounted, path)], { maxBuffer: 1 << 28 });
      } finally {
        run(['image', 'umount', image]);
      }
    },
    leftInTemp: () => readdirSync(join(root, 'copy')),
    remove: () => {
      forget();
      removeRoot();
    },
  };
}

/**
 * Installs missing programs from the distribution's packages.
 * @param programs the package of each program
 */
export async function installPrograms(programs: Readonly<Record<string, string>>): Promise<void> {
  await withLock(aptLock, () => {
    const missing = Object.keys(programs).filter((program) => !isThere(program));
    if (missing.length > 0) install(missing, programs);
  });
}

function isThere(program: string): boolean {
  return spawnSync(program, ['--version']).error === undefined;
}

function install(missing: readonly string[], programs: Readonly<Record<string, string>>): void {
  const names = missing.join(', ');
  if (!isThere('apt-get')) throw new Error(`There is no apt-get to install ${names}. Install it first.`);
  console.log(`Installing ${names} from the distribution’s packages …`);
  apt(['update']);
  apt(['install', '-y', '--no-install-recommends', ...missing.map((program) => programs[program] ?? program)]);
  const stillMissing = missing.find((program) => !isThere(program));
  if (stillMissing !== undefined)
    throw new Error(`The package of ${stillMissing} is installed, but ${stillMissing} can't be run.`);
}

// The vfs driver uses plain folders, so no mount can be left behind.
function writeConfiguration(root: string): Readonly<Record<string, string>> {
  const folder = (name: string): string => {
    mkdirSync(join(root, name));
    return JSON.stringify(join(root, name));
  };
  const storage = join(root, 'storage.conf');
  const engine = join(root, 'containers.conf');
  writeFileSync(storage, `[storage]\ndriver = "vfs"\ngraphroot = ${folder('storage')}\nrunroot = ${folder('run')}\n`);
  writeFileSync(
    engine,
    `[engine]\ntmp_dir = ${folder('libpod')}\nimage_copy_tmp_dir = ${folder('copy')}\n` +
      'cgroup_manager = "cgroupfs"\nevents_logger = "none"\nlock_type = "file"\n',
  );
  return { CONTAINERS_STORAGE_CONF: storage, CONTAINERS_CONF: engine };
}
