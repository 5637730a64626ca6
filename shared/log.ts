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
