import { addAbortListener } from 'node:events';
import { abortedAfter, timeLimit } from '../base/deadline.ts';
import { asError, HandoverError } from '../base/errors.ts';

// The runner kills a cancelled step 7.5 s after its first signal (actions/runner, ProcessInvoker). Short work may finish first, and the
// cleanup has to end within that time.
const cancelGraceMs = 1000;
const cleanUpMs = 5500;
// Without a cancel: the removal of a large image takes long.
const answerMs = 60_000;

/** The ends of work on an engine: the cancel of the step, and a time limit for cleanup. */
export interface Deadlines {
  /** Ends long work. */
  readonly signal: AbortSignal;
  /** Waits for short work, or calls `giveUp`. Throws the signal's reason, or `docker-unavailable` after the time limit. */
  within<T>(work: Promise<T>, giveUp: () => void): Promise<T>;
  /** The same for cleanup. It works after a cancel, with little time for each query. */
  readonly forCleanUp: Deadlines;
}

/** @param program the engine's command, for messages */
export function deadlines(signal: AbortSignal, program: string): Deadlines {
  const over = abortedAfter(signal, cancelGraceMs);
  const late = abortedAfter(signal, cleanUpMs, noAnswer(program, cleanUpMs));
  const cleaning: Deadlines = {
    signal: late,
    within: (work, giveUp) => {
      const answer = timeLimit(answerMs, noAnswer(program, answerMs));
      answer.start();
      return unlessAborted(work, AbortSignal.any([late, answer.signal]), giveUp).finally(answer.stop);
    },
    get forCleanUp() {
      return cleaning;
    },
  };
  return {
    signal,
    within: (work, giveUp) => unlessAborted(work, over, giveUp),
    forCleanUp: cleaning,
  };
}

/** Returns the work's result. Gives the work up at the abort, and throws the signal's reason. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal, giveUp: () => void): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = (): void => {
    giveUp();
    reject(asError(signal.reason));
  };
  const listening = addAbortListener(signal, stop);
  try {
    return await Promise.race([work, promise]);
  } finally {
    listening[Symbol.dispose]();
  }
}

function noAnswer(program: string, ms: number): HandoverError {
  return new HandoverError(
    'docker-unavailable',
    `${program} gave no answer within ${String(ms / 1000)} s.`,
    `Check the engine on this runner: ${program} ${program === 'ctr' ? 'version' : 'info'}.`,
  );
}
