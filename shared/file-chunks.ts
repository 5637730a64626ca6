import { open } from 'node:fs/promises';

const chunkBytes = 1024 * 1024;

/**
 * A file's bytes in order, the next chunk being read while this one is used. A chunk holds only until the next one is
 * asked for: two buffers take turns, where a new one for each would leave hundreds of MB to the garbage collector.
 */
export async function* transientFileChunks(path: string): AsyncGenerator<Buffer> {
  const file = await open(path);
  let reading: ReturnType<typeof file.read<Buffer>> | undefined;
  try {
    let [current, other] = [Buffer.allocUnsafeSlow(chunkBytes), Buffer.allocUnsafeSlow(chunkBytes)];
    reading = file.read(current, 0, chunkBytes, null);
    for (;;) {
      const { bytesRead } = await reading;
      if (bytesRead === 0) return;
      reading = file.read(other, 0, chunkBytes, null);
      reading.catch(() => undefined); // reported when its turn comes
      yield current.subarray(0, bytesRead);
      [current, other] = [other, current];
    }
  } finally {
    await reading?.catch(() => undefined);
    await file.close();
  }
}
