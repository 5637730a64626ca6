import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { apt, aptLock, cacheRoot, isUnpacked, unpackFromUnstable, withLock } from './docker-packages.ts';
import { spawnOwn } from './own-processes.ts';

// Builds programs that no distribution packages in the required version. Each comes from the Go module proxy. It is built inside
// its folder in Go's module cache, so its own go.mod and go.sum apply.

interface Recipe {
  readonly title: string;
  readonly module: string;
  readonly version: string;
  /** Packages of the module, one for each program. */
  readonly programs: readonly string[];
  /** Build flags in addition to the common ones. */
  readonly flags: readonly string[];
  /** What the build needs besides Go: the C compiler, or also libseccomp. */
  readonly needs?: 'cc' | 'libseccomp';
  /** Folders of the module that the program reads at run time; copied next to it. */
  readonly folders?: readonly string[];
  readonly minutes: number;
}

/** `TESTED_BUILDKIT=v0.29.0` runs the tests with another version. */
const buildkitVersion = process.env['TESTED_BUILDKIT'] ?? 'v0.34.2';

/** The programs and their pinned versions. */
export const goParts = {
  act: {
    title: 'act 0.2.89',
    module: 'github.com/nektos/act',
    version: 'v0.2.89',
    programs: ['.'],
    flags: [],
    minutes: 1,
  },
  buildkit: {
    title: `BuildKit ${buildkitVersion}`,
    module: 'github.com/moby/buildkit',
    version: buildkitVersion,
    programs: ['./cmd/buildkitd', './cmd/buildctl'],
    flags: [
      '-tags=osusergo netgo static_build seccomp',
      `-ldflags=-X github.com/moby/buildkit/version.Version=${buildkitVersion}`,
    ],
    minutes: 2,
  },
  // The module doesn't set the daemon's version.
  dockerd: {
    title: 'Docker 29.7.0',
    module: 'github.com/moby/moby/v2',
    version: 'v2.0.0-beta.24',
    programs: ['./cmd/dockerd'],
    flags: ['-ldflags=-X github.com/moby/moby/v2/dockerversion.Version=29.7.0'],
    minutes: 3,
  },
  // The newest version whose required modules are all on Go's module proxy. SQLite is written in C. Without the tag `bindata`,
  // Gitea reads its templates and texts from folders (modules/setting/server.go, STATIC_ROOT_PATH).
  gitea: {
    title: 'Gitea 1.26.0',
    module: 'code.gitea.io/gitea',
    version: 'v1.26.0',
    programs: ['.'],
    flags: ['-tags=sqlite sqlite_unlock_notify', '-ldflags=-s -w -X main.Version=1.26.0'],
    needs: 'cc',
    folders: ['options', 'public', 'templates'],
    minutes: 15,
  },
  // Only the command is built: its node image exists only in a registry.
  kind: {
    title: 'kind 0.33.0',
    module: 'sigs.k8s.io/kind',
    version: 'v0.33.0',
    programs: ['.'],
    flags: [],
    minutes: 1,
  },
  // Debian stable's runc is too old for Docker 29.7: it doesn't support time namespaces. This build is static, so it also runs in images.
  runc: {
    title: 'runc 1.5.2',
    module: 'github.com/opencontainers/runc',
    version: 'v1.5.2',
    programs: ['.'],
    flags: ['-tags=seccomp netgo osusergo', '-ldflags=-extldflags=-static'],
    needs: 'libseccomp',
    minutes: 1,
  },
  // Shares no code with docker-registry. Some proxies don't have the module name of later versions.
  zot: {
    title: 'zot 1.4.3',
    module: 'github.com/project-zot/zot',
    version: 'v1.4.3',
    programs: ['./cmd/zot'],
    flags: ['-tags=containers_image_openpgp'],
    minutes: 2,
  },
} as const satisfies Readonly<Record<string, Recipe>>;

export type GoPart = keyof typeof goParts;

const cache = join(cacheRoot, 'go-parts');
// The newest Go version that any of these modules requires.
const minimumGo = { major: 1, minor: 26, patch: 8 } as const;
const debian = { packages: ['golang-1.26-go', 'golang-1.26-src'], home: 'usr/lib/go-1.26' } as const;
const debianGo = join(cache, 'go');

/** Describes what is missing to build Go parts without installing anything. Returns undefined if Go is present. */
export function describeMissingGo(): string | undefined {
  if (goOnPath() !== undefined || isUnpacked(debian.packages, debianGo)) return undefined;
  const wanted = `${String(minimumGo.major)}.${String(minimumGo.minor)}.${String(minimumGo.patch)}`;
  const { status, stdout } = spawnSync('go', ['version'], { encoding: 'utf8' });
  return `there is no Go ${wanted} or newer on PATH${status === 0 ? ` (go version prints "${stdout.trim()}")` : ''}`;
}

/** Describes what is missing to build these parts without installing anything. Returns undefined if they are already built or Go is present. */
export function describeMissingGoParts(names: readonly GoPart[]): string | undefined {
  return names.every((name) => existsSync(folderOfPart(name))) ? undefined : describeMissingGo();
}

/**
 * Builds the part at its pinned version, or returns the earlier build.
 * @returns the folder with its programs
 * @throws Error if Go can't be installed or the build fails
 */
