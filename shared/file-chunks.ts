import { type FileHandle, open } from 'node:fs/promises';

const chunkBytes = 1024 * 1024;

/**
 * A file's bytes in order, the next chunk being read while this one is used. A chunk holds only until the next one is
 * asked for: two buffers take turns, where a new one for each would leave hundreds of MB to the garbage collector.
 * @param source is closed at the end, if it is a file that was opened before
 * @param grows asked at the end of the file, with what was read of it in bytes, whether to look for more
 */
export async function* transientFileChunks(
  source: string | FileHandle,
  grows: (bytes: number) => Promise<boolean> = () => Promise.resolve(false),
): AsyncGenerator<Buffer> {
  const file = typeof source === 'string' ? await open(source) : source;
  let read = 0;
  let isLeft = false;
  const fill = async (buffer: Buffer): Promise<number> => {
    let length = 0;
    while (length < chunkBytes && !isLeft) {
      const { bytesRead } = await file.read(buffer, length, chunkBytes - length, null);
      length += bytesRead;
      read += bytesRead;
      if (bytesRead === 0 && !(await grows(read))) break;
    }
    return length;
  };
  let filling: Promise<number> | undefined;
  try {
    let [current, other] = [Buffer.allocUnsafeSlow(chunkBytes), Buffer.allocUnsafeSlow(chunkBytes)];
    filling = fill(current);
    for (;;) {
      const length = await filling;
      if (length === 0) return;
      filling = fill(other);
      filling.catch(() => undefined); // reported when its turn comes
      yield current.subarray(0, length);
      [current, other] = [other, current];
    }
  } finally {
    isLeft = true;
    await filling?.catch(() => undefined);
    await file.close();
  }
}
