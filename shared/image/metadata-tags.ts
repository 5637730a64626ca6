import { HandoverError } from '../errors.ts';
import { isObject, parseJson, stringsOf } from '../json.ts';
import { quoteForeign } from '../text.ts';
import { parseReference, type Reference } from './reference.ts';

/**
 * Reads what docker/metadata-action puts out: `tags` (one reference per line) or `json` (an object with `tags`).
 * Empty lines are dropped; the order stays, and the first is the action's own first choice.
 * @throws HandoverError `invalid-input` when nothing is left, showing what was received
 */
export function parseMetadataTags(text: string): readonly [Reference, ...Reference[]] {
  const [first, ...rest] = tagLines(text).map(parseReference);
  if (first === undefined) {
    throw new HandoverError(
      'invalid-input',
      `No image reference in the metadata output: received "${quoteForeign(text)}".`,
      'Pass ${{ steps.meta.outputs.tags }} and check that the step has the id "meta" and ran before this one.',
    );
  }
  return [first, ...rest];
}

/** Lines of a multi-line output, one argument each; empty lines dropped. */
export function lines(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function tagLines(text: string): readonly string[] {
  const json = text.trimStart().startsWith('{') ? parseJson(text) : undefined;
  return isObject(json) ? stringsOf(json['tags']).flatMap(lines) : lines(text);
}
