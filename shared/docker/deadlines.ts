import { asError, HandoverError } from '../base/errors.ts';

// A cancelled step is killed 7.5 s after it was asked to end (actions/runner, ProcessInvoker). Short work may end first, and all
// that puts things back has to end within that time.
const cancelGraceMs = 1000;
const cleanUpMs = 5500;
// Where nothing was cancelled: to remove a large image takes a while.
const answerMs = 60_000;

/** What ends work on an engine: the cancel of the step, and for what puts things back a time limit. */
export interface Deadlines {
  /** Ends long work when it is aborted. */
  readonly signal: AbortSignal;
  /**
   * Waits for short work.
   * @param giveUp ends the work, where it hasn't ended in time
   * @throws the signal's reason, or `docker-unavailable` when an answer took too long
   */
  within<T>(work: Promise<T>, giveUp: () => void): Promise<T>;
  /** The same for what puts things back: it works after a cancel, with little time for each question. */
  readonly forCleanUp: Deadlines;
}

/**
 * @param signal is aborted when the step is cancelled
 * @param program the engine's command, for messages
 */
export function deadlines(signal: AbortSignal, program: string): Deadlines {
  const late = afterAbort(signal, cleanUpMs, noAnswer(program, cleanUpMs));
  const cleaning: Deadlines = {
    signal: late,
    within: (work, giveUp) =>
      unlessAborted(work, AbortSignal.any([late, after(answerMs, noAnswer(program, answerMs))]), 0, giveUp),
    get forCleanUp() {
      return cleaning;
    },
  };
  return {
    signal,
    within: (work, giveUp) => unlessAborted(work, signal, cancelGraceMs, giveUp),
    forCleanUp: cleaning,
  };
}

/** The work's result; or the signal's reason as an error, when the work hasn't ended so many ms after the abort: then it is given up. */
async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
  graceMs: number,
  giveUp: () => void,
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    timer = setTimeout(() => {
      giveUp();
      reject(asError(signal.reason));
    }, graceMs);
  };
  signal.addEventListener('abort', stop, { once: true });
  // While the work was being started.
  if (signal.aborted) stop();
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/** Aborted so many ms from now. */
function after(ms: number, reason: HandoverError): AbortSignal {
  const controller = new AbortController();
  setTimeout(() => {
    controller.abort(reason);
  }, ms).unref();
  return controller.signal;
}

/** Aborted so many ms after another signal. */
function afterAbort(signal: AbortSignal, ms: number, reason: HandoverError): AbortSignal {
  const controller = new AbortController();
  const begin = (): void => {
    setTimeout(() => {
      controller.abort(reason);
    }, ms).unref();
  };
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return controller.signal;
}

/** The time limit of a command. */
export interface TimeLimit {
  /** Aborted when the time is up. */
  readonly signal: AbortSignal;
  /** Starts the time, unless it has started before. */
  start(): void;
  /** Starts the time again. */
  restart(): void;
  stop(): void;
}

export function timeLimit(ms: number): TimeLimit {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    clearTimeout(timer);
  };
  const restart = (): void => {
    stop();
    timer = setTimeout(() => {
      controller.abort();
    }, ms);
  };
  return {
    signal: controller.signal,
    start: () => {
      if (timer === undefined) restart();
    },
    restart,
    stop,
  };
}

function noAnswer(program: string, ms: number): HandoverError {
  return new HandoverError(
    'docker-unavailable',
    `${program} gave no answer within ${String(ms / 1000)} s.`,
    `Look at the engine on this runner: ${program} ${program === 'ctr' ? 'version' : 'info'}.`,
  );
}
