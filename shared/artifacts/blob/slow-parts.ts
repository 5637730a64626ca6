import { setTimeout as sleep } from 'node:timers/promises';
import { asError } from '../../base/errors.ts';

// One connection in many is slow (actions/cache#810, actions/toolkit#1484), and parts are given out in order: one that takes far longer
// than its neighbours would hold up all of them. It is asked for once more beside the first request, and whoever comes first wins.

const lookEveryMs = 100;
/** So much longer than parts take in the middle, and at least so long. */
const slowFactor = 4;
const slowMs = 1000;
/** Of the parts that have come, one in so many may be asked for again, and so many beyond. */
const oneIn = 20;
const beyond = 2;

/** A part that has been asked for. */
export interface AskedPart {
  readonly arriving: Promise<Buffer>;
  readonly hasArrived: () => boolean;
}

/**
 * Asks for a part's bytes, again after a failure.
 * @param signal ends that
 * @param timed runs each request, so that the pauses between them don't count as slow
 */
type AskForPart = (signal: AbortSignal, timed: (request: () => Promise<void>) => Promise<void>) => Promise<Buffer>;

/** The same once. */
type AskOnce = (signal: AbortSignal) => Promise<Buffer>;

/** Parts of one blob, and how long they take. */
export interface Parts {
  /**
   * Asks for a part.
   * @param first into the memory that is meant for it
   * @param again into other memory; called when a request of the first takes too long
   */
  ask(first: AskForPart, again: AskOnce): AskedPart;
  /**
   * The part's bytes, by whichever request brings them first; the other one is ended.
   * @param neighbours parts that were asked for after it
   * @throws what the first request throws, when no other brings the bytes
   */
  firstToCome(part: AskedPart, neighbours: readonly AskedPart[]): Promise<Buffer>;
}

interface OpenPart extends AskedPart {
  /** When the request under way began; `Infinity` without one. */
  readonly askedAt: () => number;
  readonly again: AskOnce;
  /** Ends the first request. */
  readonly abandon: () => void;
  /** Aborted when the first request has ended. */
  readonly ended: AbortSignal;
}

/** @param asksAgain otherwise each part is asked for once only */
export function parts(asksAgain: boolean): Parts {
  const open = new WeakMap<AskedPart, OpenPart>();
  const lastMs: number[] = [];
  let [come, askedAgain] = [0, 0];
  const took = (ms: number): void => {
    come += 1;
    lastMs.push(ms);
    if (lastMs.length > 16) lastMs.shift();
  };
  const isSlow = (ms: number): boolean => {
    const middle = lastMs.toSorted((one, other) => one - other)[lastMs.length >> 1] ?? 0;
    return ms > Math.max(slowMs, slowFactor * middle);
  };
  return {
    ask: (first, again) => {
      const part = begun(first, again, took);
      open.set(part, part);
      return part;
    },
    firstToCome: async (asked, neighbours) => {
      const part = open.get(asked);
      if (part === undefined || !asksAgain) return asked.arriving;
      // Where its neighbours wait, too, the link is slow, and one more request would make it slower.
      const isAlone = (): boolean => neighbours.filter((other) => other.hasArrived()).length * 2 >= neighbours.length;
      const isHopeless = (): boolean => isSlow(performance.now() - part.askedAt()) && isAlone();
      // Until the wait is cut short.
      while (await waited(part.ended)) {
        if (!isHopeless() || askedAgain >= beyond + come / oneIn) continue;
        askedAgain += 1;
        return beside(part);
      }
      return part.arriving;
    },
  };
}

function waited(ended: AbortSignal): Promise<boolean> {
  return sleep(lookEveryMs, true, { signal: ended }).catch(() => false);
}

function begun(first: AskForPart, again: AskOnce, took: (ms: number) => void): OpenPart {
  let askedAt = performance.now();
  const [abandoned, ended] = [new AbortController(), new AbortController()];
  let hasArrived = false;
  const arriving = first(abandoned.signal, async (request) => {
    askedAt = performance.now();
    try {
      await request();
    } finally {
      askedAt = Infinity;
    }
  });
  arriving
    .then(
      () => {
        hasArrived = true;
        took(performance.now() - askedAt);
      },
      () => undefined, // reported when its turn comes
    )
    .finally(() => {
      ended.abort();
    });
  return {
    arriving,
    hasArrived: () => hasArrived,
    askedAt: () => askedAt,
    again,
    abandon: () => {
      abandoned.abort();
    },
    ended: ended.signal,
  };
}

async function beside({ arriving, again, abandon }: OpenPart): Promise<Buffer> {
  const second = new AbortController();
  const asked = again(second.signal);
  asked.catch(() => undefined);
  const wins = arriving.then(
    (bytes) => {
      second.abort();
      return bytes;
    },
    (error: unknown) =>
      asked.catch(() => {
        throw asError(error);
      }),
  );
  const other = asked.then(
    (bytes) => {
      abandon();
      return bytes;
    },
    () => wins,
  );
  return Promise.race([wins, other]);
}
