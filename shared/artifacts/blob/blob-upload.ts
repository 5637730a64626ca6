import { inPool } from '../../base/pool.ts';
import type { LentChunks } from '../../bytes/chunks.ts';
import { Checksum, checksummed, type Found } from '../../bytes/verified.ts';
import { readText } from '../../http/answer.ts';
import type { Http } from '../../http/client.ts';
import { again } from '../../http/retry.ts';

// Put Block and Put Block List of the Blob service REST API, which the artifact service's signed URLs lead to.
const apiVersion = '2024-11-04';
const blockBytes = 4 * 1024 * 1024;
const blocksInFlight = 8;

/** The destination of a blob. */
export interface UploadTarget {
  readonly http: Http;
  /** A signed URL that may create and write the blob. */
  readonly url: string;
  /** Default: that of an artifact. */
  readonly contentType?: string;
  /** Blocks of 4 MiB that are uploaded at a time. Default: 8. */
  readonly maxConcurrent?: number;
  /** Called with one log line before each retry. */
  readonly onRetry: (line: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Uploads chunks as one blob while they are produced, several blocks of 4 MiB at a time.
 * @param onBytes called with the number of bytes of each block that has arrived
 * @throws HttpError or a connection error after the last retry; errors of `chunks`
 */
export async function uploadBlob(
  target: UploadTarget,
  chunks: LentChunks,
  onBytes: (bytes: number) => void,
): Promise<Found> {
  const checksum = new Checksum();
  const ids: string[] = [];
  // Used again: leaving them to the garbage collector would triple the memory held.
  const free: Buffer[] = [];
  await inPool(
    blocks(checksummed(chunks, checksum), free),
    target.maxConcurrent ?? blocksInFlight,
    async ({ bytes, start }, failed) => {
      const id = blockId(start / blockBytes);
      ids[start / blockBytes] = id;
      // A refused block ends the others.
      const signal = AbortSignal.any([target.signal, failed]);
      await putBlock({ ...target, signal }, id, bytes, start);
      onBytes(bytes.length);
      free.push(Buffer.from(bytes.buffer));
    },
  );
  await putBlockList(target, ids);
  return checksum.found();
}

// All ids of a blob have one length (Put Block, "Remarks").
function blockId(position: number): string {
  return Buffer.from(String(position).padStart(6, '0')).toString('base64');
}

/** Copies chunks into blocks, of which the last may be shorter. Takes memory from `free`. */
async function* blocks(
  chunks: LentChunks,
  free: Buffer[],
): AsyncGenerator<{ readonly bytes: Buffer; readonly start: number }> {
  let block: Buffer = Buffer.alloc(0);
  let [length, start] = [0, 0];
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length;) {
      if (length === 0) block = free.pop() ?? Buffer.allocUnsafeSlow(blockBytes);
      const count = chunk.copy(block, length, taken);
      taken += count;
      length += count;
      if (length < blockBytes) continue;
      yield { bytes: block, start };
      start += length;
      length = 0;
    }
  }
  if (length > 0) yield { bytes: block.subarray(0, length), start };
}

function putBlock(target: UploadTarget, id: string, block: Buffer, start: number): Promise<void> {
  const what = `Bytes ${String(start)}-${String(start + block.length)} of the upload`;
  return put(target, { comp: 'block', blockid: id }, block, {}, what);
}

function putBlockList(target: UploadTarget, ids: readonly string[]): Promise<void> {
  const list = ids.map((id) => `<Latest>${id}</Latest>`).join('');
  const body = `<?xml version="1.0" encoding="utf-8"?><BlockList>${list}</BlockList>`;
  const headers = {
    'content-type': 'application/xml',
    'x-ms-blob-content-type': target.contentType ?? 'application/zip',
  };
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
    signal,
  } as const;
  await again('part', async () => readText(await http.send(request)), { what: () => what, onRetry, signal });
}

function withQuery(url: string, query: Readonly<Record<string, string>>): string {
  const result = new URL(url);
  for (const [name, value] of Object.entries(query)) result.searchParams.set(name, value);
  return result.href;
}
