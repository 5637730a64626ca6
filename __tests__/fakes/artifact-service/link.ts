import { setTimeout as sleep } from 'node:timers/promises';

export interface LinkOptions {
  /** Bytes per second of all connections in total. */
  readonly bytesPerSecond?: number;
  readonly bytesPerSecondPerConnection?: number;
  /** One in `oneIn` connections is far slower than the others. */
  readonly slow?: { readonly oneIn: number; readonly bytesPerSecond: number };
  /** Delay of each response in ms. */
  readonly latencyMs?: number;
}

/** A link with limited speed. */
export interface Link {
  latency(): Promise<void>;
  /** @param connection any object that identifies the connection */
  pass(connection: object, bytes: number): Promise<void>;
  readonly limited: boolean;
}

interface Lane {
  freeAt: number;
  /** Bytes per second. Undefined: unlimited. */
  readonly rate: number | undefined;
}

// The most time that an idle lane can save up.
const burstMs = 20;

export function link(options: LinkOptions): Link {
  const all: Lane = { freeAt: 0, rate: options.bytesPerSecond };
  const lanes = new WeakMap<object, Lane>();
  let connections = 0;
  const newLane = (): Lane => {
    connections += 1;
    const { slow, bytesPerSecondPerConnection } = options;
    const isSlow = slow !== undefined && connections % slow.oneIn === 0;
    return { freeAt: 0, rate: isSlow ? slow.bytesPerSecond : bytesPerSecondPerConnection };
  };
  const reserve = (lane: Lane, bytes: number): number => {
    if (lane.rate === undefined) return 0;
    const now = performance.now();
    lane.freeAt = Math.max(lane.freeAt, now - burstMs) + (bytes / lane.rate) * 1000;
    return lane.freeAt - now;
  };
  return {
    limited: [options.bytesPerSecond, options.bytesPerSecondPerConnection, options.slow].some(
      (one) => one !== undefined,
    ),
    latency: async () => {
      if (options.latencyMs !== undefined) await sleep(options.latencyMs);
    },
    pass: async (connection, bytes) => {
      const lane = lanes.get(connection) ?? newLane();
      lanes.set(connection, lane);
      const waits = [reserve(all, bytes), reserve(lane, bytes)];
      const wait = Math.max(...waits);
      if (wait > 1) await sleep(wait);
    },
  };
}

/** Splits a chunk for the link: into small pieces if the speed is limited, so that connections share it. */
export function portions(chunk: Buffer, limited: boolean): readonly Buffer[] {
  if (!limited) return [chunk];
  const size = 64 * 1024;
  return Array.from({ length: Math.ceil(chunk.length / size) }, (_, at) => chunk.subarray(at * size, (at + 1) * size));
}
