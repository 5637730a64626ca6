import { summary, warning } from '@actions/core';
import { messageOf } from '../errors.ts';

/** Adds Markdown to the job summary. A step doesn't fail over its summary: trouble is a warning. */
export async function addSummary(markdown: string): Promise<void> {
  if (process.env['GITHUB_STEP_SUMMARY'] === undefined) return;
  try {
    await summary.addRaw(markdown, true).write();
  } catch (error) {
    warning(`The job summary could not be written: ${messageOf(error)}`);
  }
}
