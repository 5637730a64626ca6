import { open } from 'node:fs/promises';

const chunkBytes = 256 * 1024;

/**
 * A file's bytes in order. Each chunk lies in the same buffer and holds only until the next one is asked for: a new
 * buffer for each would leave hundreds of MB to the garbage collector before it looks.
 */
export async function* transientFileChunks(path: string): AsyncGenerator<Buffer> {
  const file = await open(path);
  try {
    const buffer = Buffer.allocUnsafeSlow(chunkBytes);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, chunkBytes, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
