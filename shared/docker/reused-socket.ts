import { connect, type Socket } from 'node:net';

const bufferBytes = 256 * 1024;

/**
 * A connection to a Unix socket that is read into one buffer again and again: each chunk is valid until the next is asked
 * for. Node's streams give every 64 KiB a buffer of their own: with an image of 1 GB the garbage collector then takes a tenth of
 * an export's time (docs/decisions.md).
 */
export class ReusedSocket implements AsyncIterable<Buffer> {
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  readonly #socket: Socket;
  #filled = 0;
  #state: { readonly ended: boolean; readonly error?: Error } = { ended: false };
  #wake: () => void = () => undefined;

  /** @param signal ends the connection when it is aborted; iterating throws an AbortError then */
  constructor(path: string, signal: AbortSignal) {
    // False: nothing more is read before the next chunk is asked for.
    const callback = (bytes: number): false => {
      this.#filled = bytes;
      this.#wake();
      return false;
    };
    const end = (error?: Error): void => {
      this.#state = error === undefined ? { ...this.#state, ended: true } : { ended: true, error };
      this.#wake();
    };
    this.#socket = connect({ path, signal, onread: { buffer: this.#buffer, callback } });
    this.#socket.on('error', end).on('close', () => {
      end();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  write(text: string): void {
    this.#socket.write(text);
  }

  /** Throws the connection's error. The connection is closed at the end. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    try {
      for (;;) {
        if (this.#filled === 0 && !this.#state.ended) await new Promise<void>((resolve) => (this.#wake = resolve));
        if (this.#filled === 0) break;
        yield this.#buffer.subarray(0, this.#filled);
        this.#filled = 0;
        this.#socket.resume();
      }
      if (this.#state.error !== undefined) throw this.#state.error;
    } finally {
      this.#socket.destroy();
    }
  }
}
