// An engine asks for all layers within some hundredths of a second, in any order.
const graceMs = 100;

interface Waiting {
  readonly position: number;
  readonly start: () => void;
}

/**
 * Lets layers pass one at a time, the lowest first: the engine unpacks them in that order, and so can begin the sooner. A layer
 * waits for lower ones that haven't been asked for yet, but not for long: the engine may have them.
 */
export class LayerTurns {
  readonly #asked = new Set<number>();
  #waiting: readonly Waiting[] = [];
  #taken = false;
  #grace: 'unused' | 'running' | 'over' = 'unused';

  /** The same chunks, once it is this layer's turn. */
  async *pass(position: number, chunks: () => AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    await this.#turn(position);
    try {
      yield* chunks();
    } finally {
      this.#taken = false;
      this.#next();
    }
  }

  #turn(position: number): Promise<void> {
    this.#asked.add(position);
    if (this.#grace === 'unused') this.#startGrace();
    return new Promise((start) => {
      this.#waiting = [...this.#waiting, { position, start }].sort((one, other) => one.position - other.position);
      this.#next();
    });
  }

  #startGrace(): void {
    this.#grace = 'running';
    setTimeout(() => {
      this.#grace = 'over';
      this.#next();
    }, graceMs);
  }

  #next(): void {
    const [lowest, ...others] = this.#waiting;
    if (this.#taken || lowest === undefined || !this.#mayStart(lowest.position)) return;
    this.#waiting = others;
    this.#taken = true;
    lowest.start();
  }

  #mayStart(position: number): boolean {
    const lower = [...this.#asked].filter((asked) => asked < position);
    return this.#grace === 'over' || lower.length === position;
  }
}
