import { HandoverError } from '../../base/errors.ts';
import { limits } from '../../base/limits.ts';
import { copiedBytes, countedChunks } from '../../bytes/chunks.ts';
import type { RangedReader } from '../blob/ranged-reader.ts';
import type { Artifact, ArtifactContent } from '../store.ts';
import { withTailCache } from './tail-cache.ts';
import { verifiedBlob, verifiedMember } from './verified-stream.ts';
import { dataOffset, listZip, readLocalHeader, type ZipMember } from './zip-reader.ts';

/**
 * Opens an artifact's blob: a zip of files, or one raw file (`archive: false` of the upload action).
 * @throws HandoverError `artifact-corrupt` or `transfer-failed`
 */
export async function openArtifact(artifact: Artifact, blob: RangedReader): Promise<ArtifactContent> {
  const reader = await withTailCache(blob);
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
    read: (_name, onBytes) => verifiedBlob(reader, artifact, onBytes),
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
      const start = dataOffset(member, await readLocalHeader(reader, member));
      yield* verifiedMember(reader, artifact, member, start, onBytes);
    },
    ranges: async (name) => {
      const member = find(name);
      if (member?.stored !== true) return undefined;
      const at = dataOffset(member, await readLocalHeader(reader, member));
      return (start, end, onBytes) => {
        if (start < 0 || end > member.size || start > end) throw outside(member, start, end);
        return countedChunks(reader.lend(at + start, at + end), onBytes);
      };
    },
  };
}

async function readText(reader: RangedReader, artifact: Artifact, member: ZipMember): Promise<string> {
  if (member.size > limits.recordBytes || member.compressedSize > limits.recordBytes) throw tooLarge(artifact, member);
  const start = dataOffset(member, await readLocalHeader(reader, member));
  const range: RangedReader = {
    size: member.compressedSize,
    downloaded: reader.downloaded,
    read: (from, to) => reader.read(start + from, start + to),
    stream: (from, to) => reader.stream(start + from, start + to),
    lend: (from, to) => reader.lend(start + from, start + to),
  };
  // Only a part of the blob is read here: its digest can't be checked, the member's size and CRC can.
  const unlisted = { id: artifact.id, name: artifact.name, size: artifact.size };
  return (await copiedBytes(verifiedMember(range, unlisted, member, 0, () => undefined))).toString();
}

function outside({ name, size }: ZipMember, start: number, end: number): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `Bytes ${String(start)}-${String(end)} of ${name} in the artifact were asked for; it has ${String(size)}.`,
    'Run the job that exports the image again.',
  );
}

function tooLarge(artifact: Artifact, member: ZipMember): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `${member.name} in the artifact "${artifact.name}" has ${String(member.size)} bytes; some kilobytes were expected.`,
    'Run the job that exports the image again.',
  );
}

function missing(artifact: Artifact, name: string, members: readonly ZipMember[]): HandoverError {
  return new HandoverError(
    'artifact-corrupt',
    `The artifact "${artifact.name}" has no file ${name}; it holds: ${members.map((member) => member.name).join(', ')}.`,
    'Run the job that exports the image again.',
  );
}
