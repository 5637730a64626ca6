import { HandoverError, messageOf } from '../base/errors.ts';
import { code, type Markdown, safe, prose, words } from '../base/markdown.ts';

/** The job summary of a step that failed. */
export function failureSummary(name: string, error: unknown): Markdown {
  if (!(error instanceof HandoverError)) return safe`### ❌ ${words(name)} failed\n\n${prose(messageOf(error))}\n`;
  return safe`### ❌ ${words(name)}: ${code(error.code)}\n\n${prose(error.message)}\n\n**Next step:** ${prose(error.hint)}\n`;
}
