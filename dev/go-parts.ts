import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { apt, aptLock, cacheRoot, isUnpacked, unpackFromUnstable, withLock } from './docker-packages.ts';
import { spawnOwn } from './own-processes.ts';

// Programs that no distribution has in the version we need, built from their source: each is a module of the Go module
// proxy, and is built within its own folder of Go's module cache, so that its own go.mod and go.sum say what goes in.

interface Recipe {
  readonly title: string;
  readonly module: string;
  readonly version: string;
  /** Packages of the module, each of which is one program. */
  readonly programs: readonly string[];
  /** Build flags beside those that all have. */
  readonly flags: readonly string[];
  /** Whether it is built with the C compiler, on libseccomp. */
  readonly seccomp?: true;
  readonly minutes: number;
}

/** What can be built, and at which version it is pinned. */
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
    title: 'BuildKit 0.34.2',
    module: 'github.com/moby/buildkit',
    version: 'v0.34.2',
    programs: ['./cmd/buildkitd', './cmd/buildctl'],
    flags: [
      '-tags=osusergo netgo static_build seccomp',
      '-ldflags=-X github.com/moby/buildkit/version.Version=v0.34.2',
    ],
    minutes: 2,
  },
  // The daemon doesn't have its version from its module.
  dockerd: {
    title: 'Docker 29.7.0',
    module: 'github.com/moby/moby/v2',
    version: 'v2.0.0-beta.24',
    programs: ['./cmd/dockerd'],
    flags: ['-ldflags=-X github.com/moby/moby/v2/dockerversion.Version=29.7.0'],
    minutes: 3,
  },
  // Its command alone: the image of its nodes is in a registry.
  kind: {
    title: 'kind 0.33.0',
    module: 'sigs.k8s.io/kind',
    version: 'v0.33.0',
    programs: ['.'],
    flags: [],
    minutes: 1,
  },
  // What Debian's stable has is too old for Docker 29.7: it knows no time namespace. Static, so that it runs in an image too.
  runc: {
    title: 'runc 1.5.2',
    module: 'github.com/opencontainers/runc',
    version: 'v1.5.2',
    programs: ['.'],
    flags: ['-tags=seccomp netgo osusergo', '-ldflags=-extldflags=-static'],
    seccomp: true,
    minutes: 1,
  },
  // A registry that shares no code with docker-registry. Later versions are modules of a name that the proxy doesn't have everywhere.
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
// The newest that one of the modules asks for.
const newEnough = { major: 1, minor: 26, patch: 8 } as const;
const debian = { packages: ['golang-1.26-go', 'golang-1.26-src'], home: 'usr/lib/go-1.26' } as const;
const debianGo = join(cache, 'go');

/** Says what is missing to build Go parts without installing anything; undefined when Go is there. */
export function whyNoGo(): string | undefined {
  if (goOnPath() !== undefined || isUnpacked(debian.packages, debianGo)) return undefined;
  const wanted = `${String(newEnough.major)}.${String(newEnough.minor)}.${String(newEnough.patch)}`;
  const { status, stdout } = spawnSync('go', ['version'], { encoding: 'utf8' });
  return `there is no Go ${wanted} or newer on PATH${status === 0 ? ` (go version says "${stdout.trim()}")` : ''}`;
}

/** Says why these parts can't be had without installing anything; undefined when they are here, or Go is. */
export function whyNoGoParts(names: readonly GoPart[]): string | undefined {
  return names.every((name) => existsSync(folderOfPart(name))) ? undefined : whyNoGo();
}

/**
 * Builds the part at its pinned version, unless that was done before: then it takes no time.
 * @returns the folder with its programs
 * @throws Error when there is no Go and none can be brought, or when the build fails
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
 * @throws Error when there is no Go and none can be brought, or when the build fails
 */
