import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Citation, citationsOf, citationsOfScenarios } from './test-titles.ts';

// Generates docs/requirements-coverage.md from docs/requirements.json and the titles of the tests.

const root = fileURLToPath(new URL('..', import.meta.url));
const table = join(root, 'docs', 'requirements-coverage.md');

interface Requirement {
  readonly id: string;
  readonly text: string;
  /** The part that no test proves yet. */
  readonly open?: string;
}

/** A citation and its file, such as `unit/tag-plan.test.ts`. */
interface Proof extends Citation {
  readonly file: string;
}

/**
 * Writes the table unless `check` is set.
 * @returns the findings of `complaints`, and with `check` an outdated table
 */
export function updateCoverage(check: boolean): readonly string[] {
  const requirements = readRequirements();
  const proofs = readProofs();
  const text = coverage(requirements, proofs);
  const stale = !existsSync(table) || readFileSync(table, 'utf8') !== text;
  if (stale && !check) writeFileSync(table, text);
  return [
    ...coverageProblems(requirements, proofs),
    ...(stale && check ? [`${relative(root, table)} is outdated: run npm run docs`] : []),
  ];
}

/** Returns the requirements that no title cites although they aren't open, and the cited numbers that don't exist. */
export function coverageProblems(requirements: readonly Requirement[], proofs: readonly Proof[]): readonly string[] {
  const rows = new Set(requirements.map(({ id }) => id));
  const cited = new Set(proofs.flatMap(({ ids }) => ids));
  return [
    ...requirements
      .filter(({ id, open }) => open === undefined && !cited.has(id))
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
    '# The tests of each requirement',
    '',
    'Each requirement, and the tests that have its number in their titles. `npm run docs` generates this table from',
    '`requirements.json` and the titles. `npm run check` fails on a row without a test, unless it states what is open.',
    '',
    '| Row | Requirement | Tests |',
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
  for (const problem of found) console.log(problem);
  process.exit(found.length > 0 ? 1 : 0);
}
