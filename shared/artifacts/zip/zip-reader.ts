import { Readable } from 'node:stream';
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader } from 'yauzl';
import { corruptArtifact, HandoverError, messageOf } from '../../base/errors.ts';
import { isByteCount } from '../../base/json.ts';
import { limits } from '../../base/limits.ts';
import { quoteForeign } from '../../base/text.ts';
import type { RangedReader } from '../blob/ranged-reader.ts';

/** One file in a zip, and the position of its bytes. */
export interface ZipMember {
  readonly name: string;
  readonly stored: boolean;
  readonly size: number;
  readonly compressedSize: number;
  readonly crc: number;
  /** Position of the member's local header, in bytes. */
  readonly headerOffset: number;
}

const localHeaderBytes = 30;

/**
 * Lists the files of a zip from the directory at its end.
 * @throws HandoverError `artifact-corrupt` when the directory at the end is missing or damaged
 */
export async function listZip(reader: RangedReader): Promise<readonly ZipMember[]> {
  try {
    const zip = await fromRandomAccessReaderPromise(new RangeAccess(reader), reader.size, { autoClose: false });
    const members: ZipMember[] = [];
    if (zip.entryCount > limits.zipMembers) throw new Error(`it has ${String(zip.entryCount)} files`);
    for await (const entry of zip.eachEntry())
      if (!entry.fileName.endsWith('/')) members.push(member(entry, reader.size));
    return members;
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    throw corruptArtifact(`The artifact is not a whole zip file: ${messageOf(error)}.`, error);
  }
}

function member(entry: Entry, blobBytes: number): ZipMember {
  const { fileName: name, compressedSize, uncompressedSize: size, compressionMethod: method, crc32: crc } = entry;
  const { relativeOffsetOfLocalHeader: headerOffset } = entry;
  const isPlace = [compressedSize, size, headerOffset].every(isByteCount) && headerOffset + compressedSize <= blobBytes;
  const stored = method === 0;
  if (!isPlace || (stored && compressedSize !== size))
    throw new Error(`${quoteForeign(name, 80)} can't be where the zip's directory has it`);
  if (!stored && method !== 8) throw new Error(`${name} has compression method ${String(method)}`);
  return { name, stored, size, compressedSize, crc, headerOffset };
}

/** Returns where a member's own bytes start: after a header of 30 bytes, its name and its extra field (APPNOTE 4.3.7). */
export async function dataOffset(reader: RangedReader, member: ZipMember): Promise<number> {
  const { name, headerOffset: at, compressedSize } = member;
  const header = await reader.read(at, Math.min(reader.size, at + localHeaderBytes));
  if (header.length < localHeaderBytes || header.readUInt32LE(0) !== 0x04034b50)
    throw corruptArtifact(`The artifact's zip has no header for ${name} at byte ${String(at)}.`);
  const start = at + localHeaderBytes + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (start + compressedSize <= reader.size) return start;
  throw corruptArtifact(`The artifact's zip has ${name} at byte ${String(start)}, and ends before all of it.`);
}

/** Lets the zip library read through byte ranges. */
class RangeAccess extends RandomAccessReader {
  readonly #reader: RangedReader;

  constructor(reader: RangedReader) {
    super();
    this.#reader = reader;
  }

  override _readStreamForRange(start: number, end: number): Readable {
    return Readable.from(within(this.#reader, start, end));
  }
}

/** Reads a range that a zip gives, which can be outside of the blob. Throws when it is read, because the library expects no throw. */
async function* within(reader: RangedReader, start: number, end: number): AsyncGenerator<Buffer> {
  if (start < 0 || start > end || end > reader.size) {
    throw corruptArtifact(
      `The zip of the artifact refers to its bytes ${String(start)}-${String(end)}, but has only ${String(reader.size)}.`,
    );
  }
  yield* reader.stream(start, end);
}
