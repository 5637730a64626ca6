import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { HandoverError, messageOf } from '../shared/errors.ts';
import { transientFileChunks } from '../shared/file-chunks.ts';
import { formatPlatform, samePlatform } from '../shared/image/platform.ts';
import type { Producer } from '../shared/image/record.ts';
import type { TaggedReference } from '../shared/image/reference.ts';
import { compressionOf, decompress, type TarballCompression } from '../shared/image/tarball-compression.ts';
import { chooseImage, inspectTarball, type TarballImage } from '../shared/image/tarball-reader.ts';
import type { UnsealedRecord } from './handover-files.ts';
import type { ExportPlan } from './plan.ts';

const chunkBytes = 256 * 1024;

export interface SourceTarball {
  readonly size: number;
  /** Each chunk is valid until the next is asked for. */
  readonly chunks: AsyncIterable<Buffer>;
  readonly unsealed: UnsealedRecord;
}

/**
 * Checks a tarball of `docker save` from end to end, and makes its record.
 * @throws HandoverError `tarball-invalid`, `image-not-found`, `platform-mismatch`
 */
export async function openSourceTarball(path: string, plan: ExportPlan, producer: Producer): Promise<SourceTarball> {
  const size = await sizeOf(path);
  const compression = compressionOf(await head(path));
  const image = chooseImage(await inspectFile(path, compression), plan.reference);
  if (!samePlatform(image.config.platform, plan.platform)) {
    throw new HandoverError(
      'platform-mismatch',
      `${path} holds an image for ${formatPlatform(image.config.platform)}; \`platform\` is ${formatPlatform(plan.platform)}.`,
      `Set \`platform: ${formatPlatform(image.config.platform)}\`, or give the tarball of the other platform.`,
    );
  }
  const unsealed = {
    references: [...chooseReferences(path, plan.reference, image), ...plan.tags],
    platform: image.config.platform,
    configDigest: image.configDigest,
    manifestDigests: image.manifestDigests,
    diffIds: image.config.diffIds,
    layers: image.layers.flatMap(({ digest, size: bytes }) =>
      digest === undefined ? [] : [{ digest, size: bytes, mediaType: '' }],
    ),
    labels: image.config.labels,
    ...(image.config.created === undefined ? {} : { created: image.config.created }),
    tarballName: basename(path),
    tarballSize: size,
    tarballCompression: compression,
    producer,
  };
  return { size, chunks: transientFileChunks(path), unsealed };
}

function chooseReferences(
  path: string,
  wanted: TaggedReference | undefined,
  image: TarballImage,
): readonly TaggedReference[] {
  if (wanted !== undefined) return [wanted];
  const own = image.references.flatMap(({ tag, ...rest }) => (tag === undefined ? [] : [{ ...rest, tag }]));
  return own.length > 0 ? own : [missingReference(path)];
}

function missingReference(path: string): never {
  throw new HandoverError(
    'invalid-input',
    `The image in ${path} has no reference of its own.`,
    'Set `image` to the reference to hand it over under, such as charon:local.',
  );
}

async function inspectFile(path: string, compression: TarballCompression): Promise<readonly TarballImage[]> {
  const inspector = inspectTarball();
  try {
    for await (const chunk of decompress(fileChunks(path), compression)) await inspector.write(chunk);
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    throw invalid(`${path} can't be read as a ${compression} tarball: ${messageOf(error)}.`, error);
  }
  return inspector.end();
}

function fileChunks(path: string): AsyncIterable<Buffer> {
  return createReadStream(path, { highWaterMark: chunkBytes });
}

async function sizeOf(path: string): Promise<number> {
  const found = await stat(path).catch((error: unknown) => {
    throw invalid(`There is no tarball at ${path}: ${messageOf(error)}.`, error);
  });
  if (!found.isFile()) throw invalid(`${path} is not a file.`);
  if (found.size === 0) throw invalid(`${path} is empty.`);
  return found.size;
}

async function head(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

function invalid(message: string, cause?: unknown): HandoverError {
  return new HandoverError(
    'tarball-invalid',
    message,
    'Set `source-tarball` to a file that docker save wrote, plain or compressed with gzip or zstd.',
    cause,
  );
}
