/** Tar works in blocks of 512 bytes (POSIX.1-2024, pax, "ustar Interchange Format"). */
export const tarBlock = 512;

/** Two zero blocks end an archive. */
export const endOfArchive = Buffer.alloc(2 * tarBlock);

/** Returns the number of zero bytes that follow an entry's content of `size` bytes. */
export function tarPadding(size: number): number {
  return (tarBlock - (size % tarBlock)) % tarBlock;
}

/** Returns an entry's header. The same input gives the same bytes: the owner is root and the times are zero. */
export function tarHeader(name: string, size: number): Buffer {
  const isDirectory = name.endsWith('/');
  const block = Buffer.alloc(tarBlock);
  if (Buffer.byteLength(name) > 100) throw new RangeError(`tar entry name too long: ${name}`);
  block.write(name, 0);
  block.write(octal(isDirectory ? 0o755 : 0o644, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  writeSize(block, size);
  block.write(octal(0, 11), 136);
  block.write(isDirectory ? '5' : '0', 156);
  block.write('ustar\u000000', 257, 'latin1');
  block.write(`${octal(checksumOf(block), 6)}\u0000 `, 148, 'latin1');
  return block;
}

/** Returns whether bytes begin with a tar entry's header. POSIX and GNU tar both write `ustar` at byte 257. JSON contains no zero bytes. */
export function looksLikeTar(head: Buffer): boolean {
  return head.toString('latin1', 257, 262) === 'ustar' && head.subarray(0, tarBlock).includes(0);
}

/** The values in an entry's header. */
interface TarHeader {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** One character, such as `0` for a file; zero in old archives. */
  readonly type: string;
  /** A link's target; empty for anything else. */
  readonly linkTarget: string;
}

/** Reads a header. Returns undefined if its checksum is wrong. */
export function readTarHeader(block: Buffer): TarHeader | undefined {
  if (Number.parseInt(textAt(block, 148, 8), 8) !== checksumOf(block)) return undefined;
  const name = textAt(block, 0, 100);
  // GNU tar uses the prefix field for other data, and writes two spaces after `ustar`.
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? textAt(block, 345, 155) : '';
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    size: block[124] === 0x80 ? Number(block.readBigUInt64BE(128)) : Number.parseInt(textAt(block, 124, 12), 8),
    type: block.toString('latin1', 156, 157),
    linkTarget: textAt(block, 157, 100),
  };
}

/** Returns whether a block consists of zeros, as at the end of an archive. */
export function isZero(block: Buffer): boolean {
  return block[0] === 0 && block.every((byte) => byte === 0);
}

/** Reads the records `length key=value` of a pax header (POSIX.1-2024, pax, "pax Header Block"). */
export function readPaxRecords(content: Buffer): ReadonlyMap<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(' ', at);
    const length = Number(content.toString('latin1', at, Math.max(at, space)));
    if (space < at || !Number.isSafeInteger(length) || length <= space - at) break;
    const [key = '', ...value] = content.toString('utf8', space + 1, at + length - 1).split('=');
    records.set(key, value.join('='));
    at += length;
  }
  return records;
}

/** Returns the text of a field, up to its first zero byte. */
export function textAt(bytes: Buffer, start: number, length: number): string {
  return bytes.toString('utf8', start, start + length).replace(/\0.*$/s, '');
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0');
}

// Eleven octal digits suffice up to 8 GiB. Larger sizes use GNU tar's base-256 form, which every current reader supports.
function writeSize(block: Buffer, size: number): void {
  if (size < 8 ** 11) {
    block.write(octal(size, 11), 124);
    return;
  }
  block[124] = 0x80;
  block.writeBigUInt64BE(BigInt(size), 128);
}

// The checksum field itself counts as eight spaces.
function checksumOf(block: Buffer): number {
  return block.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0);
}

/** Returns whether an entry or blob that begins like this is a config or manifest, not a layer. JSON may begin with white space. */
export function looksLikeJson(head: Buffer): boolean {
  return !looksLikeTar(head) && /^[ \t\r\n]*[{[]|^[ \t\r\n]+$/.test(head.toString('latin1', 0, tarBlock));
}
