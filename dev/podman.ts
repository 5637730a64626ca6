import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { apt, aptLock, withLock } from './docker-packages.ts';
import { whenWeEnd } from './own-processes.ts';

/** Podman with an image storage of our own. */
export interface Podman {
  /** What podman needs in its environment to use that storage. */
  readonly env: Readonly<Record<string, string>>;
  /** Runs podman and returns what it prints. Throws when it fails. */
  podman(...args: readonly string[]): string;
  /** The content of a file in an image, without a container. */
  readImageFile(image: string, path: string): Buffer;
  /** What podman has left in its own folder for temporary files. */
  leftInTemp(): readonly string[];
  remove(): void;
}

/** Makes sure that podman is there, and gives it an empty storage. It touches no other storage on the machine. */
export async function startPodman(): Promise<Podman> {
  if (process.getuid?.() !== 0) throw new Error('A storage of our own needs root: run this with sudo.');
  await bringPrograms({ podman: 'podman' });
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
  const forget = whenWeEnd(removeRoot);
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
 * Makes sure that programs are there, from the distribution's packages where they aren't.
 * @param programs each with the package that it comes from
 */
export async function bringPrograms(programs: Readonly<Record<string, string>>): Promise<void> {
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
  if (!isThere('apt-get')) throw new Error(`There is no apt-get here to bring ${names}: install that first.`);
  console.log(`Bringing up ${names} from the distribution’s packages …`);
  apt(['update']);
  apt(['install', '-y', '--no-install-recommends', ...missing.map((program) => programs[program] ?? program)]);
  const still = missing.find((program) => !isThere(program));
  if (still !== undefined) throw new Error(`The package of ${still} is installed, but ${still} can't be run.`);
}

// The driver vfs makes plain folders: no mount of ours can be left behind.
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
