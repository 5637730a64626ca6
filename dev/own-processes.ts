import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';

// What we started ends with us, however we end: an engine left behind keeps its memory, mounts and disk.

const atEnd = new Set<() => void>();
process.on('exit', () => {
  for (const work of atEnd) work();
});
// A signal would end this process without its exit handlers.
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));

/** Starts a program that the kernel ends with this process, even when this process is killed outright. */
export function spawnOwn(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'TERM', program, ...args], options);
}

/** Does the (synchronous) work when this process ends, unless the returned function is called before. */
export function whenWeEnd(work: () => void): () => void {
  atEnd.add(work);
  return () => void atEnd.delete(work);
}

/** Ends a child: kindly first, and after a while for certain. */
export async function endChild(child: ChildProcess, limitMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  await ended;
  clearTimeout(killer);
}
