import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../dev/action-runner.ts';

// YAML snippets from the documentation, identified by file and heading.

const documents = [
  'README.md',
  'docs/recipes.md',
  'docs/how-it-works.md',
  'export-image/README.md',
  'load-image/README.md',
  'publish-image/README.md',
  'joined/README.md',
  'TROUBLESHOOTING.md',
] as const;

/** Returns all headings with a YAML snippet, as `file#heading`. */
export function recipeIds(): readonly string[] {
  return documents.flatMap((file) => [...new Set(snippets(file).map(({ heading }) => `${file}#${heading}`))]);
}

/** Returns a snippet. Fails if it doesn't exist, so that a removed recipe is noticed. */
export function recipeText(id: string, index: number): string {
  const [file = '', heading = ''] = id.split('#');
  const found = snippets(file).filter((item) => item.heading === heading)[index];
  assert.ok(found !== undefined, `${file} has no YAML snippet ${String(index + 1)} under "${heading}"`);
  return found.text;
}

function snippets(file: string): readonly { readonly heading: string; readonly text: string }[] {
  let heading = '';
  const document = readFileSync(join(projectRoot, file), 'utf8');
  return [...document.matchAll(/^#+ (.+)$|^```ya?ml\n([\s\S]*?)^```$|^```[\s\S]*?^```$/gm)].flatMap(
    ([, title, text]) => {
      heading = title ?? heading;
      return text === undefined ? [] : [{ heading, text }];
    },
  );
}

/** Indents a text: its first line starts with `by` spaces. */
export function indented(text: string, by: number): string {
  const indent = /^ */.exec(text.replace(/^\n+/, ''))?.[0].length ?? 0;
  const lines = text.split('\n').map((line) => (line.trim() === '' ? '' : ' '.repeat(by) + line.slice(indent)));
  return lines.join('\n').trimEnd();
}
