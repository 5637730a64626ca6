import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

// `npm run test:all` runs everything, which takes hours. If a part fails, the others still run. `-- --seed 7` selects other cases.

const { values } = parseArgs({ options: { seed: { type: 'string', default: '1' } } });
const seed = ['--seed', values.seed] as const;
const parts: readonly (readonly [string, readonly string[]])[] = [
  ['Both Dockers, all table rows', ['test.ts', '--ring', 'all-ways']],
  ['All recipes and examples in a workflow runner', ['e2e.ts']],
  ['Faults at many moments', ['faults.ts', '--cases', '300', ...seed]],
  ['Untrusted bytes', ['fuzz.ts', '--runs', '100000', ...seed]],
];

const closingLine = /^(\d+) passed, (\d+) failed, (\d+) skipped$/gm;
const dev = fileURLToPath(new URL('.', import.meta.url));
const counts = { passed: 0, failed: 0, skipped: 0 };
const results: string[] = [];
for (const [title, args] of parts) {
  console.log(`\n━━ ${title}`);
  const { code, log } = await run(args);
  const [, passed = 0, failed = 0, skipped = 0] = ([...log.matchAll(closingLine)].at(-1) ?? []).map(Number);
  counts.passed += passed;
  // An interrupted part prints no closing line.
  counts.failed += code === 0 ? failed : Math.max(failed, 1);
  counts.skipped += skipped;
  results.push(`${code === 0 ? '✓' : '✗'} ${title}`);
}
console.log(`\n${results.join('\n')}`);
console.log(`\n${String(counts.passed)} passed, ${String(counts.failed)} failed, ${String(counts.skipped)} skipped`);
process.exit(counts.failed > 0 ? 1 : 0);

async function run([script = '', ...args]: readonly string[]): Promise<{
  readonly code: number;
  readonly log: string;
}> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', join(dev, script), ...args], {
    stdio: ['inherit', 'pipe', 'inherit'],
  });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, forward);
  let log = '';
  child.stdout.on('data', (chunk: Buffer) => {
    process.stdout.write(chunk);
    log += chunk.toString();
  });
  await once(child, 'close');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, forward);
  return { code: child.exitCode ?? 1, log };
}
