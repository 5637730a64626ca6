/** Logging interface used by the actions; they don't know its implementation. */
export interface Log {
  readonly info: (message: string) => void;
  readonly notice: (message: string) => void;
  readonly warning: (message: string) => void;
  /** Runs one chapter: a collapsible group of lines in the runner's log. */
  chapter<T>(title: string, work: () => Promise<T>): Promise<T>;
  /** Runs long work that reports its bytes, and logs its progress and completion. */
  readonly progress: <T>(
    what: string,
    total: TotalBytes,
    work: (passed: (bytes: number) => void) => Promise<T>,
  ) => Promise<T>;
}

/** The expected bytes; `atMost` if the number depends on others. */
export type TotalBytes = number | { readonly atMost: number } | 'unknown';

/** Returns the log for one of several parallel tasks: each line begins with its name, and chapters aren't collapsible. */
export function namedLog(log: Log, name: string): Log {
  return {
    info: (message) => log.info(`${name}: ${message}`),
    notice: (message) => log.notice(`${name}: ${message}`),
    warning: (message) => log.warning(`${name}: ${message}`),
    chapter: (_title, work) => work(),
    progress: (what, total, work) => log.progress(`${name}: ${what}`, total, work),
  };
}
