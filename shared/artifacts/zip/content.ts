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

function zipContent(artifact: Artifact, reader: RangedReader, members: readonly Entry[]): ArtifactContent {
  const find = (name: string): Entry | undefined => members.find(({ fileName }) => fileName === name);
  return {
    artifact,
    downloaded: reader.downloaded,
    files: members.map(({ fileName: name, uncompressedSize: size }) => ({ name, size })),
    text: async (name) => {
      const member = find(name);
      return member && readText(reader, artifact, member);
    },
    read: async function* (name, onBytes) {
      const member = find(name);
      if (member === undefined) {
        const there = members.map(({ fileName }) => fileName).join(', ');
        throw corruptArtifact(`The artifact "${artifact.name}" has no file ${name}; it contains: ${there}.`);
      }
      const start = await dataOffset(reader, member);
      const packed = slice(verifiedBlob(reader, artifact, onBytes), start, start + member.compressedSize);
      yield* heldBack(unzipped(packed, member), heldBackBytes);
    },
    ranges: async (name) => {
      const member = find(name);
      if (member === undefined || !isStored(member)) return undefined;
      const at = await dataOffset(reader, member);
      const { uncompressedSize: size } = member;
      return (start, end, onBytes) => {
        if (start < 0 || end > size || start > end)
          throw corruptArtifact(
            `Bytes ${String(start)}-${String(end)} of ${name} in the artifact are needed, but it has only ${String(size)}.`,
          );
        return countedChunks(reader.lend(at + start, at + end), onBytes);
      };
    },
  };
}

const localHeaderBytes = 30;
const isStored = (member: Entry): boolean => member.compressionMethod === 0;

/** Lists the files of a zip. Throws HandoverError `artifact-corrupt` when the directory at its end is missing or damaged. */
async function listZip(reader: RangedReader): Promise<readonly Entry[]> {
  class RangeAccess extends RandomAccessReader {
    override _readStreamForRange(start: number, end: number): Readable {
      return Readable.from(within(reader, start, end));
    }
  }
  try {
    const zip = await fromRandomAccessReaderPromise(new RangeAccess(), reader.size, { autoClose: false });
    const members: Entry[] = [];
    if (zip.entryCount > limits.zipMembers) throw new Error(`it has ${String(zip.entryCount)} files`);
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName.endsWith('/')) continue;
      requirePlace(entry, reader.size);
      members.push(entry);
    }
    return members;
  } catch (error) {
    if (error instanceof HandoverError) throw error;
    throw corruptArtifact(`The artifact is not a whole zip file: ${messageOf(error)}.`, error);
  }
}

function requirePlace(member: Entry, blobBytes: number): void {
  const { fileName: name, compressedSize, uncompressedSize: size, compressionMethod: method } = member;
  const at = member.relativeOffsetOfLocalHeader;
  const isPlace = [compressedSize, size, at].every(isByteCount) && at + compressedSize <= blobBytes;
  if (!isPlace || (isStored(member) && compressedSize !== size))
    throw new Error(`${quoteForeign(name, 80)} can't be where the zip's directory has it`);
  if (![0, 8].includes(method)) throw new Error(`${name} has compression method ${String(method)}`);
}

/** Returns where a member's data starts: after its 30-byte header, name and extra field (APPNOTE 4.3.7). */
async function dataOffset(reader: RangedReader, member: Entry): Promise<number> {
  const { fileName: name, relativeOffsetOfLocalHeader: at, compressedSize } = member;
  const header = await reader.read(at, Math.min(reader.size, at + localHeaderBytes));
  if (header.length < localHeaderBytes || header.readUInt32LE(0) !== 0x04034b50)
    throw corruptArtifact(`The artifact's zip has no header for ${name} at byte ${String(at)}.`);
  const start = at + localHeaderBytes + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (start + compressedSize <= reader.size) return start;
  throw corruptArtifact(`The artifact's zip has ${name} at byte ${String(start)}, and ends before all of it.`);
}

/** Reads a range that the zip specifies and that may be outside the blob. Throws only while iterating: yauzl expects no earlier throw. */
async function* within(reader: RangedReader, start: number, end: number): AsyncGenerator<Buffer> {
  if (start < 0 || start > end || end > reader.size) {
    throw corruptArtifact(
      `The zip of the artifact refers to its bytes ${String(start)}-${String(end)}, but has only ${String(reader.size)}.`,
    );
  }
  yield* reader.stream(start, end);
}

// This reads only part of the blob, so its digest can't be checked, but the member's size and CRC can.
async function readText(reader: RangedReader, artifact: Artifact, member: Entry): Promise<string> {
  const { fileName, uncompressedSize: size, compressedSize } = member;
  if (size > limits.recordBytes || compressedSize > limits.recordBytes)
    throw corruptArtifact(
      `${fileName} in the artifact "${artifact.name}" has ${String(size)} bytes; some kilobytes were expected.`,
    );
  const start = await dataOffset(reader, member);
  return (await copiedBytes(unzipped(reader.stream(start, start + compressedSize), member))).toString();
}

// Held back until the checks at the end, so that an engine never gets the last bytes of a corrupt artifact.
const heldBackBytes = 1024 * 1024;

/** Reads the whole blob, and checks its digest at the end if the service lists a digest. */
function verifiedBlob(
  reader: RangedReader,
  artifact: Artifact,
  onBytes: (bytes: number) => void,
): AsyncIterable<Buffer> {
  const chunks = countedChunks(reader.stream(0, reader.size), onBytes);
  return verifiedChunks(chunks, { digest: artifact.digest }, (found) => otherDigest(artifact, found.digest));
}

/** Returns the bytes from `start` up to but not including `end`, but reads all chunks, so that the digest can be checked. */
async function* slice(chunks: AsyncIterable<Buffer>, start: number, end: number): AsyncGenerator<Buffer> {
  let position = 0;
  for await (const chunk of chunks) {
    const from = Math.max(start - position, 0);
    const to = Math.min(end - position, chunk.length);
    if (from < to) yield chunk.subarray(from, to);
    position += chunk.length;
  }
}

/** Returns a member's unzipped bytes, and checks their size and CRC at the end. */
async function* unzipped(packed: AsyncIterable<Buffer>, member: Entry): AsyncGenerator<Buffer> {
  let size = 0;
  let crc = 0;
  for await (const chunk of isStored(member) ? packed : inflated(packed, member.fileName)) {
    size += chunk.length;
    // Stops early, so that a zip bomb isn't unpacked completely.
    if (size > member.uncompressedSize) break;
    crc = crc32(chunk, crc);
    yield chunk;
  }
  if (size !== member.uncompressedSize || crc !== member.crc32) throw otherMember(member, size, crc);
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

export function otherDigest({ name, digest }: Artifact, found = 'none'): HandoverError {
  return corruptArtifact(
    `The artifact "${name}" arrived with digest ${found}; the artifact service lists ${digest ?? 'none'}.`,
  );
}

function otherMember(
  { fileName, uncompressedSize: listed, crc32: sum }: Entry,
  size: number,
  crc: number,
): HandoverError {
  const hex = (number: number): string => number.toString(16).padStart(8, '0');
  return corruptArtifact(
    `${fileName} in the artifact has ${size > listed ? 'at least ' : ''}${String(size)} bytes with CRC ${hex(crc)}; ` +
      `its zip lists ${String(listed)} bytes with CRC ${hex(sum)}.`,
  );
}
