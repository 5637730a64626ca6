interface Waiting {
  readonly position: number;
  readonly start: () => void;
}

/** Lets layers pass one at a time, the lowest first: the engine unpacks them in that order, and so can begin the sooner. */
export class LayerTurns {
  #waiting: readonly Waiting[] = [];
  #taken = false;

  /** The same chunks, once it is this layer's turn. */
  async *pass(position: number, chunks: () => AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    if (this.#taken) await this.#turn(position);
    this.#taken = true;
    try {
      yield* chunks();
    } finally {
      this.#next();
    }
  }

  #turn(position: number): Promise<void> {
    return new Promise((start) => {
      this.#waiting = [...this.#waiting, { position, start }].sort((one, other) => one.position - other.position);
    });
  }

  #next(): void {
    const [lowest, ...others] = this.#waiting;
    this.#waiting = others;
    // The turn goes straight on to the next one: nobody gets between.
    this.#taken = lowest !== undefined;
    lowest?.start();
  }
}
