import { createHash } from 'node:crypto';
import type { ArtifactContent } from '../shared/artifacts/store.ts';
import { asError, HandoverError, messageOf } from '../shared/errors.ts';
import type { HandoverRecord } from '../shared/image/record.ts';
import type { Reference } from '../shared/image/reference.ts';
import { compressionOf, decompress, magicBytes } from '../shared/image/tarball-compression.ts';
import { chooseImage, inspectTarball, type TarballImage } from '../shared/image/tarball-reader.ts';
import { withHead } from '../shared/stream-head.ts';
import { watchedChunks } from '../shared/watched-chunks.ts';
import { chooseTarball } from './plan.ts';
import type { ExpectedImage } from './verify.ts';

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

/** What a tarball says of one image in it. */
export interface TarballContents {
  readonly expected: ExpectedImage;
  readonly references: readonly Reference[];
}

/** A tarball on its way from the artifact to the engine. */
export interface TarballStream {
  readonly chunks: AsyncIterable<Buffer>;
  /**
   * What the tarball itself says of the image, once all of `chunks` has been taken. Without a record and a wish, a tarball
   * may hold further images, each with a reference.
   */
  image(wanted: Reference | undefined): TarballContents & { readonly further: readonly TarballContents[] };
}

/**
 * The artifact's tarball, uncompressed. Without a record its own manifest is read while the bytes pass by.
 * @param tee sees the file's bytes as they are in the artifact
 * @throws HandoverError `artifact-corrupt`, `tarball-invalid` while iterating; the end is given out only when all is well
 */
export function openTarball(
  content: ArtifactContent,
  record: HandoverRecord | undefined,
  onBytes: (bytes: number) => void,
  tee: (chunks: AsyncIterable<Buffer>) => AsyncIterable<Buffer>,
): TarballStream {
  const names = content.files.map(({ name }) => name);
  const name = record?.tarballName ?? chooseTarball(content.artifact.name, names);
  const bytes = content.read(name, onBytes);
  const checked = record === undefined ? bytes : asRecorded(bytes, record, content.artifact.digest === undefined);
  const plain = plainTarball(tee(checked), name);
  if (record !== undefined) return { chunks: plain, image: () => recordedContents(record) };
  let images: readonly TarballImage[] = [];
  return {
    chunks: inspected(plain, (found) => (images = found)),
    image: (wanted) => {
      const [first, ...further] = images;
      const all = wanted === undefined && images.every(({ references }) => references.length > 0);
      if (all && first !== undefined) return { ...contentsOf(first), further: further.map(contentsOf) };
      return { ...contentsOf(chooseImage(images, wanted)), further: [] };
    },
  };
}

/** What a record says of the images in its tarball. */
export function recordedContents(record: HandoverRecord): ReturnType<TarballStream['image']> {
  const further = record.further?.map((image) => ({ expected: image, references: image.references })) ?? [];
  return { expected: record, references: record.references, further };
}

function contentsOf(image: TarballImage): TarballContents {
  return { expected: { ...image, ...image.config }, references: image.references };
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

async function* inspected(
  chunks: AsyncIterable<Buffer>,
  done: (images: readonly TarballImage[]) => void,
): AsyncGenerator<Buffer> {
  const inspector = inspectTarball();
  let held: Buffer | undefined;
  for await (const chunk of chunks) {
    await inspector.write(chunk);
    if (held !== undefined) yield held;
    held = chunk;
  }
  done(await inspector.end());
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
