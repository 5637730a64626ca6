import { setOutput, summary, warning } from '@actions/core';
import { messageOf } from '../base/errors.ts';

/** Sets the step's outputs; a later call wins over an earlier one. */
export function setOutputs(outputs: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(outputs)) setOutput(name, value);
}

/** Adds Markdown to the job summary. A step doesn't fail over its summary: trouble is a warning. */
export async function addSummary(markdown: string): Promise<void> {
  if (process.env['GITHUB_STEP_SUMMARY'] === undefined) return;
  try {
    await summary.addRaw(markdown, true).write();
  } catch (error) {
    warning(`The job summary could not be written: ${messageOf(error)}`);
  }
}
