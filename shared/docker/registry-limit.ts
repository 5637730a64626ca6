import { registryLimitMs } from '../registry-attempts.ts';
import { formatDuration } from '../text.ts';
import type { RunningCli } from './cli.ts';

/** Ends a command whose work on a registry takes too long. */
export interface RegistryLimit {
  /** The work on the registry begins; told again, nothing changes. */
  start(): void;
  stop(): void;
  /** Why the command was ended, if it was. */
  exceeded(): string | undefined;
}

export function registryLimit(running: RunningCli): RegistryLimit {
  let timer: NodeJS.Timeout | undefined;
  let why: string | undefined;
  const end = (): void => {
    why = `it took longer than ${formatDuration(registryLimitMs)}`;
    running.kill();
  };
  return {
    start: () => void (timer ??= setTimeout(end, registryLimitMs)),
    stop: () => {
      clearTimeout(timer);
    },
    exceeded: () => why,
  };
}
