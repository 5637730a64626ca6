import { once } from 'node:events';
import { connect, createServer, Socket } from 'node:net';
import { join } from 'node:path';
import { makeTempDir } from '../temp-dir.ts';

/** Where a command is to write, and what it writes. */
export interface ReusedOutput {
  /** To be the command's stdout. Our own end has to be destroyed when the command has been started: the output ends with the last. */
  readonly writeEnd: Socket;
  /** Each chunk is valid until the next is asked for: they are all read into the same memory. */
  readonly chunks: AsyncIterable<Buffer>;
}

const bufferBytes = 256 * 1024;
// sockaddr_un has 108 bytes, a zero at the end among them (unix(7)).
const longestPath = 107;

/**
 * A pipe that is read into one buffer again and again. The pipe that Node makes for a child gives every 64 KiB a buffer of
 * their own: with an image of 1 GB the garbage collector then takes a tenth of an export's time (docs/decisions.md).
 * @param tempRoot a folder that may be written to
 * @returns undefined where there is no such pipe: outside Linux, on some filesystems, or when the folder's path is too long
 */
export async function reusedOutput(tempRoot: string): Promise<ReusedOutput | undefined> {
  await using temp = await makeTempDir(tempRoot);
  const path = join(temp.path, 'output');
  if (process.platform !== 'linux' || Buffer.byteLength(path) > longestPath) return undefined;
  const server = createServer({ pauseOnConnect: true }).listen(path);
  // A network filesystem may know no sockets.
  const isThere = await once(server, 'listening').then(
    () => true,
    () => false,
  );
  if (!isThere) return undefined;
  const accepted: Promise<unknown[]> = once(server, 'connection');
  const chunks = new ReusedChunks(path);
  const [writeEnd] = await accepted;
  server.close();
  if (!(writeEnd instanceof Socket)) throw new TypeError('a server gives sockets');
  return { writeEnd, chunks };
}

class ReusedChunks implements AsyncIterable<Buffer> {
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  readonly #socket: Socket;
  #filled = 0;
  #state: { readonly ended: boolean; readonly error?: Error } = { ended: false };
  #wake: () => void = () => undefined;

  constructor(path: string) {
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
    this.#socket = connect({ path, onread: { buffer: this.#buffer, callback } });
    this.#socket.on('error', end).on('close', () => {
      end();
    });
    this.#socket.resume();
  }

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
