import { readdirSync, readFileSync } from 'node:fs';

/**
 * Kills child processes of this process: all of them, or those that were started with these last arguments. For what has been given
 * up: a command that doesn't end by itself would outlive the step. Only Linux tells who they are (proc_pid_task_children(5)).
 */
export function killChildren(lastArguments: readonly string[] = []): void {
  // In /proc, each argument ends with a zero byte.
  const end = lastArguments.map((argument) => `${argument}\0`).join('');
  for (const pid of ownChildren()) {
    if (!attempt(() => readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8'), '').endsWith(end)) continue;
    attempt(() => process.kill(pid, 'SIGKILL'), false);
  }
}

function ownChildren(): readonly number[] {
  const tasks = attempt(() => readdirSync('/proc/self/task'), []);
  return tasks.flatMap((task) =>
    attempt(() => readFileSync(`/proc/self/task/${task}/children`, 'utf8'), '')
      .split(' ')
      .map(Number)
      .filter((pid) => pid > 0),
  );
}

/** Processes come and go while one looks. */
function attempt<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise;
  }
}
