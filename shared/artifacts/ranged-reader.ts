import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { LentChunk, LentChunks } from '../bytes/chunks.ts';
import { quoteForeign } from '../base/text.ts';
import { httpError, textOf } from './http.ts';
import {
  CutShort,
  discard,
  RangesIgnored,
  requireListedSize,
  type SignedBlob,
  signedBlob,
  type SignedBlobOptions,
} from './signed-blob.ts';

const partBytes = 2 * 1024 * 1024;
const partsInFlight = 8;

/** Reads a blob by byte range through signed URLs that run out. */
export interface RangedReader {
  /** Size of the blob in bytes. */
  readonly size: number;
  /** Bytes that were downloaded to have the whole blob on this machine; undefined when it isn't. */
  readonly downloaded: () => number | undefined;
  /** The bytes from `start` up to but not including `end`; meant for small ranges. */
  read(start: number, end: number): Promise<Buffer>;
  /** The bytes from `start` to `end` in order, several parts at a time; at most 16 MiB are held. */
  readonly stream: (start: number, end: number) => AsyncIterable<Buffer>;
  /** The same in memory that is used again and again. */
  readonly lend: (start: number, end: number) => LentChunks;
}

export type RangedReaderOptions = SignedBlobOptions;

/**
 * @throws (from its methods) HandoverError `transfer-failed`, `artifact-expired` or `artifact-corrupt`; `RangesIgnored` when the
 *   server answers with the whole
 */
export function rangedReader(options: RangedReaderOptions): RangedReader {
  const { size } = options;
  const blob = signedBlob(options);
  const readInto = (bytes: Buffer, start: number): Promise<Buffer> => readPart(blob, options, bytes, start);
  return {
    size,
    downloaded: () => undefined,
    read: (start, end) => readInto(Buffer.allocUnsafeSlow(end - start), start),
    stream: (start, end) => inParts(readInto, start, end, () => undefined),
    lend: async function* (start, end): AsyncGenerator<LentChunk> {
      const free: Buffer[] = [];
      for await (const part of inParts(readInto, start, end, () => free.pop())) {
        yield part;
        free.push(Buffer.from(part.buffer));
      }
    },
  };
}

/** @param memory asked for a buffer to use again */
async function* inParts(
  readInto: (bytes: Buffer, start: number) => Promise<Buffer>,
  start: number,
  end: number,
  memory: () => Buffer | undefined,
): AsyncGenerator<Buffer> {
  const queue: Promise<Buffer>[] = [];
  let next = start;
  while (next < end || queue.length > 0) {
    while (next < end && queue.length < partsInFlight) {
      const bytes = memory() ?? Buffer.allocUnsafeSlow(Math.min(partBytes, end - start));
      const part = readInto(bytes.subarray(0, end - next), next);
      part.catch(() => undefined); // reported when its turn comes
      queue.push(part);
      next = Math.min(end, next + partBytes);
    }
    const part = await queue.shift();
    if (part !== undefined) yield part;
  }
}

/** Fills `bytes` from `start` on. */
async function readPart(blob: SignedBlob, options: RangedReaderOptions, bytes: Buffer, start: number): Promise<Buffer> {
  const end = start + bytes.length;
  let filled = 0;
  const attempt = async (): Promise<void> => {
    const body = await request(blob, options, start + filled, end);
    // An event for each chunk: promises for each would cost a tenth of a load's CPU time.
    body.on('data', (chunk: Buffer) => {
      filled += chunk.copy(bytes, filled);
    });
    await finished(body);
    if (filled < bytes.length) throw new CutShort(start + filled, end);
  };
  await blob.persist(attempt, () => start + filled, end);
  return bytes;
}

async function request(blob: SignedBlob, options: RangedReaderOptions, start: number, end: number): Promise<Readable> {
  const response = await blob.get({ range: `bytes=${String(start)}-${String(end - 1)}` });
  if (response.statusCode === 200) {
    await discard(response);
    throw new RangesIgnored(`HTTP 200 for bytes ${String(start)}-${String(end)}`);
  }
  if (response.statusCode !== 206) {
    const text = await textOf(response);
    throw httpError(response, text);
  }
  try {
    const range = String(response.headers['content-range'] ?? '');
    const [, from, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(range) ?? [];
    requireListedSize(Number(size), options);
    if (Number(from) !== start) throw new CutShort(start, end, `the answer is "${quoteForeign(range, 80)}"`);
  } catch (error) {
    await discard(response);
    throw error;
  }
  return response.body;
}
