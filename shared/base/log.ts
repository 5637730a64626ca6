/** Where a story tells what it does. The runner's log implements it; a story never knows that. */
export interface Log {
  readonly info: (message: string) => void;
  readonly notice: (message: string) => void;
  readonly warning: (message: string) => void;
  /** Runs one chapter; its lines fold together in the runner's log. */
  chapter<T>(title: string, work: () => Promise<T>): Promise<T>;
  /** Runs long work that tells how many bytes have passed; lines say how far it is, and at the end whether it went well. */
  readonly progress: <T>(
    what: string,
    total: TotalBytes,
    work: (passed: (bytes: number) => void) => Promise<T>,
  ) => Promise<T>;
}

/** Bytes that will pass; `atMost` where others decide how many of them. */
export type TotalBytes = number | { readonly atMost: number } | 'unknown';

/** The same log for one of several works at once: each line begins with the name, and chapters don't fold. */
export function namedLog(log: Log, name: string): Log {
  return {
    info: (message) => {
      log.info(`${name}: ${message}`);
    },
    notice: (message) => {
      log.notice(`${name}: ${message}`);
    },
    warning: (message) => {
      log.warning(`${name}: ${message}`);
    },
    chapter: (_title, work) => work(),
    progress: (what, total, work) => log.progress(`${name}: ${what}`, total, work),
  };
}
