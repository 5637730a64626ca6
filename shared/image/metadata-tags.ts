import { HandoverError } from '../errors.ts';
import { isObject, parseJson, stringsOf } from '../json.ts';
import { quoteForeign } from '../text.ts';
import { parseReference, parseTaggedReference, type Reference, type TaggedReference } from './reference.ts';

/**
 * Reads what docker/metadata-action puts out: `tags` (one reference per line) or `json` (an object with `tags`).
 * Empty lines are dropped; the order stays, and the first is the action's own first choice.
 * @throws HandoverError `invalid-input` when nothing is left, showing what was received
 */
export function parseMetadataTags(text: string): readonly [Reference, ...Reference[]] {
  const [first, ...rest] = tagLines(text).map(parseReference);
  if (first === undefined) throw noReference(text);
  return [first, ...rest];
}

/**
 * The same as the references an image is given, each with a tag.
 * @param repository what a bare tag belongs to: metadata-action puts out bare tags when its input `images` is empty
 * @throws HandoverError `invalid-input` when nothing is left, for a malformed line, or for a bare tag without repository
 */
export function parseTagList(text: string, repository: string | undefined): readonly TaggedReference[] {
  const found = tagLines(text).map((line) => taggedReference(line, repository));
  if (found.length === 0) throw noReference(text);
  return found;
}

/** What docker/metadata-action left in the environment, and in which variable. */
export interface MetadataVariable {
  readonly name: string;
  readonly text: string;
}

/**
 * Finds the tags that docker/metadata-action left for the steps after it (its src/main.ts: each output is exported as
 * `DOCKER_METADATA_OUTPUT_<NAME>`, unless DOCKER_METADATA_SET_OUTPUT_ENV is false; TAG_NAMES since 5.9).
 * @param env the variables, by name
 * @returns undefined when it didn't run; an empty output of a run that left something else is returned as it is
 */
export function metadataVariable(env: Readonly<Record<string, string>>): MetadataVariable | undefined {
  const variables = ['TAGS', 'JSON', 'TAG_NAMES', 'VERSION'].map((output) => {
    const name = `DOCKER_METADATA_OUTPUT_${output}`;
    return { name, text: env[name]?.trim() ?? '' };
  });
  return variables.find(({ text }) => text !== '');
}

/** Lines of a multi-line output, one argument each; empty lines dropped. */
export function lines(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

// The action's `sep-tags` may be a comma, which no reference contains.
function tagLines(text: string): readonly string[] {
  const json = text.trimStart().startsWith('{') ? parseJson(text) : undefined;
  const parts = isObject(json) ? stringsOf(json['tags']) : [text];
  return parts.flatMap((part) => lines(part.replaceAll(',', '\n')));
}

function taggedReference(line: string, repository: string | undefined): TaggedReference {
  if (/[/:@]/.test(line)) return parseTaggedReference(line);
  if (repository !== undefined) return parseTaggedReference(`${repository}:${line}`);
  throw new HandoverError(
    'invalid-input',
    `"${quoteForeign(line)}" in the list of tags is a tag without a repository.`,
    'Write the whole reference, such as ghcr.io/org/charon:1.2.3, or set `repository`.',
  );
}

function noReference(text: string): HandoverError {
  return new HandoverError(
    'invalid-input',
    `No image reference in the metadata output: received "${quoteForeign(text)}".`,
    'Pass ${{ steps.meta.outputs.tags }} and check that the step has the id "meta" and ran before this one.',
  );
}
