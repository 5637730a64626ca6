import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ArtifactFile } from '../shared/artifacts/store.ts';
import type { Digest } from '../shared/image/digest.ts';
import { formatRecord, type HandoverRecord, recordName } from '../shared/image/record.ts';

/** All of the record but what is known only when the tarball has passed. */
export type UnsealedRecord = Omit<HandoverRecord, 'tarballDigest'>;

/** Where the tarball's bytes come from while they are uploaded. */
export interface TarballSource {
  readonly name: string;
  /** Bytes; undefined when that is known only at the end. */
  readonly size: number | undefined;
  /** Each chunk is valid until the next is asked for. */
  readonly chunks: AsyncIterable<Buffer>;
}

/**
 * The artifact's two files: the tarball, then the record with the digest that was taken while it passed.
 * @param unsealed asked for when the tarball has passed
 * @param sealed told of the finished record
 */
export async function* handoverFiles(
  tarball: TarballSource,
  unsealed: () => Promise<UnsealedRecord>,
  sealed: (record: HandoverRecord) => void,
): AsyncGenerator<ArtifactFile> {
  const hash = createHash('sha256');
  yield {
    name: tarball.name,
    size: tarball.size,
    chunks: hashed(tarball.chunks, (chunk) => hash.update(chunk)),
  };
  const tarballDigest: Digest = `sha256:${hash.digest('hex')}`;
  const record: HandoverRecord = { ...(await unsealed()), tarballDigest };
  sealed(record);
  const text = Buffer.from(formatRecord(record));
  yield { name: recordName, size: text.length, chunks: Readable.from([text]) };
}

async function* hashed(chunks: AsyncIterable<Buffer>, update: (chunk: Buffer) => void): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    update(chunk);
    yield chunk;
  }
}
