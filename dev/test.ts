import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type GoPart, describeMissingGoParts } from './go-parts.ts';

// Rings of tests, which take from seconds to hours. `npm test -- unit` runs one folder of __tests__, `npm test -- reference` runs
// the files with matching paths, and `-t title` runs the tests with matching titles.

interface Ring {
  /** Projects of jest.config.mjs. */
  readonly projects: readonly string[];
  /** Patterns of paths. Default: all files. */
  readonly files?: readonly string[];
  /** Go parts that the tests use if available. */
  readonly goParts: readonly GoPart[];
  readonly env?: Readonly<Record<string, string>>;
}

const bothDockers: Ring = {
  projects: ['quick', 'built', 'Docker 29.7'],
  goParts: ['dockerd', 'runc', 'buildkit'],
};
const rings = {
  /** `npm run test:quick`: types, unit, contract. */
  quick: { projects: ['quick'], goParts: [] },
  /** `npm test`: everything once, on one Docker with each store. */
  once: { projects: ['quick', 'built'], goParts: ['runc', 'buildkit'] },
  /** Added by `.ci/run`: the suites in which the other Docker behaves differently. */
  'other-docker': {
    projects: ['Docker 29.7'],
    files: ['integration/(wholeness|identity|missing-layers|nodes)\\.test'],
    goParts: ['dockerd', 'runc'],
  },
  /** `npm run faults`: both Dockers. */
  'both-dockers': bothDockers,
  /** The first part of `npm run test:all`. */
  'all-ways': { ...bothDockers, env: { ALL_WAYS: '1' } },
} as const satisfies Readonly<Record<string, Ring>>;
type RingName = keyof typeof rings;

const root = fileURLToPath(new URL('..', import.meta.url));
const children = new Set<ChildProcess>();
// A terminal also sends Ctrl-C to jest, but `kill` signals only this process. jest then stops its engines.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => children.forEach((child) => child.kill(signal)));

const { ring, args } = requested(process.argv.slice(2));
process.exit(await runRing(rings[ring], args, ring === 'quick'));

async function runRing(chosen: Ring, args: readonly string[], withTypes: boolean): Promise<number> {
  const withoutGo = describeMissingGoParts(chosen.goParts);
  if (withoutGo !== undefined && (process.env['CI'] === 'true' || !chosen.projects.includes('built'))) {
    console.error(
      `These tests need ${chosen.goParts.join(', ')}, which are built with Go: ${withoutGo}. In CI, add actions/setup-go.`,
    );
    return 1;
  }
  if (args.length === 0 && chosen.projects.includes('built') && process.getuid?.() !== 0) {
    console.error(
      'The tests start Docker engines, which needs root: sudo npm test. `npm run test:quick` does not need it.',
    );
    return 1;
  }
  const watching = args.some((arg) => /^--watch(?:All)?$/.test(arg));
  const env = { ...chosen.env, ...(withoutGo === undefined ? {} : { TESTED_WITHOUT_GO: withoutGo }) };
  const files = chosen.files ?? [];
  const codes = await Promise.all([
    node('jest/bin/jest.js', [...args, ...files, '--selectProjects', ...chosen.projects], env),
    ...(withTypes && !args.some((arg) => !arg.startsWith('-')) ? [typecheck(watching)] : []),
  ]);
  return codes.find((code) => code !== 0) ?? 0;
}

function typecheck(watching: boolean): Promise<number> {
  const cache = join('node_modules', '.cache', 'image-handover', 'types.tsbuildinfo');
  const watch = watching ? ['--watch', '--preserveWatchOutput'] : [];
  return node('typescript/lib/tsc.js', ['--noEmit', '--incremental', '--tsBuildInfoFile', cache, ...watch]);
}

async function node(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<number> {
  // jest loads the project's files as ES modules.
  const options = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const child = spawn(process.execPath, [...options, join(root, 'node_modules', script), ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  children.add(child);
  await once(child, 'exit');
  children.delete(child);
  return child.exitCode ?? 1;
}

function requested([flag, name, ...rest]: readonly string[]): {
  readonly ring: RingName;
  readonly args: readonly string[];
} {
  if (flag !== '--ring') return { ring: 'once', args: process.argv.slice(2) };
  if (isRing(name)) return { ring: name, args: rest };
  throw new Error(`Unknown ring ${String(name)}. Choose one of: ${Object.keys(rings).join(', ')}.`);
}

function isRing(name: string | undefined): name is RingName {
  return name !== undefined && Object.hasOwn(rings, name);
}
