import { createHash } from 'node:crypto';
import { asError } from '../../base/errors.ts';
import type { LentChunks } from '../../bytes/chunks.ts';
import type { Digest } from '../../image/digest.ts';
import { readText } from '../../http/answer.ts';
import type { Http } from '../../http/client.ts';
import { again } from '../../http/retry.ts';

// Put Block and Put Block List of the Blob service REST API, which the artifact service's signed URLs lead to.
const apiVersion = '2024-11-04';
const blockBytes = 4 * 1024 * 1024;
const blocksInFlight = 8;

/** Where a blob goes, and how requests are made again. */
export interface UploadTarget {
  readonly http: Http;
  /** A signed URL that may create and write the blob. */
  readonly url: string;
  /** Told of each request that is made again, in one line. */
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface UploadedBlob {
  readonly size: number;
  readonly digest: Digest;
}

/**
 * Uploads chunks as one blob while they are still being made; at most 8 blocks of 4 MiB are in flight.
 * @param onBytes told how many bytes have arrived, block by block
 * @throws HttpError or a connection error, after each block was tried as often as `again` does; whatever `chunks` throws
 */
export async function uploadBlob(
  target: UploadTarget,
  chunks: LentChunks,
  onBytes: (bytes: number) => void,
): Promise<UploadedBlob> {
  const hash = createHash('sha256');
  const ids: string[] = [];
  const inFlight = new Set<Promise<void>>();
  let failure: unknown;
  let size = 0;
  const pool = new BlockPool();
  for await (const { buffer, length } of blocks(chunks, pool)) {
    const block = buffer.subarray(0, length);
    hash.update(block);
    const start = size;
    size += length;
    const id = blockId(ids.length);
    ids.push(id);
    const sent: Promise<void> = putBlock(target, id, block, start)
      .then(
        () => {
          onBytes(length);
          pool.giveBack(buffer);
        },
        (error: unknown) => {
          failure ??= error;
        },
      )
      .finally(() => inFlight.delete(sent));
    inFlight.add(sent);
    if (inFlight.size >= blocksInFlight) await Promise.race(inFlight);
    if (failure !== undefined) break;
  }
  await Promise.all(inFlight);
  if (failure !== undefined) throw asError(failure);
  await putBlockList(target, ids);
  return { size, digest: `sha256:${hash.digest('hex')}` };
}

// All ids of a blob have one length (Put Block, "Remarks").
function blockId(position: number): string {
  return Buffer.from(String(position).padStart(6, '0')).toString('base64');
}

/** Block-sized buffers that are used again: leaving them to the garbage collector would triple the memory held. */
class BlockPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(blockBytes);
  }

  giveBack(block: Buffer): void {
    this.#free.push(block);
  }
}

/** Fills blocks out of the pool; whoever takes one gives its buffer back. The last may be shorter. */
async function* blocks(
  chunks: LentChunks,
  pool: BlockPool,
): AsyncGenerator<{ readonly buffer: Buffer; readonly length: number }> {
  let buffer = pool.take();
  let length = 0;
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length;) {
      const count = chunk.copy(buffer, length, taken);
      taken += count;
      length += count;
      if (length < blockBytes) continue;
      yield { buffer, length };
      buffer = pool.take();
      length = 0;
    }
  }
  if (length > 0) yield { buffer, length };
}

function putBlock(target: UploadTarget, id: string, block: Buffer, start: number): Promise<void> {
  const what = `Bytes ${String(start)}-${String(start + block.length)} of the upload`;
  return put(target, { comp: 'block', blockid: id }, block, {}, what);
}

function putBlockList(target: UploadTarget, ids: readonly string[]): Promise<void> {
  const list = ids.map((id) => `<Latest>${id}</Latest>`).join('');
  const body = `<?xml version="1.0" encoding="utf-8"?><BlockList>${list}</BlockList>`;
  const headers = { 'content-type': 'application/xml', 'x-ms-blob-content-type': 'application/zip' };
  return put(target, { comp: 'blocklist' }, body, headers, 'The end of the upload');
}

async function put(
  { http, url, onRetry, signal }: UploadTarget,
  query: Readonly<Record<string, string>>,
  body: Buffer | string,
  headers: Readonly<Record<string, string>>,
  what: string,
): Promise<void> {
  const request = {
    method: 'PUT',
    url: withQuery(url, query),
    headers: { 'x-ms-version': apiVersion, ...headers },
    body,
  } as const;
  await again('part', async () => readText(await http.send(request)), { what: () => what, onRetry, signal });
}

function withQuery(url: string, query: Readonly<Record<string, string>>): string {
  const result = new URL(url);
  for (const [name, value] of Object.entries(query)) result.searchParams.set(name, value);
  return result.href;
}
