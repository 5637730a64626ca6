import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../dev/action-runner.ts';

/** A snippet of the documentation, found by the heading that it stands under; without one, above the first heading. */
export interface Recipe {
  readonly file: string;
  readonly heading: string;
  /** Which of the heading's YAML snippets, counted from 0. */
  readonly index: number;
  readonly text: string;
}

/** All YAML snippets of a document of this checkout, as they stand there. */
export function recipesOf(file: string): readonly Recipe[] {
  const found: Recipe[] = [];
  let heading = '';
  let index = 0;
  for (const { 1: title, 2: text } of readFileSync(join(projectRoot, file), 'utf8').matchAll(
    /^#+ (.+)$|^```ya?ml\n([\s\S]*?)^```$/gm,
  )) {
    if (title !== undefined) [heading, index] = [title, 0];
    else found.push({ file, heading, index: index++, text: text ?? '' });
  }
  return found;
}

/** The text of one; a heading that holds none fails, so that no recipe drops out unseen. */
export function recipe(file: string, heading: string, index = 0): string {
  const found = recipesOf(file).find((item) => item.heading === heading && item.index === index);
  assert.ok(found !== undefined, `${file} has no YAML snippet ${String(index + 1)} under "${heading}"`);
  return found.text;
}

/** A text moved so that its first line stands `by` spaces from the left. */
export function indented(text: string, by: number): string {
  const own = /^ */.exec(text.replace(/^\n+/, ''))?.[0].length ?? 0;
  const lines = text.split('\n').map((line) => (line.trim() === '' ? '' : ' '.repeat(by) + line.slice(own)));
  return lines.join('\n').replace(/\n+$/, '\n');
}
