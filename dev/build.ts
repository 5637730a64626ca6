import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import { isObject, parseJson } from '../shared/base/json.ts';
import { withLock } from './docker-packages.ts';

// Compiles with tsc, then bundles each entry with ncc, because ncc's own TypeScript loader doesn't support TypeScript 6.
const root = fileURLToPath(new URL('..', import.meta.url));
export const actions = ['export-image', 'load-image', 'publish-image', 'joined'] as const;

// All actions share one bundle of the official client (shared/artifacts/service/official-store.ts).
const entries: ReadonlyMap<string, string> = new Map([
  ...actions.map((action) => [action, join('build', action, 'main.js')] as const),
  ['official-client', join('build', 'shared', 'artifacts', 'official-client', 'index.js')] as const,
]);
const stampFile = join(root, 'build', 'bundles.json');

/**
 * Rebuilds the outdated bundles in `dist/`, two at a time.
 * A bundle is up to date if the hash of its sources, its tools and the bundle itself matches its last build on this machine.
 * @returns the names of the rebuilt bundles
 */
export async function build(): Promise<readonly string[]> {
  mkdirSync(join(root, 'build'), { recursive: true });
  let outdated: readonly string[] = [];
  await withLock(join(root, 'build'), async () => {
    // Always a full compilation, which takes a few seconds: tsc's incremental mode doesn't notice changed or removed output.
    await node('typescript/lib/tsc.js', ['--project', 'tsconfig.build.json']);
    const stamps = readStamps();
    outdated = [...entries].filter(([name, entry]) => stamps.get(name) !== stampOf(name, entry)).map(([name]) => name);
    if (outdated.length > 0) console.log(`Bundling ${outdated.join(', ')} …`);
    const waiting = [...outdated];
    const worker = async (): Promise<void> => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await bundle(name);
    };
    await Promise.all([worker(), worker()]);
    const now = [...entries].map(([name, entry]) => [name, stampOf(name, entry)] as const);
    writeFileSync(stampFile, JSON.stringify(Object.fromEntries(now)));
  });
  return outdated;
}

async function bundle(name: string): Promise<void> {
  const out = join(root, 'dist', name);
  rmSync(out, { recursive: true, force: true });
  // No cache: two concurrent ncc processes would share it.
  const options = ['-o', out, '--license', 'licenses.txt', '--no-cache'];
  await node('@vercel/ncc/dist/ncc/cli.js', ['build', entries.get(name) ?? name, ...options]);
  requireClean(out);
}

async function node(script: string, args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [join(root, 'node_modules', script), ...args], {
      cwd: root,
      maxBuffer: 1 << 26,
    });
  } catch (error) {
    // tsc prints its errors to stdout.
    if (isObject(error)) console.error(String(error['stdout']) + String(error['stderr']));
    throw new Error(`${script} failed`, { cause: error });
  }
}

function readStamps(): ReadonlyMap<string, unknown> {
  const stamps = existsSync(stampFile) ? parseJson(readFileSync(stampFile, 'utf8')) : undefined;
  return new Map(isObject(stamps) ? Object.entries(stamps) : []);
}

/** Returns a hash of a bundle and everything it is built from. */
function stampOf(name: string, entry: string): string {
  const tools = ['package.json', 'package-lock.json', 'dev/build.ts'].map((file) => join(root, file));
  const out = globSync(`dist/${name}/**`, { cwd: root, withFileTypes: true })
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name))
    .sort();
  const hash = createHash('sha256');
  for (const file of [...tools, ...importedBy(join(root, entry)), ...out]) {
    const bytes = readFileSync(file);
    hash.update(`${relative(root, file)} ${String(bytes.length)}\n`).update(bytes);
  }
  return hash.digest('hex');
}

/** Returns a compiled file and the project files that it imports, sorted. package-lock.json identifies the packages. */
function importedBy(entry: string): readonly string[] {
  const found = new Set<string>();
  const visit = (file: string): void => {
    if (found.has(file)) return;
    found.add(file);
    for (const { fileName } of ts.preProcessFile(readFileSync(file, 'utf8'), true, true).importedFiles)
      if (fileName.startsWith('.')) visit(join(dirname(file), fileName));
  };
  visit(entry);
  return [...found].sort();
}

// Throws if a bundle contains a path of this machine, because another machine would then build a different bundle.
function requireClean(out: string): void {
  for (const file of readdirSync(out)) {
    if (readFileSync(join(out, file), 'utf8').includes(root))
      throw new Error(`${join(out, file)} contains the path ${root}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const built = await build();
  console.log(built.length === 0 ? 'dist/ is up to date.' : `Built ${built.join(', ')}.`);
}