export async function goProgram(source: string): Promise<string> {
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const program = join(cache, `program-${hash}`);
  if (existsSync(program)) return program;
  const partial = `${program}.${String(process.pid)}`;
  mkdirSync(cache, { recursive: true });
  await run(await bringGo(), ['build', '-o', partial, source], cache);
  renameSync(partial, program);
  return program;
}

function folderOfPart(name: GoPart): string {
  return join(cache, `${name}-${goParts[name].version}`);
}

async function build(recipe: Recipe, folder: string): Promise<void> {
  const { title, module, version, minutes } = recipe;
  const go = await bringGo();
  if (recipe.seccomp === true) await bringSeccomp();
  console.log(`Building ${title} from its source (about ${String(minutes)} min on two cores, once) …`);
  const began = performance.now();
  // A build that is cut off leaves nothing under the name that counts.
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const downloaded: unknown = JSON.parse(await run(go, ['mod', 'download', '-json', `${module}@${version}`], cache));
  const source = folderOf(downloaded);
  const fixed = ['-mod=readonly', '-buildvcs=false', '-trimpath'];
  await run(go, ['build', ...fixed, ...recipe.flags, '-o', `${partial}/`, ...recipe.programs], source, {
    CGO_ENABLED: recipe.seccomp === true ? '1' : '0',
  });
  renameSync(partial, folder);
  console.log(`Built ${title} in ${((performance.now() - began) / 1000).toFixed(0)} s.`);
}

function folderOf(downloaded: unknown): string {
  if (
    typeof downloaded === 'object' &&
    downloaded !== null &&
    'Dir' in downloaded &&
    typeof downloaded.Dir === 'string'
  )
    return downloaded.Dir;
  throw new Error(`go mod download named no folder: ${JSON.stringify(downloaded)}`);
}

interface Go {
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Runs go and returns what it prints. Go's own settings stay the user's, but for a workspace that a parent folder may have. */
async function run(go: Go, args: readonly string[], cwd: string, more: NodeJS.ProcessEnv = {}): Promise<string> {
  const env = { ...process.env, ...go.env, GOWORK: 'off', ...more };
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
  // Unless it was told to stay what it is, an older Go fetches the toolchain that a module asks for.
  const fetches = toolchain === 'auto' || toolchain.endsWith('+auto');
  return fetches || isNewEnough(version) ? { program: 'go', env: {} } : undefined;
}

function isNewEnough(version: string): boolean {
  const [, major = 0, minor = 0, patch = 0] = (/^go(\d+)\.(\d+)(?:\.(\d+))?/.exec(version) ?? []).map(Number);
  const order = major - newEnough.major || minor - newEnough.minor || (patch || 0) - newEnough.patch;
  return order >= 0;
}

async function bringGo(): Promise<Go> {
  const found = goOnPath();
  if (found !== undefined) return found;
  if (!isUnpacked(debian.packages, debianGo)) {
    console.log(`Bringing up Go from the distribution’s packages, because ${String(whyNoGo())} …`);
    await withLock(aptLock, () => {
      unpackFromUnstable(debian.packages, debianGo);
    });
  }
  const home = join(debianGo, debian.home);
  const go = { program: join(home, 'bin', 'go'), env: { GOROOT: home } };
  execFileSync(go.program, ['version'], { env: { ...process.env, ...go.env } });
  return go;
}

async function bringSeccomp(): Promise<void> {
  const has = (program: string, ...args: readonly string[]): boolean => spawnSync(program, args).status === 0;
  if (has('pkg-config', '--exists', 'libseccomp') && has('cc', '--version')) return;
  await withLock(aptLock, () => {
    apt(['update']);
    apt(['install', '-y', '--no-install-recommends', 'gcc', 'libc6-dev', 'libseccomp-dev', 'pkg-config']);
  });
}

// `node dev/run.mjs dev/go-parts.ts` builds what the tests need, while something else goes on.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of ['dockerd', 'runc', 'buildkit', 'act', 'zot', 'kind'] as const) await goPart(name);
}
