import { invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

/**
 * Rejects the characters that the artifact service rejects (actions/toolkit, artifact, path-and-artifact-name-validation.ts).
 * @throws HandoverError `invalid-input`
 */
export function requireArtifactName(name: string): string {
  const wrong = /[":<>|*?\r\n\\/]/.exec(name)?.[0];
  if (wrong === undefined && name.trim() !== '') return name;
  const why = wrong === undefined ? 'it is empty' : `it contains ${JSON.stringify(wrong)}`;
  throw invalidInput(
    `"${quoteForeign(name)}" is not a valid name of an artifact: ${why}.`,
    'Set `artifact-name` without any of " : < > | * ? \\ / and without line ends, such as docker-image-pr-1.',
  );
}

/** Returns whether a text is a pattern for names: it contains a `*` (any characters) or a `?` (one character). */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}

/** Returns whether a pattern matches a name. Only `*` and `?` are special. The time is proportional to both lengths. */
export function matchesPattern(pattern: string, name: string): boolean {
  // Whether the part of the pattern read so far matches the first `length` characters of the name.
  let matches = Array.from({ length: name.length + 1 }, (_, length) => length === 0);
  for (const mark of pattern.split('')) {
    const shortest = matches.indexOf(true);
    matches = matches.map((_, length) =>
      mark === '*'
        ? shortest >= 0 && length >= shortest
        : matches[length - 1] === true && (mark === '?' || mark === name[length - 1]),
    );
  }
  return matches.at(-1) === true;
}

// A wanted artifact is given by its name, a pattern, or `id:` and its id, which can't be a name.
const wantedId = /^id:(\d+)$/;

/** Returns whether a wanted text is the id of one artifact. */
export function isId(wanted: string): boolean {
  return wantedId.test(wanted);
}

/** Returns whether an artifact has a wanted name, pattern or id. */
export function isWanted(wanted: string, { id, name }: { readonly id: number; readonly name: string }): boolean {
  const [, wantedNumber] = wantedId.exec(wanted) ?? [];
  return wantedNumber === undefined ? matchesPattern(wanted, name) : wantedNumber === String(id);
}

/**
 * Decides which artifacts are wanted: those with the ids, or else with the names or patterns. Returns each once.
 * @throws HandoverError `invalid-input`
 */
export function chooseWanted(names: readonly string[], ids: readonly string[]): readonly string[] {
  const wrong = ids.find((id) => !/^[1-9]\d{0,14}$/.test(id));
  if (wrong !== undefined) {
    throw invalidInput(
      `The input \`artifact-ids\` has "${quoteForeign(wrong)}"; expected the id of an artifact, a number.`,
      'Give it the output `artifact-id` of export-image: ${{ needs.build.outputs.artifact-id }}.',
    );
  }
  if (ids.length > 0) return [...new Set(ids)].map((id) => `id:${id}`);
  if (names.length === 0) throw invalidInput('The input `artifact-name` is empty.', 'Leave it out for `docker-image`.');
  for (const name of names) {
    const parts = isPattern(name) ? name.split(/[*?]+/).filter((part) => part !== '') : [name];
    parts.forEach(requireArtifactName);
  }
  return [...new Set(names)];
}
