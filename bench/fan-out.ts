import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

// `node bench/fan-out.ts FOLDER FILE`: adds one row to a table of docs/probe.md. Each file of the folder is one job of
// .github/workflows/probe.yml: `{"way":"artifact","ms":5120}`. It has no imports from this project, so it runs without `npm ci`.

const [folder = '', file = ''] = process.argv.slice(2);
const ways = ['image-handover', 'artifact', 'cache'];

interface Leg {
  readonly way: string;
  readonly ms: number;
}

function legOf(name: string): Leg {
  const value: unknown = JSON.parse(readFileSync(join(folder, name), 'utf8'));
  if (!isLeg(value)) throw new Error(`${name} is not a leg: ${JSON.stringify(value)}`);
  return value;
}

function isLeg(value: unknown): value is Leg {
  if (typeof value !== 'object' || value === null || !('way' in value) || !('ms' in value)) return false;
  return ways.some((way) => way === value.way) && typeof value.ms === 'number';
}

const legs = readdirSync(folder).map(legOf);

/** Returns the time within which that share of the jobs had the image, in seconds. */
function within(times: readonly number[], share: number): string {
  const sorted = times.toSorted((one, other) => one - other);
  return ((sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN) / 1000).toFixed(1);
}

const cells = ways.map((way) => {
  const times = legs.filter((leg) => leg.way === way).map(({ ms }) => ms);
  if (times.length === 0) return 'no job';
  const shares = [0.5, 0.9, 1].map((share) => within(times, share)).join(' / ');
  return `${shares} (${String(times.length)} jobs)`;
});
const row = `| ${[new Date().toISOString().slice(0, 10), ...cells].join(' | ')} |`;
const text = readFileSync(file, 'utf8');
// Inserts the newest row first, directly below the table's head.
const head = /^\|(?: --- \|)+\n/m.exec(text);
if (head === null) throw new Error(`${file} has no table`);
const end = head.index + head[0].length;
writeFileSync(file, `${text.slice(0, end)}${row}\n${text.slice(end)}`);
console.log(row);
