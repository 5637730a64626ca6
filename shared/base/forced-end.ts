import { readdirSync, readFileSync } from 'node:fs';
import { attempt } from './errors.ts';

// A step that was cancelled or whose time is up cleans up by itself. Where that stands still, it is ended by force, by itself, a
// moment before the runner would do it: then what it has started and written goes here, without waiting for anything.

const works = new Set<() => void>();

/**
 * @param work is done when the step is ended by force; it can't wait for anything
 * @returns what takes that back
 */
export function onForcedEnd(work: () => void): () => void {
  works.add(work);
  return () => void works.delete(work);
}

/** Kills what this process has started, and does all that is to be done. */
export function endByForce(): void {
  killChildren();
  for (const work of works) attempt(work, undefined);
}

/**
 * Kills child processes of this process, and theirs: all of them, or those that were started with these last arguments. A command that
 * was given up would outlive the step. Only Linux tells who they are (proc_pid_task_children(5)).
 */
export function killChildren(lastArguments: readonly string[] = []): void {
  // In /proc, each argument ends with a zero byte.
  const end = lastArguments.map((argument) => `${argument}\0`).join('');
  for (const pid of childrenOf('self')) {
    if (attempt(() => readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8'), '').endsWith(end)) killTree(pid);
  }
}

/** Kills a process and all that it has started: docker runs its plugins as processes of their own. */
export function killTree(pid: number): void {
  const below = childrenOf(pid);
  attempt(() => process.kill(pid, 'SIGKILL'), false);
  below.forEach(killTree);
}

function childrenOf(pid: number | 'self'): readonly number[] {
  const tasks = `/proc/${String(pid)}/task`;
  return attempt(() => readdirSync(tasks), []).flatMap((task) =>
    attempt(() => readFileSync(`${tasks}/${task}/children`, 'utf8'), '')
      .split(' ')
      .map(Number)
      .filter((child) => child > 0),
  );
}
