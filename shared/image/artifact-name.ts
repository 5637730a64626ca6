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

/** Returns whether a text is a pattern for names: it has a `*` (any characters) or a `?` (one character). */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}

/** Returns whether a pattern matches a name. Only `*` and `?` are special. The time is at most proportional to both lengths. */
export function matchesPattern(pattern: string, name: string): boolean {
  let at = 0;
  let position = 0;
  // The position of the last `*`, and of the end of its match.
  let star = -1;
  let swallowed = 0;
  while (position < name.length) {
    if (pattern[at] === '*') {
      star = at;
      at += 1;
      swallowed = position;
    } else if (pattern[at] === '?' || pattern[at] === name[position]) {
      at += 1;
      position += 1;
    } else if (star >= 0) {
      swallowed += 1;
      position = swallowed;
      at = star + 1;
    } else {
      return false;
    }
  }
  return /^\**$/.test(pattern.slice(at));
}

/**
 * Checks a name or a pattern of artifacts.
 * @throws HandoverError `invalid-input`
 */
export function requireNameOrPattern(text: string): void {
  if (!isPattern(text)) requireArtifactName(text);
  for (const part of text.split(/[*?]+/)) if (part !== '') requireArtifactName(part);
}
