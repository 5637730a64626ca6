import { setSecret } from '@actions/core';

/** Keeps a text out of the log. */
export function maskSecret(secret: string): void {
  setSecret(secret);
}

// Shorter ones stand in words and numbers of every kind.
const shortestSecret = 4;

/**
 * Keeps each line of a secret out of the log, where it is printed line by line. What a mask would only spoil is left:
 * a brace of some JSON or a `true` would be blotted out wherever it stands, and the runner drops outputs with masked text.
 */
export function maskLines(secret: string, mask: (line: string) => void): void {
  for (const line of secret.split(/[\r\n]+/).map((one) => one.trim())) {
    if (line.length >= shortestSecret && line !== 'true' && line !== 'false') mask(line);
  }
}
