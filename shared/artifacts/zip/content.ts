import { pipeline, Readable } from 'node:stream';
import { crc32, createInflateRaw } from 'node:zlib';
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader } from 'yauzl';
import { asError, corruptArtifact, HandoverError, messageOf } from '../../base/errors.ts';
import { isByteCount } from '../../base/json.ts';
import { limits } from '../../base/limits.ts';
import { quoteForeign } from '../../base/text.ts';
import { copiedBytes, countedChunks, watchedChunks } from '../../bytes/chunks.ts';
import { heldBack, verifiedChunks } from '../../bytes/verified.ts';
import type { RangedReader } from '../blob/ranged-reader.ts';
import { type Artifact, type ArtifactContent } from '../store.ts';

/**
 * Opens an artifact's blob: a zip of files, or one raw file (`archive: false` of the upload action).
 * @throws HandoverError `artifact-corrupt` or `transfer-failed`
 */
export async function openArtifact(artifact: Artifact, reader: RangedReader): Promise<ArtifactContent> {
  const head = await reader.read(0, Math.min(4, reader.size));
  const isZip = head.length === 4 && (head.readUInt32LE(0) === 0x04034b50 || head.readUInt32LE(0) === 0x06054b50);
  return isZip ? zipContent(artifact, reader, await listZip(reader)) : rawContent(artifact, reader);
}

function rawContent(artifact: Artifact, reader: RangedReader): ArtifactContent {
  return {
    artifact,
    downloaded: reader.downloaded,
    files: [{ name: artifact.name, size: reader.size }],
    text: () => Promise.resolve(undefined),
    read: (_name, onBytes) => heldBack(verifiedBlob(reader, artifact, onBytes), heldBackBytes),
    ranges: () => Promise.resolve((start, end, onBytes) => countedChunks(reader.lend(start, end), onBytes)),
  };
}

function zipContent(artifact: Artifact, reader: RangedReader, members: readonly ZipMember[]): ArtifactContent {
  const find = (name: string): ZipMember | undefined => members.find((member) => member.name === name);
  return {
    artifact,
    downloaded: reader.downloaded,
    files: members.map(({ name, size }) => ({ name, size })),
    text: async (name) => {
      const member = find(name);
      return member === undefined ? undefined : readText(reader, artifact, member);
    },
    read: async function* (name, onBytes) {
      const member = find(name);
      if (member === undefined) throw missing(artifact, name, members);
      const start = await dataOffset(reader, member);
      const packed = slice(verifiedBlob(reader, artifact, onBytes), start, start + member.compressedSize);
      yield* heldBack(unzipped(packed, member), heldBackBytes);
    },
    ranges: async (name) => {
      const member = find(name);
      if (member?.stored !== true) return undefined;
      const at = await dataOffset(reader, member);
      return (start, end, onBytes) => {
        if (start < 0 || end > member.size || start > end)
          throw corruptArtifact(
            `Bytes ${String(start)}-${String(end)} of ${member.name} in the artifact are needed, but it has only ${String(member.size)}.`,
          );
        return countedChunks(reader.lend(at + start, at + end), onBytes);
      };
    },
  };
}

/** One file in a zip, and the position of its bytes. */
interface ZipMember {
  readonly name: string;
  readonly stored: boolean;
  readonly size: number;
  readonly compressedSize: number;
  readonly crc: number;
  /** Position of the member's local header, in bytes. */
  readonly headerOffset: number;
}

const localHeaderBytes = 30;

/** Lists the files of a zip. Throws HandoverError `artifact-corrupt` when the directory at its end is missing or damaged. */
async function listZip(reader: RangedReader): Promise<readonly ZipMember[]> {
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
async function dataOffset(reader: RangedReader, member: ZipMember): Promise<number> {
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

// A part of the blob: its digest can't be checked, but the member's size and CRC can.
async function readText(reader: RangedReader, artifact: Artifact, member: ZipMember): Promise<string> {
  if (member.size > limits.recordBytes || member.compressedSize > limits.recordBytes)
    throw corruptArtifact(
      `${member.name} in the artifact "${artifact.name}" has ${String(member.size)} bytes; some kilobytes were expected.`,
    );
  const start = await dataOffset(reader, member);
  return (await copiedBytes(unzipped(reader.stream(start, start + member.compressedSize), member))).toString();
}

// An engine never gets the last bytes of an artifact that turns out to be wrong.
const heldBackBytes = 1024 * 1024;

/** Reads the whole blob, and checks its digest at the end, if one is listed. */
function verifiedBlob(
  reader: RangedReader,
  artifact: Artifact,
  onBytes: (bytes: number) => void,
): AsyncIterable<Buffer> {
  const chunks = countedChunks(reader.stream(0, reader.size), onBytes);
  return verifiedChunks(chunks, { digest: artifact.digest }, (found) => otherDigest(artifact, found.digest));
}

/** Returns the bytes from `start` up to but not including `end`, and reads also the others. */
async function* slice(chunks: AsyncIterable<Buffer>, start: number, end: number): AsyncGenerator<Buffer> {
  let position = 0;
  for await (const chunk of chunks) {
    const from = Math.max(start - position, 0);
    const to = Math.min(end - position, chunk.length);
    if (from < to) yield chunk.subarray(from, to);
    position += chunk.length;
  }
}

/** Returns a member's own bytes, and checks their size and CRC at the end. */
async function* unzipped(packed: AsyncIterable<Buffer>, member: ZipMember): AsyncGenerator<Buffer> {
  let size = 0;
  let crc = 0;
  for await (const chunk of member.stored ? packed : inflated(packed, member.name)) {
    size += chunk.length;
    // A zip bomb is not unpacked to its end.
    if (size > member.size) break;
    crc = crc32(chunk, crc);
    yield chunk;
  }
  if (size !== member.size || crc !== member.crc) throw otherMember(member, size, crc);
}

async function* inflated(packed: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  let broken: unknown;
  const source = watchedChunks(packed, (error) => (broken = error));
  try {
    yield* pipeline(source, createInflateRaw({ chunkSize: 256 * 1024 }), () => undefined);
  } catch (error) {
    if (broken !== undefined) throw asError(broken);
    throw corruptArtifact(`${name} in the artifact can't be unzipped: ${messageOf(error)}.`, error);
  }
}

export function otherDigest({ name, digest }: Pick<Artifact, 'name' | 'digest'>, found = 'none'): HandoverError {
  return corruptArtifact(
    `The artifact "${name}" arrived with digest ${found}; the artifact service lists ${digest ?? 'none'}.`,
  );
}

function otherMember(member: ZipMember, size: number, crc: number): HandoverError {
  const hex = (number: number): string => number.toString(16).padStart(8, '0');
  return corruptArtifact(
    `${member.name} in the artifact has ${size > member.size ? 'at least ' : ''}${String(size)} bytes with CRC ${hex(crc)}; ` +
      `its zip lists ${String(member.size)} bytes with CRC ${hex(member.crc)}.`,
  );
}

function missing(artifact: Artifact, name: string, members: readonly ZipMember[]): HandoverError {
  const there = members.map((member) => member.name).join(', ');
  return corruptArtifact(`The artifact "${artifact.name}" has no file ${name}; it contains: ${there}.`);
}
