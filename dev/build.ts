import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Compiles with tsc, then bundles each entry with ncc: ncc's own TypeScript loader doesn't know TypeScript 6.
const root = fileURLToPath(new URL('..', import.meta.url));
export const actions = ['export-image', 'load-image', 'publish-image', 'handover'] as const;

/** Rebuilds `dist/` from source. */
export function build(): void {
  const bin = (name: string): string => join(root, 'node_modules', name);
  const node = (script: string, args: readonly string[]): void => {
    execFileSync(process.execPath, [script, ...args], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  };
  rmSync(join(root, 'build'), { recursive: true, force: true });
  node(bin('typescript/lib/tsc.js'), ['--project', 'tsconfig.build.json']);
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  // All actions share one of the official client (shared/artifacts/official-store.ts).
  const bundles = [
    ...actions.map((action) => [action, join('build', action, 'main.js')] as const),
    ['official-client', join('build', 'shared', 'official-client', 'index.js')] as const,
  ];
  for (const [name, entry] of bundles) {
    const out = join(root, 'dist', name);
    node(bin('@vercel/ncc/dist/ncc/cli.js'), ['build', entry, '-o', out, '--license', 'licenses.txt']);
    requireClean(out);
  }
}

// A bundle that holds this machine's paths wouldn't be the same when built elsewhere.
function requireClean(out: string): void {
  for (const file of readdirSync(out)) {
    if (readFileSync(join(out, file), 'utf8').includes(root))
      throw new Error(`${join(out, file)} holds the path ${root}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) build();
