import { crc32 } from 'node:zlib';
import { type LentChunk, viewOf } from '../../bytes/chunks.ts';
import type { ArtifactFile } from '../store.ts';

// Format: PKWARE APPNOTE 6.3.10. Entries are stored (method 0) with a data descriptor, as the official client writes
// them at level 0, so that an entry can be sent before its checksum is known.
const version = 45;
const flags = 0x0808; // data descriptor follows; names are UTF-8
const dosEpoch = 0x0021; // 1980-01-01: the same content gives the same bytes
const limit32 = 0xffffffff;

interface Written {
  readonly name: Buffer;
  readonly offset: number;
  readonly size: number;
  readonly crc: number;
}

/**
 * Returns the bytes of a zip with uncompressed entries.
 * @param entries their chunks are read when the earlier entries are written, and must have `size` bytes if that is known
 * @throws RangeError when an entry doesn't have its size
 */
export async function* storedZip(
  entries: Iterable<ArtifactFile> | AsyncIterable<ArtifactFile>,
): AsyncGenerator<LentChunk> {
  const written: Written[] = [];
  let position = 0;
  for await (const entry of entries) {
    const name = Buffer.from(entry.name);
    const offset = position;
    const header = localHeader(name, entry.size);
    yield header;
    let size = 0;
    let crc = 0;
    for await (const chunk of entry.chunks) {
      crc = crc32(viewOf(chunk), crc);
      size += chunk.length;
      yield chunk;
    }
    if (entry.size !== undefined && size !== entry.size)
      throw new RangeError(`${entry.name}: ${String(size)} bytes instead of ${String(entry.size)}`);
    const descriptor = dataDescriptor(crc, size, isLarge(entry.size));
    yield descriptor;
    position += header.length + size + descriptor.length;
    written.push({ name, offset, size, crc });
  }
  const directory = Buffer.concat(written.map(centralHeader));
  yield Buffer.concat([directory, endOfDirectory(written.length, directory.length, position)]);
}

// A file of unknown size may turn out to be large.
function isLarge(size: number | undefined): boolean {
  return size === undefined || size >= limit32;
}

function localHeader(name: Buffer, size: number | undefined): Buffer {
  const large = isLarge(size);
  const header = Buffer.alloc(30);
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(version, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt16LE(dosEpoch, 12);
  header.writeUInt32LE(large ? limit32 : 0, 18);
  header.writeUInt32LE(large ? limit32 : 0, 22);
  header.writeUInt16LE(name.length, 26);
  // For streaming readers: the data descriptor has 64-bit sizes.
  const extra = large ? zip64Extra([size ?? 0, size ?? 0]) : Buffer.alloc(0);
  header.writeUInt16LE(extra.length, 28);
  return Buffer.concat([header, name, extra]);
}

function dataDescriptor(crc: number, size: number, large: boolean): Buffer {
  const descriptor = Buffer.alloc(large ? 24 : 16);
  descriptor.writeUInt32LE(0x08074b50, 0);
  descriptor.writeUInt32LE(crc, 4);
  if (large) {
    descriptor.writeBigUInt64LE(BigInt(size), 8);
    descriptor.writeBigUInt64LE(BigInt(size), 16);
  } else {
    descriptor.writeUInt32LE(size, 8);
    descriptor.writeUInt32LE(size, 12);
  }
  return descriptor;
}

function centralHeader({ name, offset, size, crc }: Written): Buffer {
  const largeSize = size >= limit32;
  const largeOffset = offset >= limit32;
  const extra = zip64Extra([...(largeSize ? [size, size] : []), ...(largeOffset ? [offset] : [])]);
  const header = Buffer.alloc(46);
  header.writeUInt32LE(0x02014b50, 0);
  header.writeUInt16LE(0x0300 | version, 4); // made on Unix, so the mode below is used
  header.writeUInt16LE(version, 6);
  header.writeUInt16LE(flags, 8);
  header.writeUInt16LE(dosEpoch, 14);
  header.writeUInt32LE(crc, 16);
  header.writeUInt32LE(largeSize ? limit32 : size, 20);
  header.writeUInt32LE(largeSize ? limit32 : size, 24);
  header.writeUInt16LE(name.length, 28);
  header.writeUInt16LE(extra.length, 30);
  header.writeUInt32LE((0o100644 << 16) >>> 0, 38);
  header.writeUInt32LE(largeOffset ? limit32 : offset, 42);
  return Buffer.concat([header, name, extra]);
}

function zip64Extra(values: readonly number[]): Buffer {
  if (values.length === 0) return Buffer.alloc(0);
  const extra = Buffer.alloc(4 + 8 * values.length);
  extra.writeUInt16LE(1, 0);
  extra.writeUInt16LE(8 * values.length, 2);
  values.forEach((value, position) => extra.writeBigUInt64LE(BigInt(value), 4 + 8 * position));
  return extra;
}

function endOfDirectory(count: number, size: number, offset: number): Buffer {
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(size, 12);
  end.writeUInt32LE(Math.min(offset, limit32), 16);
  return offset >= limit32 ? Buffer.concat([zip64End(count, size, offset), end]) : end;
}

function zip64End(count: number, size: number, offset: number): Buffer {
  const end = Buffer.alloc(76);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4);
  end.writeUInt16LE(0x0300 | version, 12);
  end.writeUInt16LE(version, 14);
  end.writeBigUInt64LE(BigInt(count), 24);
  end.writeBigUInt64LE(BigInt(count), 32);
  end.writeBigUInt64LE(BigInt(size), 40);
  end.writeBigUInt64LE(BigInt(offset), 48);
  end.writeUInt32LE(0x07064b50, 56);
  end.writeBigUInt64LE(BigInt(offset + size), 64);
  end.writeUInt32LE(1, 72);
  return end;
}
