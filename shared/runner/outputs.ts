import { statSync } from 'node:fs';
import { info, setOutput, setSecret, summary, warning } from '@actions/core';
import { messageOf } from '../base/errors.ts';
import { joined, type Markdown, safe, words } from '../base/markdown.ts';

/** Sets the step's outputs. A later call overwrites an earlier one. */
export function setOutputs(outputs: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(outputs)) setOutput(name, value);
}

// GitHub doesn't show a larger summary of a step (docs.github.com, "Workflow commands", "Step isolation and limits").
const mostBytes = 1024 * 1024;

/** Adds Markdown to the job summary, with `details` for the log, which fold there. A failure is only a warning. */
export async function addSummary(markdown: Markdown, details?: string): Promise<void> {
  if (details !== undefined) info(details);
  const path = process.env['GITHUB_STEP_SUMMARY'];
  if (path === undefined) return;
  try {
    // Opening a pipe would wait for its reader.
    const there = statSync(path);
    if (!there.isFile()) throw new Error(`${path} is not a file`);
    const folded = safe`<details><summary>Transfer</summary>\n\n${words(details ?? '')}\n\n</details>\n\n`;
    const text = joined([markdown, details === undefined ? undefined : folded], '').toString();
    if (there.size + Buffer.byteLength(text) >= mostBytes) throw new Error('it would have more than 1 MiB');
    await summary.addRaw(text, true).write();
  } catch (error) {
    warning(`The job summary could not be written: ${messageOf(error)}`);
  }
}

/** Keeps a text out of the log. The runner rejects an empty one. */
export function maskSecret(secret: string): void {
  if (secret !== '') setSecret(secret);
}

// Shorter ones are part of many words and numbers.
const shortestSecret = 4;

/**
 * Keeps each line of a secret out of the log. Common texts such as `{` or `true` are not masked, because the runner drops outputs with
 * masked text.
 */
export function maskLines(secret: string, mask: (line: string) => void): void {
  for (const line of secret.split(/[\r\n]+/).map((one) => one.trim())) {
    if (line.length >= shortestSecret && line !== 'true' && line !== 'false') mask(line);
  }
}
