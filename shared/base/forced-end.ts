import { readdirSync, readFileSync } from 'node:fs';
import { attempt } from './errors.ts';

// A step that is cancelled or runs out of time cleans up. If the cleanup hangs, the step exits shortly before the runner would kill it.
// Before that, this file ends the processes and removes the files that the step created, without waiting.

const works = new Set<() => void>();

/**
 * @param work called at a forced end; it must be synchronous
 * @returns a function that unregisters it
 */
export function onForcedEnd(work: () => void): () => void {
  works.add(work);
  return () => void works.delete(work);
}

/** Kills the child processes and calls the registered functions. */
export function endByForce(): void {
  killChildren();
  for (const work of works) attempt(work, undefined);
}

/**
 * Kills this process's descendants: all of them, or only those whose last arguments are these. Works only on Linux
 * (proc_pid_task_children(5)).
 */
export function killChildren(lastArguments: readonly string[] = []): void {
  // In /proc, each argument ends with a zero byte.
  const end = lastArguments.map((argument) => `${argument}\0`).join('');
  for (const pid of childrenOf('self')) {
    if (attempt(() => readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8'), '').endsWith(end)) killTree(pid);
  }
}

/** Kills a process and its descendants, such as docker's plugins. */
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
