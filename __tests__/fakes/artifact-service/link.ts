import { setTimeout as sleep } from 'node:timers/promises';

export interface LinkOptions {
  /** All connections together, bytes per second. */
  readonly bytesPerSecond?: number;
  readonly bytesPerSecondPerConnection?: number;
  /** Before each answer, ms. */
  readonly latencyMs?: number;
}

/** A link of limited speed: waits until so many bytes may pass. */
export interface Link {
  latency(): Promise<void>;
  /** @param connection any object that stands for the connection */
  pass(connection: object, bytes: number): Promise<void>;
  readonly limited: boolean;
}

interface Lane {
  freeAt: number;
}

// At most this much may have been saved up by a quiet lane.
const burstMs = 20;

export function link(options: LinkOptions): Link {
  const all: Lane = { freeAt: 0 };
  const lanes = new WeakMap<object, Lane>();
  const reserve = (lane: Lane, bytes: number, rate: number): number => {
    const now = performance.now();
    lane.freeAt = Math.max(lane.freeAt, now - burstMs) + (bytes / rate) * 1000;
    return lane.freeAt - now;
  };
  return {
    limited: options.bytesPerSecond !== undefined || options.bytesPerSecondPerConnection !== undefined,
    latency: async () => {
      if (options.latencyMs !== undefined) await sleep(options.latencyMs);
    },
    pass: async (connection, bytes) => {
      const lane = lanes.get(connection) ?? { freeAt: 0 };
      lanes.set(connection, lane);
      const waits = [
        options.bytesPerSecond === undefined ? 0 : reserve(all, bytes, options.bytesPerSecond),
        options.bytesPerSecondPerConnection === undefined
          ? 0
          : reserve(lane, bytes, options.bytesPerSecondPerConnection),
      ];
      const wait = Math.max(...waits);
      if (wait > 1) await sleep(wait);
    },
  };
}

/** The pieces in which a chunk passes a link: short ones where it is limited, so that connections share it. */
export function portions(chunk: Buffer, limited: boolean): readonly Buffer[] {
  if (!limited) return [chunk];
  const size = 64 * 1024;
  return Array.from({ length: Math.ceil(chunk.length / size) }, (_, at) => chunk.subarray(at * size, (at + 1) * size));
}
