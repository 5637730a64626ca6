import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';

// Ends child processes when this process ends for any reason: a leftover engine keeps its memory, mounts and disk.

const exitHandlers = new Set<() => void>();
process.on('exit', () => {
  for (const work of exitHandlers) work();
});
// A signal would otherwise end this process without running its exit handlers.
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));

/** Starts a program that the kernel kills when this process ends, even if this process is killed. */
export function spawnOwn(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'TERM', program, ...args], options);
}

/** Runs the synchronous function when this process exits, unless the returned function was called first. */
export function onExit(work: () => void): () => void {
  exitHandlers.add(work);
  return () => void exitHandlers.delete(work);
}

/** Ends a child with SIGTERM, then with SIGKILL after the limit. */
export async function endChild(child: ChildProcess, limitMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  await ended;
  clearTimeout(killer);
}
