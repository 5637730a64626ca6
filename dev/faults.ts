import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isObject, parseJson } from '../shared/base/json.ts';

// `npm run faults` breaks steps and writes a table of the faults, their moments, stores and Dockers, and how each step ended.
// `-- --long` runs thousands of cases; `-- --seed 7 --first 120 --cases 1` repeats one.

const { values } = parseArgs({
  options: {
    long: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
    first: { type: 'string', default: '0' },
    cases: { type: 'string' },
  },
});
const cases = values.cases ?? (values.long ? '2500' : '60');
const root = fileURLToPath(new URL('..', import.meta.url));
const lines = join(root, 'build/faults.jsonl');
const table = join(root, 'build/faults.md');
mkdirSync(dirname(lines), { recursive: true });
rmSync(lines, { force: true });
writeFileSync(lines, '');
const { status } = spawnSync(process.execPath, [join(root, 'dev/test.ts'), '--ring', 'both-dockers', 'faults/'], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    FAULTS_SEED: values.seed,
    FAULTS_FIRST: values.first,
    FAULTS_CASES: cases,
    FAULTS_REPORT: lines,
  },
});
const rows = readFileSync(lines, 'utf8')
  .split('\n')
  .map((line) => parseJson(line))
  .filter(isObject)
  .map(({ docker, number, words, exitCode, code }) =>
    [docker, number, words, exitCode === 0 ? 'green' : `red: ${String(code) || 'killed'}`].map(String),
  )
  .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
const head = ['| Docker | Case | What goes wrong | How the step ends |', '| --- | --- | --- | --- |'];
writeFileSync(table, `Seed ${values.seed}\n\n${[...head, ...rows].join('\n')}\n`);
console.log(`\n${String(rows.length)} cases of seed ${values.seed}: ${table}`);
process.exit(status ?? 1);
