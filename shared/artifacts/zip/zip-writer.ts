import { crc32 } from 'node:zlib';
import { type LentChunk, viewOf } from '../../bytes/chunks.ts';
import type { ArtifactFile } from '../store.ts';

// Format: PKWARE APPNOTE 6.3.10. Entries are stored (method 0) with a data descriptor, like the official client's entries at level 0.
// So an entry can be sent before its checksum is known.
const stored = 0;
const version = 45;
const madeBy = 0x0300 | version; // Unix, so that readers use the mode
const fileMode = (0o100644 << 16) >>> 0;
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
 * @param entries each entry's chunks are read after the earlier entries are written, and must have `size` bytes in total if it is known
 * @throws RangeError when an entry's chunks don't have `size` bytes
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
  const shown = large ? limit32 : 0;
  // Shows streaming readers that the data descriptor has 64-bit sizes.
  const extra = zip64Extra(large ? [size ?? 0, size ?? 0] : []);
  const before = [u32(0x04034b50), u16(version, flags, stored, 0, dosEpoch), u32(0, shown, shown)];
  return Buffer.concat([...before, u16(name.length, extra.length), name, extra]);
}

function dataDescriptor(crc: number, size: number, large: boolean): Buffer {
  return Buffer.concat([u32(0x08074b50, crc), large ? u64(size, size) : u32(size, size)]);
}

function centralHeader({ name, offset, size, crc }: Written): Buffer {
  const [shownSize, shownOffset] = [Math.min(size, limit32), Math.min(offset, limit32)];
  const extra = zip64Extra([
    ...(shownSize === limit32 ? [size, size] : []),
    ...(shownOffset === limit32 ? [offset] : []),
  ]);
  return Buffer.concat([
    u32(0x02014b50),
    u16(madeBy, version, flags, stored, 0, dosEpoch),
    u32(crc, shownSize, shownSize),
    u16(name.length, extra.length, 0, 0, 0),
    u32(fileMode, shownOffset),
    name,
    extra,
  ]);
}

function zip64Extra(values: readonly number[]): Buffer {
  return values.length === 0 ? Buffer.alloc(0) : Buffer.concat([u16(1, 8 * values.length), u64(...values)]);
}

function endOfDirectory(count: number, size: number, offset: number): Buffer {
  const end = [u32(0x06054b50), u16(0, 0, count, count), u32(size, Math.min(offset, limit32)), u16(0)];
  return Buffer.concat(offset >= limit32 ? [zip64End(count, size, offset), ...end] : end);
}

function zip64End(count: number, size: number, offset: number): Buffer {
  const locator = [u32(0x07064b50, 0), u64(offset + size), u32(1)];
  const numbers = u64(count, count, size, offset);
  return Buffer.concat([u32(0x06064b50), u64(44), u16(madeBy, version), u32(0, 0), numbers, ...locator]);
}

// Little-endian numbers of 2, 4 and 8 bytes.
const u16 = (...values: readonly number[]): Buffer => little(2, values);
const u32 = (...values: readonly number[]): Buffer => little(4, values);
const u64 = (...values: readonly number[]): Buffer =>
  u32(...values.flatMap((value) => [value % 2 ** 32, Math.floor(value / 2 ** 32)]));

function little(width: number, values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(width * values.length);
  values.forEach((value, position) => bytes.writeUIntLE(value, position * width, width));
  return bytes;
}
