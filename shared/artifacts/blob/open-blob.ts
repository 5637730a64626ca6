import { appendFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { asError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatBytes } from '../../base/text.ts';
import { explainDiskFull, requireDiskSpace } from '../../bytes/disk-space.ts';
import type { TempDirs } from '../../bytes/files.ts';
import { Checksum } from '../../bytes/verified.ts';
import { readAnswer, serviceError } from '../../http/answer.ts';
import { openOnDisk } from '../on-disk.ts';
import type { Artifact, ArtifactContent } from '../store.ts';
import { openArtifact, otherDigest } from '../zip/content.ts';
import {
  type BlobOptions,
  CutShort,
  discard,
  type RangedReader,
  rangedReader,
  RangesIgnored,
  requireListedSize,
  SignedBlob,
} from './ranged-reader.ts';

interface OpenOptions extends Omit<BlobOptions, 'size' | 'onRetry'> {
  readonly artifact: Artifact;
  /** Holds a blob that is downloaded as a whole, while it is read. */
  readonly folders: TempDirs;
  readonly log: Pick<Log, 'info' | 'progress'>;
}

const spaceAdvice =
  'The server that holds the artifact only sends it as a whole, so the artifact needs space in RUNNER_TEMP. Free some there: df -h shows the sizes.';

// Zip readers search this many bytes for the end record, which may have a comment of 65,535 bytes (APPNOTE 4.3.16).
const tailBytes = 68 * 1024;

/**
 * Opens an artifact's blob. A zip's directory and the record are in its last 68 KiB, which are read once and kept. A server may
 * answer a request for a part with the whole blob. The blob is then downloaded to disk, checked, and read from there.
 * @throws HandoverError `transfer-failed`, `artifact-expired`, `artifact-corrupt` or `not-enough-space`
 */
export async function openBlob(given: OpenOptions): Promise<ArtifactContent> {
  const { artifact } = given;
  const options = { ...given, size: artifact.size, onRetry: given.log.info };
  try {
    return await openArtifact(artifact, await withTail(rangedReader(options)));
  } catch (error) {
    if (!(error instanceof RangesIgnored)) throw error;
    return openOnDisk(artifact, await fetchWhole(options), artifact.size);
  }
}

async function withTail(reader: RangedReader): Promise<RangedReader> {
  const { size } = reader;
  const tailStart = Math.max(0, size - tailBytes);
  const tail = size === 0 ? Buffer.alloc(0) : await reader.read(tailStart, size);
  const kept = (start: number, end: number): Buffer => tail.subarray(start - tailStart, end - tailStart);
  const keptChunk = async function* (start: number, end: number): AsyncGenerator<Buffer> {
    if (start < end) yield await Promise.resolve(kept(start, end));
  };
  return {
    ...reader,
    read: (start, end) => (start >= tailStart ? Promise.resolve(kept(start, end)) : reader.read(start, end)),
    stream: (start, end) => (start >= tailStart ? keptChunk(start, end) : reader.stream(start, end)),
    lend: (start, end) => (start >= tailStart ? keptChunk(start, end) : reader.lend(start, end)),
  };
}

type WholeOptions = OpenOptions & BlobOptions;

/** Returns the path of the downloaded blob. */
async function fetchWhole(options: WholeOptions): Promise<string> {
  const { artifact, size, onRetry, folders } = options;
  onRetry(
    `The server of the artifact "${artifact.name}" answers a request for a part with all of it: it is downloaded as a whole ` +
      `(${formatBytes(size)}) to RUNNER_TEMP, and read from there.`,
  );
  const path = join(await folders.make(), 'blob');
  await requireDiskSpace(path, size, `The artifact "${artifact.name}"`, spaceAdvice);
  const blob = new SignedBlob(options);
  let arrived = new Checksum();
  await options.log.progress('Downloaded', size, (onBytes) => {
    const attempt = (): Promise<void> => {
      arrived = new Checksum();
      return writeWhole(blob, options, path, arrived, onBytes);
    };
    return blob.persist(attempt, () => arrived.size, size);
  });
  return path;
}

/** @throws HandoverError `artifact-corrupt`, `not-enough-space`; connection errors */
async function writeWhole(
  blob: SignedBlob,
  options: WholeOptions,
  path: string,
  checksum: Checksum,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const response = await blob.get();
  if (response.statusCode !== 200) throw serviceError(await readAnswer(response));
  const announced = response.headers['content-length'];
  const file = await open(path, 'w');
  try {
    if (announced !== undefined) requireListedSize(Number(announced), options);
    const { body } = response;
    // Writes synchronously: undici 6 ends the process when a server closes the connection while the body waits for a reader.
    body.on('data', (chunk: Buffer) => {
      try {
        checksum.add(chunk);
        if (checksum.size > options.size) requireListedSize(checksum.size, options);
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
  const { size, digest } = checksum.found();
  if (size < options.size) throw new CutShort(size, options.size);
  if (digest !== (options.artifact.digest ?? digest)) throw otherDigest(options.artifact, digest);
}
