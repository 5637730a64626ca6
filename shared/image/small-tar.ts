import { buffer } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract } from 'tar-stream';

/**
 * The files of a small tar, by name.
 * @throws Error when it isn't a tar
 */
export async function readSmallTar(bytes: Buffer): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>();
  const parser = extract();
  parser.on('entry', ({ name }, stream, next) => {
    buffer(stream).then((content) => {
      files.set(name, content);
      next();
    }, next);
  });
  await pipeline(Readable.from([bytes]), parser);
  return files;
}
