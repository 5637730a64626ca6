/**
 * Gives a chunk's memory back at once, where it is the chunk's alone; nobody may use the chunk afterwards. The garbage
 * collector comes for each 20 MB that Node has allocated outside its heap: dozens of times for one image.
 */
export function giveBack(chunk: Buffer): void {
  const { buffer, length } = chunk;
  if (length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
