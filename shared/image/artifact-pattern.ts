/** Whether the text stands for any number of names: it has a `*` (any characters) or a `?` (one character). */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}

/**
 * Whether the pattern stands for this name. `*` and `?` alone mean something; every other character means itself. Takes
 * time in proportion to both lengths at most, whatever the pattern.
 */
export function matchesPattern(pattern: string, name: string): boolean {
  let at = 0;
  let position = 0;
  // Where the last `*` stands, and up to where it has swallowed the name.
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
