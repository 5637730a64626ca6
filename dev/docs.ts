import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { updateCoverage } from './requirements-coverage.ts';

// Generates tables in the documentation from action.yml (`<!-- inputs: load-image/action.yml -->` … `<!-- /inputs -->`)
// and figures from benchmark results (`<!-- results: bench/results/full-summary.md -->` … `<!-- /results -->`). Snippets get the
// pinned actions from workflows and examples, which Dependabot updates.

const root = fileURLToPath(new URL('..', import.meta.url));
const documents = [
  'README.md',
  'export-image/README.md',
  'load-image/README.md',
  'publish-image/README.md',
  'joined/README.md',
  'docs/performance.md',
  'docs/recipes.md',
  'TROUBLESHOOTING.md',
] as const;
const section = /<!-- (inputs|outputs|results): (\S+) -->\n[\s\S]*?<!-- \/\1 -->/g;

const pinned = /^( *(?:- )?uses: )([\w./-]+)@\S+(?: # v[\d.]+)?$/gm;
/** Each pinned action, with its commit and version. */
const pins: ReadonlyMap<string, string> = new Map(
  globSync('{.github/workflows,examples/*}/*.yml', { cwd: root }).flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/uses: (([\w./-]+)@[0-9a-f]{40} # v[\d.]+)$/gm)].map(
      ([, pin = '', action = '']) => [action, pin] as const,
    ),
  ),
);

interface Entry {
  readonly name: string;
  readonly description: string;
  readonly default: string | undefined;
}

/** Returns the documents whose generated sections are outdated. Rewrites them unless `check` is set. */
export function updateDocs(check: boolean): readonly string[] {
  return documents.filter((document) => {
    const path = join(root, document);
    const before = readFileSync(path, 'utf8');
    const after = before
      .replace(
        section,
        (_, kind: string, file: string) => `<!-- ${kind}: ${file} -->\n\n${content(file, kind)}\n\n<!-- /${kind} -->`,
      )
      .replace(
        pinned,
        (whole, start: string, action: string) => `${start}${pins.get(action) ?? whole.slice(start.length)}`,
      );
    if (after !== before && !check) writeFileSync(path, after);
    return after !== before;
  });
}

function content(file: string, kind: string): string {
  return kind === 'results' ? readFileSync(join(root, file), 'utf8').trim() : table(file, kind);
}

function table(file: string, kind: string): string {
  const entries = readEntries(file, kind).filter((entry) => entry.name !== 'job-key');
  const head = kind === 'inputs' ? ['Input', 'Default', 'What it is'] : ['Output', 'What it is'];
  const rows = entries.map((entry) => [
    `\`${entry.name}\``,
    ...(kind === 'inputs' ? [entry.default === undefined || entry.default === '' ? '' : `\`${entry.default}\``] : []),
    entry.description.replaceAll('|', '\\|'),
  ]);
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Reads the inputs or outputs that an action.yml declares, in order. */
export function readEntries(file: string, kind: string): readonly Entry[] {
  const yaml: unknown = parse(readFileSync(join(root, file), 'utf8'));
  const entries = isObject(yaml) ? yaml[kind] : undefined;
  if (!isObject(entries)) throw new Error(`${file} declares no ${kind}`);
  return Object.entries(entries).map(([name, value]) => {
    const entry = isObject(value) ? value : {};
    return { name, description: text(entry['description']) ?? '', default: text(entry['default']) };
  });
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value.trim() : undefined;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const check = process.argv.includes('--check');
  const changed = updateDocs(check);
  for (const document of changed) console.log(`${document}: ${check ? 'outdated; run npm run docs' : 'updated'}`);
  const uncovered = updateCoverage(check);
  for (const finding of uncovered) console.log(finding);
  process.exit(check && changed.length + uncovered.length > 0 ? 1 : 0);
}
