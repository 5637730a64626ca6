import { statSync } from 'node:fs';
import { setOutput, setSecret, summary, warning } from '@actions/core';
import { messageOf } from '../base/errors.ts';
import type { Markdown } from '../base/markdown.ts';

/** Sets the step's outputs; a later call wins over an earlier one. */
export function setOutputs(outputs: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(outputs)) setOutput(name, value);
}

// GitHub shows nothing of a step's summary that has more (docs.github.com, "Workflow commands", "Step isolation and limits").
const mostBytes = 1024 * 1024;

/** Adds Markdown to the job summary. A step doesn't fail over its summary: trouble is a warning. */
export async function addSummary(markdown: Markdown): Promise<void> {
  const path = process.env['GITHUB_STEP_SUMMARY'];
  if (path === undefined) return;
  try {
    // To open a pipe would wait for its reader, and no signal would end that.
    const there = statSync(path);
    if (!there.isFile()) throw new Error(`${path} is no file`);
    const text = markdown.toString();
    if (there.size + Buffer.byteLength(text) >= mostBytes) throw new Error('it would have more than 1 MiB');
    await summary.addRaw(text, true).write();
  } catch (error) {
    warning(`The job summary could not be written: ${messageOf(error)}`);
  }
}

/** Keeps a text out of the log. The runner complains about an empty one. */
export function maskSecret(secret: string): void {
  if (secret !== '') setSecret(secret);
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
