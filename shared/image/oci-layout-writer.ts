import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { extract } from 'tar-stream';
import { HandoverError } from '../errors.ts';

const wanted = /^(?:oci-layout|index\.json|blobs\/sha256\/[0-9a-f]{64})$/;

/**
 * Unpacks the tar that `docker save` writes since Docker 25 (it is an OCI layout) into a folder.
 * Anything in it that isn't part of an OCI layout is passed over, so no path can leave the folder.
 * @throws HandoverError `tarball-invalid` for the format of older engines; whatever `chunks` throws
 */
export async function writeOciLayout(chunks: AsyncIterable<Buffer>, layout: string): Promise<void> {
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true });
  const parser = extract();
  const seen = { index: false, entries: 0 };
  parser.on('entry', (header, stream, next) => {
    seen.entries += 1;
    if (header.type !== 'file' || !wanted.test(header.name)) {
      stream.on('end', () => {
        next();
      });
      stream.resume();
      return;
    }
    seen.index ||= header.name === 'index.json';
    pipeline(stream, createWriteStream(join(layout, header.name))).then(() => {
      next();
    }, next);
  });
  await pipeline(chunks, parser);
  if (seen.index) return;
  throw new HandoverError(
    'tarball-invalid',
    `docker save wrote ${String(seen.entries)} entries without an index.json: the engine is older than Docker 25.`,
    'Update Docker on this runner, or run docker save yourself and give the file as `source-tarball`.',
  );
}
