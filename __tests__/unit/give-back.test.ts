import { expect, test } from '@jest/globals';
import { giveBack } from '../../shared/bytes/chunks.ts';

test('memory that is a chunk’s alone is given back at once', () => {
  const chunk = Buffer.allocUnsafeSlow(100_000);
  giveBack(chunk);
  expect([chunk.length, chunk.buffer.byteLength]).toEqual([0, 0]);
});

test.each([
  ['its beginning', (memory: Buffer) => memory.subarray(0, 99)],
  ['its end', (memory: Buffer) => memory.subarray(1)],
])('memory that others may use stays: the chunk is %s', (_, part) => {
  const memory = Buffer.alloc(100, 7);
  const chunk = part(memory);
  giveBack(chunk);
  expect(memory).toEqual(Buffer.alloc(100, 7));
  expect(chunk).toHaveLength(99);
});

test('Node’s own pool of small buffers stays', () => {
  const [one, other] = [Buffer.from('one'), Buffer.from('other')];
  giveBack(one);
  expect([one.toString(), other.toString()]).toEqual(['one', 'other']);
});
