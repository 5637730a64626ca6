/** Tar works in blocks of 512 bytes (POSIX.1-2024, pax, "ustar Interchange Format"). */
export const tarBlock = 512;

/** Two zero blocks end an archive. */
export const endOfArchive = Buffer.alloc(2 * tarBlock);

/** Bytes of zeros that follow an entry's content of `size` bytes. */
export function tarPadding(size: number): number {
  return (tarBlock - (size % tarBlock)) % tarBlock;
}

/** An entry's header. The same input gives the same bytes: owner root, times zero. */
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
  writeChecksum(block);
  return block;
}

/** Whether bytes begin with a tar entry's header: POSIX and GNU tar both write `ustar` at byte 257. */
export function looksLikeTar(head: Buffer): boolean {
  return head.toString('latin1', 257, 262) === 'ustar';
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0');
}

// Eleven octal digits reach 8 GiB; above that GNU tar's base-256 form, which every reader of today knows.
function writeSize(block: Buffer, size: number): void {
  if (size < 8 ** 11) {
    block.write(octal(size, 11), 124);
    return;
  }
  block[124] = 0x80;
  block.writeBigUInt64BE(BigInt(size), 128);
}

function writeChecksum(block: Buffer): void {
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)}\u0000 `, 148, 'latin1');
}
