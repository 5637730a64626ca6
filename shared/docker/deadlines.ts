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
  const late = timeLimit(cleanUpMs, noAnswer(program, cleanUpMs));
  if (signal.aborted) late.start();
  else signal.addEventListener('abort', late.start, { once: true });
  const cleaning: Deadlines = {
    signal: late.signal,
    within: (work, giveUp) => {
      const answer = timeLimit(answerMs, noAnswer(program, answerMs));
      answer.start();
      return unlessAborted(work, AbortSignal.any([late.signal, answer.signal]), 0, giveUp).finally(answer.stop);
    },
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

/** The time limit of a command. */
export interface TimeLimit {
  /** Aborted when the time is up. */
  readonly signal: AbortSignal;
  /** Starts the time, unless it has started before. */
  readonly start: () => void;
  /** Starts the time again. */
  readonly restart: () => void;
  readonly stop: () => void;
}

/** @param reason what the signal is aborted with */
export function timeLimit(ms: number, reason?: HandoverError): TimeLimit {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const restart = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      controller.abort(reason);
    }, ms).unref();
  };
  return {
    signal: controller.signal,
    start: () => {
      if (timer === undefined) restart();
    },
    restart,
    stop: () => {
      clearTimeout(timer);
    },
  };
}

function noAnswer(program: string, ms: number): HandoverError {
  return new HandoverError(
    'docker-unavailable',
    `${program} gave no answer within ${String(ms / 1000)} s.`,
    `Look at the engine on this runner: ${program} ${program === 'ctr' ? 'version' : 'info'}.`,
  );
}
