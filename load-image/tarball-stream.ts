import { createHash } from 'node:crypto';
import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { asError, HandoverError, messageOf } from '../shared/base/errors.ts';
import { watchedChunks, withHead } from '../shared/bytes/chunks.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import { compressionOf, decompress, magicBytes } from '../shared/tar/compression.ts';
import { type AllContents, foreignTarball, type TarballStream, type WantedImage } from './foreign-tarball.ts';
import { chooseTarball } from './plan/plan.ts';

/**
 * The plain tarball, whatever its compression.
 * @throws HandoverError `tarball-invalid` while iterating, when the compressed data is damaged
 */
async function* plainTarball(chunks: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  let broken: unknown;
  const source = watchedChunks(chunks, (error) => (broken = error));
  const { head, all } = await withHead(source, (bytes) => bytes.length >= magicBytes);
  if (head.length === 0) throw invalid(`${name} in the artifact is empty.`);
  const compression = compressionOf(head);
  if (compression === 'none') {
    yield* all;
    return;
  }
  try {
    yield* decompress(all, compression);
  } catch (error) {
    if (broken !== undefined) throw asError(broken);
    throw invalid(`${name} in the artifact is damaged ${compression} data: ${messageOf(error)}.`, error);
  }
}

export interface TarballRequest {
  readonly content: ArtifactContent;
  readonly record: HandoverRecord | undefined;
  /** What to load out of a tarball without a record. */
  readonly wanted: WantedImage;
  /** Sees the file's bytes as they are in the artifact. */
  readonly tee: ((chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>) | undefined;
}

/**
 * The artifact's tarball, uncompressed. Without a record it is made anew while it passes (foreign-tarball.ts).
 * @throws HandoverError `artifact-corrupt`, `tarball-invalid` while iterating; the end is given out only when all is well
 */
export function openTarball(request: TarballRequest, onBytes: (bytes: number) => void): TarballStream {
  const { content, record, wanted } = request;
  const tee = request.tee ?? ((chunks: AsyncIterable<Buffer>) => chunks);
  const names = content.files.map(({ name }) => name);
  const name = record?.tarballName ?? chooseTarball(content.artifact.name, names);
  const bytes = content.read(name, onBytes);
  const checked = record === undefined ? bytes : asRecorded(bytes, record, content.artifact.digest === undefined);
  const plain = plainTarball(tee(checked), name);
  if (record !== undefined) return { chunks: plain, image: () => recordedContents(record) };
  return foreignTarball(plain, wanted);
}

/** What a record says of the images in its tarball. */
export function recordedContents(record: HandoverRecord): AllContents {
  const further = record.further?.map((image) => ({ expected: image, references: image.references })) ?? [];
  return { expected: record, references: record.references, further };
}

/** Checks size, and where the artifact service gave no digest also the digest, against the record. */
async function* asRecorded(
  chunks: AsyncIterable<Buffer>,
  record: HandoverRecord,
  withDigest: boolean,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let size = 0;
  let held: Buffer | undefined;
  for await (const chunk of chunks) {
    if (withDigest) hash.update(chunk);
    size += chunk.length;
    if (held !== undefined) yield held;
    held = chunk;
  }
  const digest = withDigest ? `sha256:${hash.digest('hex')}` : record.tarballDigest;
  if (size !== record.tarballSize || digest !== record.tarballDigest) {
    throw new HandoverError(
      'artifact-corrupt',
      `The tarball has ${String(size)} bytes with digest ${digest}; the record says ${String(record.tarballSize)} bytes ` +
        `with digest ${record.tarballDigest}.`,
      'Run the job that exports the image again.',
    );
  }
  if (held !== undefined) yield held;
}

function invalid(message: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Make the tarball with docker save, plain or compressed with gzip or zstd, and upload it again.',
    cause,
  );
}
