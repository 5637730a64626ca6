import { createHash } from 'node:crypto';
import { appendFileSync, createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { asError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatBytes } from '../../base/text.ts';
import { copiedBytes, type LentChunk } from '../../bytes/chunks.ts';
import { explainDiskFull, requireDiskSpace } from '../../bytes/disk-space.ts';
import type { TempDirs } from '../../bytes/files.ts';
import { readAnswer, serviceError } from '../../http/answer.ts';
import { type RangedReader, rangedReader } from './ranged-reader.ts';
import {
  CutShort,
  discard,
  RangesIgnored,
  requireListedSize,
  type SignedBlob,
  signedBlob,
  type SignedBlobOptions,
} from './signed-blob.ts';
import type { Artifact } from '../store.ts';
import { requireListedDigest } from '../zip/verified-stream.ts';

// A blob is read in parts. A server, or a proxy before it, may answer with the whole instead. A zip's directory and our
// record lie at its end, and nothing unproved may reach the engine: so the whole goes to the disk first, once, and is
// checked; then its parts are read from there.

export interface BlobOptions extends Omit<SignedBlobOptions, 'size'> {
  readonly artifact: Pick<Artifact, 'name' | 'size' | 'digest'>;
  /** Where a whole blob may lie, for as long as it is read. */
  readonly folders: TempDirs;
  readonly progress: Log['progress'];
}

type WholeOptions = SignedBlobOptions & BlobOptions;

const spaceAdvice =
  'The server that holds the artifact gives it as a whole only, so it passes through RUNNER_TEMP. Free space there: df -h shows what there is.';

/**
 * Reads an artifact's blob in parts, whether or not its server gives parts.
 * @throws (from its methods) HandoverError `transfer-failed`, `artifact-expired`, `artifact-corrupt` or `not-enough-space`
 */
export function blobReader(given: BlobOptions): RangedReader {
  const options = { ...given, size: given.artifact.size };
  const parts = rangedReader(options);
  let whole: Promise<RangedReader> | undefined;
  let isHere = false;
  const fetched = (error: unknown): Promise<RangedReader> => {
    if (!(error instanceof RangesIgnored)) throw error;
    return (whole ??= fetchWhole(options).then((reader) => {
      isHere = true;
      return reader;
    }));
  };
  const either = async function* <Chunk extends LentChunk>(
    start: number,
    end: number,
    way: (reader: RangedReader) => (start: number, end: number) => AsyncIterable<Chunk>,
  ): AsyncGenerator<Chunk> {
    let position = start;
    if (whole === undefined) {
      try {
        for await (const part of way(parts)(start, end)) {
          position += part.length;
          yield part;
        }
        return;
      } catch (error) {
        await fetched(error);
      }
    }
    const reader = await whole;
    if (reader !== undefined) yield* way(reader)(position, end);
  };
  return {
    size: options.size,
    downloaded: () => (isHere ? options.size : undefined),
    read: async (start, end) =>
      whole === undefined
        ? parts.read(start, end).catch(async (error: unknown) => (await fetched(error)).read(start, end))
        : (await whole).read(start, end),
    stream: (start, end) => either(start, end, ({ stream }) => stream),
    lend: (start, end) => either(start, end, ({ lend }) => lend),
  };
}

async function fetchWhole(options: WholeOptions): Promise<RangedReader> {
  const { artifact, size, onRetry, folders } = options;
  onRetry(
    `The server of the artifact "${artifact.name}" answers with all of it when it is asked for a part: it is downloaded as a ` +
      `whole (${formatBytes(size)}) to RUNNER_TEMP, and read from there.`,
  );
  const path = join(await folders.make(), 'blob');
  await requireDiskSpace(path, size, `The artifact "${artifact.name}"`, spaceAdvice);
  const blob = signedBlob(options);
  let written = 0;
  await options.progress('Downloaded', size, (passed) =>
    blob.persist(
      async () => {
        written = 0;
        await writeWhole(blob, options, path, (bytes) => {
          written += bytes;
          passed(bytes);
        });
      },
      () => written,
      size,
    ),
  );
  return fileReader(path, size);
}

/** @throws HandoverError `artifact-corrupt`, `not-enough-space`; what the connection says */
async function writeWhole(
  blob: SignedBlob,
  options: WholeOptions,
  path: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const response = await blob.get();
  if (response.statusCode !== 200) throw serviceError(await readAnswer(response));
  const announced = response.headers['content-length'];
  const hash = createHash('sha256');
  let size = 0;
  const file = await open(path, 'w');
  try {
    if (announced !== undefined) requireListedSize(Number(announced), options);
    const { body } = response;
    // Written at once: undici 6 ends the process when a server closes the connection while the body waits for a reader.
    body.on('data', (chunk: Buffer) => {
      try {
        size += chunk.length;
        if (size > options.size) requireListedSize(size, options);
        hash.update(chunk);
        appendFileSync(file.fd, chunk);
        onBytes(chunk.length);
      } catch (error) {
        body.destroy(asError(error));
      }
    });
    await finished(body);
  } catch (error) {
    await discard(response);
    throw asError(explainDiskFull(error, path, spaceAdvice));
  } finally {
    await file.close();
  }
  if (size < options.size) throw new CutShort(size, options.size);
  requireListedDigest(options.artifact, hash);
}

function fileReader(path: string, size: number): RangedReader {
  const chunks = (start: number, end: number): AsyncIterable<Buffer> =>
    createReadStream(path, { start, end: end - 1, highWaterMark: 1024 * 1024 });
  return {
    size,
    downloaded: () => size,
    read: (start, end) => copiedBytes(start < end ? chunks(start, end) : noChunks()),
    stream: (start, end) => (start < end ? chunks(start, end) : noChunks()),
    lend: (start, end) => (start < end ? chunks(start, end) : noChunks()),
  };
}

async function* noChunks(): AsyncGenerator<Buffer> {
  // A file's stream reads one byte at least.
}
