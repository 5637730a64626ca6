import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Citation, citationsOf, citationsOfScenarios } from './test-titles.ts';

// docs/requirements-coverage.md is made of docs/requirements.json and of the names of the tests.

const root = fileURLToPath(new URL('..', import.meta.url));
const table = join(root, 'docs', 'requirements-coverage.md');

interface Requirement {
  readonly id: string;
  readonly text: string;
  /** What no test proves yet. */
  readonly open?: string;
}

/** A citation, and the file it stands in, such as `unit/tag-plan.test.ts`. */
interface Proof extends Citation {
  readonly file: string;
}

/**
 * Writes the table unless `check` is set.
 * @returns complaints: rows that no test names though they aren't open, names that are no row, and, with `check`, a table that is out of step
 */
export function updateCoverage(check: boolean): readonly string[] {
  const requirements = readRequirements();
  const proofs = readProofs();
  const text = coverage(requirements, proofs);
  const stale = !existsSync(table) || readFileSync(table, 'utf8') !== text;
  if (stale && !check) writeFileSync(table, text);
  return [
    ...complaints(requirements, proofs),
    ...(stale && check ? [`${relative(root, table)} is out of step: run npm run docs`] : []),
  ];
}

/** Rows that no test names though they aren't open, and names that are no row. */
export function complaints(requirements: readonly Requirement[], proofs: readonly Proof[]): readonly string[] {
  const rows = new Set(requirements.map(({ id }) => id));
  const named = new Set(proofs.flatMap(({ ids }) => ids));
  return [
    ...requirements
      .filter(({ id, open }) => open === undefined && !named.has(id))
      .map(({ id, text }) => `${id} (${text}): no test names it`),
    ...proofs.flatMap(({ file, title, ids }) =>
      ids.filter((id) => !rows.has(id)).map((id) => `${file} › ${title}: there is no requirement ${id}`),
    ),
  ];
}

function coverage(requirements: readonly Requirement[], proofs: readonly Proof[]): string {
  const rows = requirements.map(({ id, text, open }) => {
    const tests = proofs.filter(({ ids }) => ids.includes(id)).map(({ file, title }) => cell(`${file} › ${title}`));
    const lines = open === undefined ? tests : [`**Open:** ${cell(open)}`, ...tests];
    return `| ${id} | ${cell(text)} | ${lines.join('<br>')} |`;
  });
  return [
    '# What proves what',
    '',
    'Each requirement, and the tests that name it. Made by `npm run docs` from `requirements.json` and the names of the',
    'tests; `npm run check` fails on a row without a test, unless the row says what is open.',
    '',
    '| Row | What it asks | Tests |',
    '| --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
}

function cell(text: string): string {
  return text
    .replace(/\s+/g, ' ')
    .replaceAll('<', '&lt;')
    .replaceAll(/[|*_`\\]/g, '\\$&');
}

function readProofs(): readonly Proof[] {
  const proofs = (pattern: string, read: (source: string) => readonly Citation[]): readonly Proof[] =>
    globSync(pattern, { cwd: root })
      .sort()
      .flatMap((path) => {
        const file = path.replace(/^__tests__[/\\]/, '');
        return read(readFileSync(join(root, path), 'utf8')).map((citation) => ({ ...citation, file }));
      });
  return [
    ...proofs('__tests__/**/*.test.ts', citationsOf),
    ...proofs('__tests__/e2e/scenarios/*.ts', citationsOfScenarios),
  ];
}

function readRequirements(): readonly Requirement[] {
  const value: unknown = JSON.parse(readFileSync(join(root, 'docs', 'requirements.json'), 'utf8'));
  if (!Array.isArray(value)) throw new Error('docs/requirements.json is not a list');
  return value.map((row: unknown) => {
    const [id, text, open] = [member(row, 'id'), member(row, 'text'), member(row, 'open')];
    if (typeof id !== 'string' || typeof text !== 'string') throw new Error('docs/requirements.json: id and text');
    if (open === undefined) return { id, text };
    if (typeof open !== 'string' || open === '')
      throw new Error(`docs/requirements.json: ${id} is open without a reason`);
    return { id, text, open };
  });
}

function member(value: unknown, name: string): unknown {
  return new Map<string, unknown>(Object.entries(value ?? {})).get(name);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = updateCoverage(process.argv.includes('--check'));
  for (const complaint of found) console.log(complaint);
  process.exit(found.length > 0 ? 1 : 0);
}
