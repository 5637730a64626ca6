/** A fault for the next matching requests. */
export interface Fault {
  /** `get`, `put-block`, `put-block-list`, or a method of the control plane such as `ListArtifacts`. */
  readonly on: string;
  /** Limits the fault to blobs whose name, such as a cache entry's key, starts with this text. */
  readonly name?: string;
  /** Number of requests that fail. Default: 1. */
  times?: number;
  /** Number of requests that succeed first. */
  after?: number;
  readonly effect:
    /** Resets the connection after that number of body bytes. */
    | { readonly kind: 'reset'; readonly afterBytes: number }
    /** The body ends early, in good order. */
    | { readonly kind: 'short'; readonly afterBytes: number }
    | {
        readonly kind: 'status';
        readonly status: number;
        readonly body?: string;
        readonly headers?: Readonly<Record<string, string>>;
      }
    /** The control plane does what it is asked, and says so in words that nobody knows. */
    | { readonly kind: 'unknown-answer'; readonly body: string }
    /** Nothing is done for so long. */
    | { readonly kind: 'hang'; readonly ms: number }
    /** The control plane does what it is asked, and says so only after so long. */
    | { readonly kind: 'late'; readonly ms: number }
    /** The control plane does what it is asked; the connection is reset before it can say so. */
    | { readonly kind: 'lost-answer' }
    /** Bytes of another place of the blob come, as if they were those asked for. */
    | { readonly kind: 'elsewhere'; readonly offset: number }
    /** The answer to a request for a part says that it is another part. */
    | { readonly kind: 'wrong-range' }
    /** A request for a part is answered with the whole. */
    | { readonly kind: 'whole' }
    /** The body comes drop by drop. */
    | { readonly kind: 'trickle'; readonly bytesPerSecond: number }
    /** A byte of the body is wrong. */
    | { readonly kind: 'flip'; readonly offset: number };
}

export interface Faults {
  /** All requested operations in order, with or without a fault. */
  readonly seen: readonly string[];
  add(fault: Fault): void;
  /** Returns the fault for this request, if any. `name` is the blob's name. */
  strike(operation: string, name?: string): Fault['effect'] | undefined;
  clear(): void;
}

export function faults(): Faults {
  let active: Fault[] = [];
  const seen: string[] = [];
  return {
    seen,
    add: (fault) => void active.push({ ...fault }),
    clear: () => void (active = []),
    strike: (operation, blobName = '') => {
      seen.push(operation);
      const fault = active.find(({ on, name = '' }) => on === operation && blobName.startsWith(name));
      if (fault === undefined) return undefined;
      if ((fault.after ?? 0) > 0) {
        fault.after = (fault.after ?? 0) - 1;
        return undefined;
      }
      fault.times = (fault.times ?? 1) - 1;
      if (fault.times <= 0) active = active.filter((candidate) => candidate !== fault);
      return fault.effect;
    },
  };
}
