import { type HandoverError, invalidTarball } from '../base/errors.ts';
import { isByteCount } from '../base/json.ts';
import { limits } from '../base/limits.ts';
import { quoteForeign } from '../base/text.ts';
import type { LentChunk, LentChunks } from '../bytes/chunks.ts';
import { isZero, readPaxRecords, readTarHeader, tarBlock, tarPadding, textAt } from './header.ts';

/** An entry of a tar. The unread rest of its content is skipped when the next entry is requested. */
interface TarEntry {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** The offset of its content in the tar, in bytes. */
  readonly offset: number;
  /** Whether it's a regular file, not a folder, link or device. */
  readonly isFile: boolean;
  /** The target of a symbolic link, or the name of the entry that a hard link refers to. */
  readonly link: TarLink | undefined;
  /** Slices of the tar's chunks, not copies. */
  readonly content: LentChunks;
}

export interface TarLink {
  readonly kind: 'symbolic' | 'hard';
  readonly target: string;
}

/** Values from extension headers. They precede an entry's own header and override it. */
interface Extension {
  name?: string | undefined;
  size?: number | undefined;
  link?: string | undefined;
}

const linkKinds: Readonly<Record<string, TarLink['kind']>> = { '1': 'hard', '2': 'symbolic' };

/**
 * Reads the entries of a plain tar (ustar, GNU or pax) as it arrives. Requests a chunk only when the previous one is used up, and keeps
 * none, so the chunks can share memory. Reads and ignores bytes after the end of the archive, as engines do (Go archive/tar,
 * Reader.Next).
 * @throws HandoverError `tarball-invalid` when it is truncated or not a tar; errors of `chunks`
 */
export async function* tarEntries(chunks: LentChunks): AsyncGenerator<TarEntry> {
  const bytes = new ByteSource(chunks);
  let extension: Extension = {};
  let isEnded = false;
  let count = 0;
  try {
    for (let block; (block = await bytes.block()) !== undefined;) {
      if (isZero(block)) {
        if (isEnded) await bytes.skipAll();
        isEnded = true;
        continue;
      }
      const header = readTarHeader(block);
      if (header === undefined) throw invalid('a header has a wrong checksum');
      count += 1;
      if (count > limits.tarEntries) throw invalid(`it has more than ${String(limits.tarEntries)} entries`);
      const { type } = header;
      const { name = header.name, size: told = header.size, link: target = header.linkTarget } = extension;
      if (![told, header.size].every(isByteCount)) throw invalid(`${quoteForeign(name, 80)} has an impossible size`);
      if (Math.max(name.length, target.length) > limits.tarNameLength)
        throw invalid(`${quoteForeign(name, 80)} is the beginning of a name of ${String(name.length)} characters`);
      if (type === 'x' || type === 'L' || type === 'K') {
        if (header.size > limits.tarHeaderBytes) throw invalid(`a header has ${String(header.size)} bytes`);
        readExtension(type, await bytes.exactly(header.size), extension);
        await bytes.skip(tarPadding(header.size));
        continue;
      }
      // Global values, which apply to all entries, are not needed.
      if (type === 'g') {
        await bytes.skip(header.size + tarPadding(header.size));
        continue;
      }
      // Links, devices, folders and pipes have no content, even if their header has a size (Go archive/tar, isHeaderOnly).
      const size = /^[1-6]$/.test(type) ? 0 : told;
      const end = bytes.position + size;
      const kind = linkKinds[type];
      const link = kind && { kind, target };
      // Type 7 is a file that old systems stored contiguously (POSIX.1-2024, pax, "ustar Interchange Format").
      const isFile = ['0', '\0', '7'].includes(type);
      yield { name, size, offset: bytes.position, isFile, link, content: bytes.until(end) };
      await bytes.skip(end + tarPadding(size) - bytes.position);
      extension = {};
    }
    // The sender may have stopped between entries.
    if (!isEnded) throw invalid('its end is missing');
  } finally {
    await bytes.close();
  }
}

function readExtension(type: 'x' | 'L' | 'K', content: Buffer, extension: Extension): void {
  // GNU tar ends the name with a zero byte.
  if (type === 'L') extension.name = textAt(content, 0, content.length);
  else if (type === 'K') extension.link = textAt(content, 0, content.length);
  else {
    const records = readPaxRecords(content);
    extension.name = records.get('path') ?? extension.name;
    extension.link = records.get('linkpath') ?? extension.link;
    const size = Number(records.get('size'));
    if (isByteCount(size)) extension.size = size;
  }
}

function invalid(why: string): HandoverError {
  return invalidTarball(
    `The tarball is not a whole tar archive: ${why}.`,
    'Run the job again; if it repeats, look for a full disk: df -h.',
  );
}

/** Reads a given number of bytes from chunks. */
class ByteSource {
  readonly #chunks: AsyncIterator<LentChunk>;
  #rest: LentChunk = Buffer.alloc(0);
  /** The number of bytes read so far. */
  position = 0;

  constructor(chunks: LentChunks) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Reads a copy of a block; undefined at the end. */
  async block(): Promise<Buffer | undefined> {
    return (await this.#more()) ? this.exactly(tarBlock) : undefined;
  }

  async exactly(bytes: number): Promise<Buffer> {
    const all = Buffer.alloc(bytes);
    let filled = 0;
    for await (const part of this.until(this.position + bytes)) filled += part.copy(all, filled);
    return all;
  }

  async skip(bytes: number): Promise<void> {
    const end = this.position + bytes;
    while (this.position < end) await this.#take(end);
  }

  async skipAll(): Promise<void> {
    do this.#rest = Buffer.alloc(0);
    while (await this.#more());
  }

  async *until(end: number): AsyncGenerator<LentChunk> {
    while (this.position < end) yield await this.#take(end);
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  async #take(end: number): Promise<LentChunk> {
    if (!(await this.#more())) throw invalid(`it ends at byte ${String(this.position)}`);
    const part = this.#rest.subarray(0, end - this.position);
    this.#rest = this.#rest.subarray(part.length);
    this.position += part.length;
    return part;
  }

  async #more(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#rest = next.value;
    }
    return true;
  }
}
