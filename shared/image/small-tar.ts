import { Readable } from 'node:stream';
import { copiedBytes } from '../copied-bytes.ts';
import { tarEntries } from './tar-entries.ts';

/**
 * The files of a small tar, by name.
 * @throws HandoverError `tarball-invalid` when it isn't a whole tar
 */
export async function readSmallTar(bytes: Buffer): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for await (const { name, isFile, content } of tarEntries(Readable.from([bytes]))) {
    if (isFile) files.set(name, await copiedBytes(content));
  }
  return files;
}
