/** Where a story tells what it does. The runner's log implements it; a story never knows that. */
export interface Log {
  readonly info: (message: string) => void;
  readonly notice: (message: string) => void;
  readonly warning: (message: string) => void;
  /** Runs one chapter; its lines fold together in the runner's log. */
  chapter<T>(title: string, work: () => Promise<T>): Promise<T>;
  /** Starts a progress line for long work; `totalBytes` undefined when the size isn't known. */
  progress(what: string, totalBytes: number | undefined): Progress;
}

export interface Progress {
  add(bytes: number): void;
  done(): void;
}

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
    progress: (what, totalBytes) => log.progress(`${name}: ${what}`, totalBytes),
  };
}
