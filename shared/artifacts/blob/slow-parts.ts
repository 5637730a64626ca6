import { setTimeout as sleep } from 'node:timers/promises';
import { asError } from '../../base/errors.ts';
import { formatDuration } from '../../base/text.ts';

// One connection in many is slow (actions/cache#810, actions/toolkit#1484). A part that takes far longer than its neighbours delays the
// end of an upload, or all later parts of a download. The part is requested or sent a second time, and the first response wins
// (docs/decisions/0001-speed-alone-has-to-win-a-tenth.md).

const lookEveryMs = 100;
/** A part is slow when it takes more than `slowFactor` times as long as the median part, and more than `minSlowMs`. */
const slowFactor = 4;
const minSlowMs = 1000;
/** When all connections are slow, a connection is closed after a part that took over this many times as long as the median part. */
const retiredFactor = 2;
/** One in `oneIn` received parts may be requested again, plus `beyond` more. */
const oneIn = 20;
const beyond = 2;
const usuallyInFlight = 8;
const mostInFlight = 32;
/** When all connections are slow, more parts are requested at once until their total speed reaches this. */
const floorBytesPerMs = 60_000;

/** How long the parts of a step took, and how many were requested or sent twice. */
export class PartFigures {
  readonly #ms: number[] = [];
  /** Number of parts requested or sent a second time, and of second responses that arrived first. */
  twice = 0;
  won = 0;

  /** @param ms time from requesting or sending the part to its response */
  add(ms: number): void {
    this.#ms.push(ms);
  }

  /** Returns one log line; undefined for a few parts of which none was requested or sent twice. */
  describe(): string | undefined {
    if (this.#ms.length < usuallyInFlight && this.twice === 0) return undefined;
    const sorted = this.#ms.toSorted((one, other) => one - other);
    const at = (share: number): string => formatDuration(sorted[Math.ceil(sorted.length * share) - 1] ?? 0);
    const twice = this.twice === 0 ? 'none' : `${String(this.twice)}, ${String(this.won)} of them with success`;
    return `Parts of transfers: ${String(sorted.length)}, half within ${at(0.5)}, 99 % within ${at(0.99)}; asked twice: ${twice}`;
  }
}

/** Requests a part's bytes into the part's own memory, or sends them. `timed` runs each request. */
type RequestPart = (signal: AbortSignal, timed: (request: () => Promise<void>) => Promise<void>) => Promise<Buffer>;
/** Requests a part's bytes once into other memory, or sends them once. */
type RequestOnce = (signal: AbortSignal) => Promise<Buffer>;

/** A part that was requested or sent. */
export class Part {
  /** In ms, from `performance.now()`. */
  readonly requestedAt = performance.now();
  /** When the current request was sent; `Infinity` in a pause between two requests. */
  sentAt = this.requestedAt;
  hasArrived = false;
  readonly arriving: Promise<Buffer>;
  readonly requestAgain: RequestOnce;
  /** Cancels the first request. */
  readonly abandoned = new AbortController();
  /** Aborted when the first request has ended. */
  readonly ended = new AbortController();

  constructor(first: RequestPart, requestAgain: RequestOnce, onArrival: (ms: number) => void) {
    this.requestAgain = requestAgain;
    this.arriving = first(this.abandoned.signal, async (request) => {
      this.sentAt = performance.now();
      await request().finally(() => (this.sentAt = Infinity));
    });
    this.arriving
      .then(
        () => {
          this.hasArrived = true;
          onArrival(performance.now() - this.requestedAt);
        },
        () => undefined, // firstResponse throws the error
      )
      .finally(() => this.ended.abort());
  }
}

/** Requests the parts of one blob, and measures how long they take. */
export interface Parts {
  /** Returns how many parts of this size to request at once. */
  inFlight(bytes: number): number;
  /** Returns whether the connection of a part that took `ms` should be closed, because others are faster. */
  retires(bytes: number, ms: number): boolean;
  request(first: RequestPart, again: RequestOnce): Part;
  /**
   * Returns the part's bytes from the first response, and cancels the other request. Throws the first request's error if both fail.
   * @param neighbours parts that were requested after this part
   */
  firstResponse(part: Part, neighbours: readonly Part[]): Promise<Buffer>;
}

export interface PartOptions {
  readonly figures?: PartFigures | undefined;
  /** Whether to repeat slow parts, and to transfer more parts at once when all are slow. The benchmark measures both settings. */
  readonly adapts?: boolean;
}

export function parts({ adapts = true, figures = new PartFigures() }: PartOptions): Parts {
  const lastMs: number[] = [];
  let [received, duplicateRequests] = [0, 0];
  const medianMs = (): number => lastMs.toSorted((one, other) => one - other)[lastMs.length >> 1] ?? 0;
  const isSlow = (ms: number): boolean => ms > Math.max(minSlowMs, slowFactor * medianMs());
  // When the neighbours are slow as well, the link is slow, and another request would make it slower. One slow neighbour proves
  // nothing: the last two parts of a blob can both have a slow connection.
  const isAlone = (neighbours: readonly Part[]): boolean =>
    neighbours.filter(({ hasArrived }) => !hasArrived).length <= Math.max(1, neighbours.length / 2);
  const inFlight = (bytes: number): number => {
    const wanted = adapts ? Math.ceil((medianMs() * floorBytesPerMs) / bytes) : 0;
    return Math.min(mostInFlight, Math.max(usuallyInFlight, wanted));
  };
  return {
    inFlight,
    retires: (bytes, ms) => inFlight(bytes) > usuallyInFlight && ms > retiredFactor * medianMs(),
    request: (first, again) =>
      new Part(first, again, (ms) => {
        received += 1;
        figures.add(ms);
        lastMs.push(ms);
        if (lastMs.length > 16) lastMs.shift();
      }),
    firstResponse: async (part, neighbours) => {
      while (adapts && (await isWaiting(part))) {
        if (!isSlow(performance.now() - part.sentAt) || !isAlone(neighbours)) continue;
        if (duplicateRequests >= beyond + received / oneIn) continue;
        duplicateRequests += 1;
        figures.twice += 1;
        return race(part, () => {
          figures.won += 1;
          figures.add(performance.now() - part.requestedAt);
        });
      }
      return part.arriving;
    },
  };
}

/** Returns whether the first request is still running after a short wait. */
function isWaiting({ ended }: Part): Promise<boolean> {
  return sleep(lookEveryMs, true, { signal: ended.signal }).catch(() => false);
}

/** @param onWon called when the second response arrives first */
async function race(part: Part, onWon: () => void): Promise<Buffer> {
  const second = new AbortController();
  const again = part.requestAgain(second.signal);
  again.catch(() => undefined);
  const first = part.arriving.then(
    (bytes) => {
      second.abort();
      return bytes;
    },
    (error: unknown) =>
      again.catch(() => {
        throw asError(error);
      }),
  );
  const other = again.then(
    (bytes) => {
      if (!part.hasArrived) onWon();
      part.abandoned.abort();
      return bytes;
    },
    () => first,
  );
  return Promise.race([first, other]);
}
