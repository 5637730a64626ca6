import { createHash, type Hash } from 'node:crypto';
import { pipeline } from 'node:stream';
import { crc32, createInflateRaw } from 'node:zlib';
import { asError, HandoverError, messageOf } from '../../base/errors.ts';
import { watchedChunks } from '../../bytes/chunks.ts';
import type { RangedReader } from '../blob/ranged-reader.ts';
import type { Artifact } from '../store.ts';
import type { ZipMember } from './zip-reader.ts';

// Held back until the whole artifact has been checked, so that an engine never sees a valid end of wrong bytes.
const heldBackBytes = 1024 * 1024;
const again = 'Run the job that exports the image again.';

/**
 * One member's unzipped bytes, read by passing once over the whole blob. The last 1 MiB is given out only after the
 * blob's digest and the member's size and CRC have been checked.
 * @param dataStart where the member's bytes start in the blob
 * @throws HandoverError `artifact-corrupt` while iterating
 */
export function verifiedMember(
  reader: RangedReader,
  artifact: Artifact,
  member: ZipMember,
  dataStart: number,
  onBytes: (bytes: number) => void,
): AsyncIterable<Buffer> {
  const compressed = verifiedSlice(reader, artifact, dataStart, dataStart + member.compressedSize, onBytes);
  const plain = member.stored ? compressed : inflate(compressed, member.name);
  return holdBack(checkedMember(plain, member), heldBackBytes);
}

/** The whole blob's bytes, checked in the same way: for an artifact that is one raw file. */
export function verifiedBlob(
  reader: RangedReader,
  artifact: Artifact,
  onBytes: (bytes: number) => void,
): AsyncIterable<Buffer> {
  return holdBack(verifiedSlice(reader, artifact, 0, reader.size, onBytes), heldBackBytes);
}

async function* verifiedSlice(
  reader: RangedReader,
  artifact: Artifact,
  start: number,
  end: number,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let position = 0;
  for await (const part of reader.stream(0, reader.size)) {
    if (artifact.digest !== undefined) hash.update(part);
    onBytes(part.length);
    const from = Math.max(start - position, 0);
    const to = Math.min(end - position, part.length);
    if (from < to) yield part.subarray(from, to);
    position += part.length;
  }
  requireListedDigest(artifact, hash);
}

/**
 * @param hash has seen all of the artifact's blob, if a digest of it is listed
 * @throws HandoverError `artifact-corrupt`
 */
export function requireListedDigest(artifact: Pick<Artifact, 'name' | 'digest'>, hash: Hash): void {
  if (artifact.digest === undefined) return;
  const actual = `sha256:${hash.digest('hex')}`;
  if (actual === artifact.digest) return;
  throw new HandoverError(
    'artifact-corrupt',
    `The artifact "${artifact.name}" arrived with digest ${actual}; the artifact service lists ${artifact.digest}.`,
    again,
  );
}

async function* inflate(compressed: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  let broken: unknown;
  const source = watchedChunks(compressed, (error) => (broken = error));
  try {
    yield* pipeline(source, createInflateRaw({ chunkSize: 256 * 1024 }), () => undefined);
  } catch (error) {
    if (broken !== undefined) throw asError(broken);
    throw new HandoverError(
      'artifact-corrupt',
      `${name} in the artifact can't be unzipped: ${messageOf(error)}.`,
      again,
      error,
    );
  }
}

async function* checkedMember(chunks: AsyncIterable<Buffer>, member: ZipMember): AsyncGenerator<Buffer> {
  let size = 0;
  let crc = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    // A bomb: what is said to be small must not be unpacked to its end to find out.
    if (size > member.size) break;
    crc = crc32(chunk, crc);
    yield chunk;
  }
  if (size === member.size && crc === member.crc) return;
  throw new HandoverError(
    'artifact-corrupt',
    `${member.name} in the artifact has ${size > member.size ? 'at least ' : ''}${String(size)} bytes with CRC ${hex(crc)}; ` +
      `its zip lists ${String(member.size)} bytes with CRC ${hex(member.crc)}.`,
    again,
  );
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, '0');
}

/** Passes chunks on, always keeping the last `bytes` until the source has ended without an error. */
export async function* holdBack(chunks: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  const held: Buffer[] = [];
  let total = 0;
  for await (const chunk of chunks) {
    held.push(chunk);
    total += chunk.length;
    for (let first = held[0]; first !== undefined && total - first.length >= bytes; first = held[0]) {
      held.shift();
      total -= first.length;
      yield first;
    }
  }
  yield* held;
}