export async function goPart(name: GoPart): Promise<string> {
  const recipe: Recipe = goParts[name];
  const folder = folderOfPart(name);
  if (existsSync(folder)) return folder;
  await withLock(cache, async () => {
    if (!existsSync(folder)) await build(recipe, folder);
  });
  return folder;
}

/**
 * Builds a program from one file that needs only the standard library.
 * @returns its path
 * @throws Error if Go can't be installed or the build fails
 */
export async function goProgram(source: string): Promise<string> {
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const program = join(cache, `program-${hash}`);
  if (existsSync(program)) return program;
  const partial = `${program}.${String(process.pid)}`;
  mkdirSync(cache, { recursive: true });
  await run(await installGo(), ['build', '-o', partial, source], cache);
  renameSync(partial, program);
  return program;
}

function folderOfPart(name: GoPart): string {
  return join(cache, `${name}-${goParts[name].version}`);
}

async function build(recipe: Recipe, folder: string): Promise<void> {
  const { title, module, version, minutes } = recipe;
  const go = await installGo();
  if (recipe.needs !== undefined) await installForC(recipe.needs);
  console.log(`Building ${title} from source (about ${String(minutes)} min on two cores, once) …`);
  const startedAt = performance.now();
  // Renamed at the end, so an interrupted build is not used.
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const downloaded: unknown = JSON.parse(await run(go, ['mod', 'download', '-json', `${module}@${version}`], cache));
  const source = folderOf(downloaded);
  const fixed = ['-mod=readonly', '-buildvcs=false', '-trimpath'];
  await run(go, ['build', ...fixed, ...recipe.flags, '-o', `${partial}/`, ...recipe.programs], source, {
    CGO_ENABLED: recipe.needs === undefined ? '0' : '1',
  });
  // Go's module cache is read-only, and a plain copy would be as well.
  for (const name of recipe.folders ?? [])
    execFileSync('cp', ['-r', '--no-preserve=mode', join(source, name), partial]);
  renameSync(partial, folder);
  console.log(`Built ${title} in ${((performance.now() - startedAt) / 1000).toFixed(0)} s.`);
}

function folderOf(downloaded: unknown): string {
  if (
    typeof downloaded === 'object' &&
    downloaded !== null &&
    'Dir' in downloaded &&
    typeof downloaded.Dir === 'string'
  )
    return downloaded.Dir;
  throw new Error(`go mod download printed no folder: ${JSON.stringify(downloaded)}`);
}

interface Go {
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Runs go and returns its output. The user's Go settings apply, but not a workspace of a parent folder. */
async function run(go: Go, args: readonly string[], cwd: string, extraEnv: NodeJS.ProcessEnv = {}): Promise<string> {
  const env = { ...process.env, ...go.env, GOWORK: 'off', ...extraEnv };
  const child = spawnOwn(go.program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  if (child.stdout === null || child.stderr === null) throw new Error('unreachable: both are pipes');
  const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr), once(child, 'exit')]);
  if (child.exitCode === 0) return stdout.toString();
  throw new Error(`go ${args.join(' ')} failed:\n${stdout.toString()}${stderr.toString()}`.trim());
}

function goOnPath(): Go | undefined {
  const { status, stdout } = spawnSync('go', ['env', 'GOVERSION', 'GOTOOLCHAIN'], { encoding: 'utf8' });
  if (status !== 0) return undefined;
  const [version = '', toolchain = ''] = stdout.trim().split('\n');
  // Unless GOTOOLCHAIN forbids it, an older Go downloads the toolchain that a module requires.
  const fetches = toolchain === 'auto' || toolchain.endsWith('+auto');
  return fetches || isNewEnough(version) ? { program: 'go', env: {} } : undefined;
}

function isNewEnough(version: string): boolean {
  const [, major = 0, minor = 0, patch = 0] = (/^go(\d+)\.(\d+)(?:\.(\d+))?/.exec(version) ?? []).map(Number);
  const order = major - minimumGo.major || minor - minimumGo.minor || (patch || 0) - minimumGo.patch;
  return order >= 0;
}

async function installGo(): Promise<Go> {
  const found = goOnPath();
  if (found !== undefined) return found;
  if (!isUnpacked(debian.packages, debianGo)) {
    console.log(`Installing Go from the distribution’s packages, because ${String(describeMissingGo())} …`);
    await withLock(aptLock, () => {
      unpackFromUnstable(debian.packages, debianGo);
    });
  }
  const home = join(debianGo, debian.home);
  const go = { program: join(home, 'bin', 'go'), env: { GOROOT: home } };
  execFileSync(go.program, ['version'], { env: { ...process.env, ...go.env } });
  return go;
}

async function installForC(needs: 'cc' | 'libseccomp'): Promise<void> {
  const has = (program: string, ...args: readonly string[]): boolean => spawnSync(program, args).status === 0;
  const isEnough = needs === 'cc' || has('pkg-config', '--exists', 'libseccomp');
  if (isEnough && has('cc', '--version')) return;
  const packages = ['gcc', 'libc6-dev', ...(needs === 'cc' ? [] : ['libseccomp-dev', 'pkg-config'])];
  await withLock(aptLock, () => {
    apt(['update']);
    apt(['install', '-y', '--no-install-recommends', ...packages]);
  });
}

// `node dev/run.mjs dev/go-parts.ts` builds in advance the parts that the tests need.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of ['dockerd', 'runc', 'buildkit', 'act', 'zot', 'kind'] as const) await goPart(name);
}
