import { HandoverError } from '../../shared/base/errors.ts';
import { lastingChunk } from '../../shared/bytes/chunks.ts';
import { blobName, type Digest } from '../../shared/image/digest.ts';
import { tarHeader, tarPadding } from '../../shared/tar/header.ts';

interface PassingLayer {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/**
 * A tarball for `docker load` of layers that pass by while the engine fetches them in another form, one at a time. Its end
 * comes when all have passed.
 */
export class PassingTarball {
  #given = Promise.withResolvers<Buffer>();
  #taken = Promise.withResolvers<undefined>();
  readonly #end = Promise.withResolvers<undefined>();

  constructor() {
    this.#end.promise.catch(() => undefined); // nobody may be reading when it fails
  }

  /** What `docker load` is fed; throws what `fail` was told. */
  async *chunks(): AsyncGenerator<Buffer> {
    try {
      for (;;) {
        const chunk = await Promise.race([this.#end.promise, this.#given.promise]);
        if (chunk === undefined) return;
        yield lastingChunk(chunk);
        this.#given = Promise.withResolvers();
        this.#taken.resolve(undefined);
        this.#taken = Promise.withResolvers();
      }
    } finally {
      // Nobody waits any more, now or later.
      this.#taken.resolve(undefined);
    }
  }

  /** The same chunks, each once `docker load` has it too. A layer that isn't read to its end fails the tarball. */
  async *pass({ digest, size }: PassingLayer, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    await this.#give(tarHeader(blobName(digest), size));
    let isWhole = false;
    try {
      for await (const chunk of chunks) {
        const given = this.#give(chunk);
        yield chunk;
        await given;
      }
      await this.#give(Buffer.alloc(tarPadding(size)));
      isWhole = true;
    } finally {
      if (!isWhole) this.fail(brokenOff(digest));
    }
  }

  /** The rest of the tarball, with its end. */
  async end(rest: Buffer): Promise<void> {
    await this.#give(rest);
    this.#end.resolve(undefined);
  }

  /** Ends `docker load` with this error; layers go on passing. */
  fail(error: unknown): void {
    this.#end.reject(error);
    // It may never have begun to read.
    this.#taken.resolve(undefined);
  }

  async #give(chunk: Buffer): Promise<void> {
    if (chunk.length === 0) return;
    this.#given.resolve(chunk);
    await this.#taken.promise;
  }
}

function brokenOff(digest: Digest): HandoverError {
  return new HandoverError(
    'load-failed',
    `The engine did not take all of the layer ${digest}.`,
    'Set `overlap: false`.',
  );
}
